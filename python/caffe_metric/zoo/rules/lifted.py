"""LiftedStructSimilaritySoftmaxLoss, the code of Song et al. 2016."""

from __future__ import annotations


def rewrite(net, layer) -> None:
    message = layer.message
    reader = net.reader_of(layer, 1)
    if reader:
        net.refuse(layer, layer.type, f"layer '{reader}' reads its second top")
        return
    if len(message.top) > 1:
        net.drop_tops(layer, 1)
    made = net.new_layer(message.name, "LiftedStructureLoss", message.bottom, message.top, message)
    made.loss_weight.extend(message.loss_weight)
    given = message.lifted_struct_sim_softmax_loss_param
    param = made.lifted_structure_loss_param
    param.form = 0  # SONG
    if given.HasField("margin"):
        param.margin = given.margin
    net.changed(
        layer,
        layer.type,
        "LiftedStructureLoss form SONG",
        "finite for images that are equal and for batches without pairs",
    )
    net.replace(layer, [made])
