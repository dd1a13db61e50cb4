"""CenterLoss in the words of caffe-face, caffe-windows and centerloss (2019)."""

from __future__ import annotations


def rewrite(net, layer) -> None:
    message = layer.message
    given = message.center_loss_param
    if given.distance_type not in ("", "L2"):
        net.refuse(
            layer,
            "CenterLoss",
            f"distance_type {given.distance_type}: the sum of absolute "
            "differences; nearest: CenterLoss with L2",
            layer.line_of("center_loss_param.distance_type"),
        )
        return
    if given.type:
        net.refuse(
            layer,
            "CenterLoss",
            "type COSINE pulls to a cosine, with a gradient that is "
            "not the loss's; nearest: CenterLoss",
            layer.line_of("center_loss_param.type"),
        )
        return
    if given.margin:
        net.refuse(
            layer,
            "CenterLoss",
            f"margin {given.margin:g} leaves features alone that are "
            "near their centre; nearest: CenterLoss without it",
            layer.line_of("center_loss_param.margin"),
        )
        return
    reader = net.reader_of(layer, 1)
    if reader:
        net.refuse(layer, "CenterLoss", f"layer '{reader}' reads its second top")
        return
    forks = [name for name in ("distance_type", "eps", "type", "margin") if given.HasField(name)]
    why = []
    if "distance_type" in forks:
        why.append("the published sum over a class was added once a sample")
    if set(forks) - {"distance_type"}:
        why.append("the published centres moved by the mean over n, here over n + 1")
    for name in forks:
        given.ClearField(name)
    if len(message.top) > 1:
        net.drop_tops(layer, 1)
        why.append("the second top goes")
    if forks or why:
        net.touch(layer)
        net.changed(layer, "CenterLoss", "CenterLoss, update DELTA", "; ".join(why))
    else:
        net.stays(layer, "CenterLoss", "update DELTA, the published rule, is the default")
