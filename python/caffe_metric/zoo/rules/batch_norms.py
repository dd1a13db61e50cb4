"""BN, which has slope and bias of its own: BatchNorm and Scale."""

from __future__ import annotations

import numpy as np


def rewrite(net, layer) -> None:
    message = layer.message
    given = message.bn_param
    norm = net.new_layer(message.name, "BatchNorm", message.bottom, message.top, message)
    for _ in range(3):
        norm.param.add(lr_mult=0, decay_mult=0)
    norm.batch_norm_param.moving_average_fraction = given.momentum
    norm.batch_norm_param.eps = given.eps
    name = net.free_name(f"{message.name}_scale")
    scale = net.new_layer(name, "Scale", message.top, message.top, message)
    scale.scale_param.bias_term = True
    if given.HasField("slope_filler"):
        scale.scale_param.filler.CopyFrom(given.slope_filler)
    if given.HasField("bias_filler"):
        scale.scale_param.bias_filler.CopyFrom(given.bias_filler)
    scale.param.extend(message.param[:2])
    why = []
    if given.frozen:
        norm.batch_norm_param.use_global_stats = True
        del scale.param[:]
        for _ in range(2):
            scale.param.add(lr_mult=0, decay_mult=0)
        why.append("frozen: the stored mean and variance, nothing learns")
    while message.param and len(scale.param) < 2:
        scale.param.add()
    if given.HasField("engine"):
        why.append("engine goes")
    net.weights[message.name] = message.name, _statistics
    net.weights[name] = message.name, _slopes
    net.changed(layer, "BN", "BatchNorm and Scale", "; ".join(why))
    net.replace(layer, [norm, scale])


def _statistics(blobs):
    if len(blobs) != 4:
        raise ValueError(f"holds {len(blobs)} blobs, BN has 4: slope, bias, mean, variance")
    mean, variance = (np.ravel(blob) for blob in blobs[2:4])
    return [mean, variance, np.ones(1, np.float32)]


def _slopes(blobs):
    return [np.ravel(blob) for blob in blobs[:2]]
