"""DepthwiseConvolution: a Convolution with as many groups as channels."""

from __future__ import annotations


def rewrite(net, layer) -> None:
    message, was = layer.message, layer.type
    given = message.convolution_param
    if given.group in (0, 1) or not given.HasField("group"):
        given.group = given.num_output
    elif given.num_output % given.group:
        net.refuse(
            layer,
            was,
            f"group {given.group} does not divide num_output {given.num_output}",
            layer.line_of("convolution_param.group"),
        )
        return
    message.type = "Convolution"
    net.changed(layer, was, f"Convolution with group {given.group}", "the same weights")
    net.touch(layer)
