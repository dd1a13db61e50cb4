"""RankHardLoss in its three spellings."""

from __future__ import annotations


def rewrite(net, layer) -> None:
    message = layer.message
    if message.HasField("rankhard_loss_param"):
        if message.HasField("rank_param") or message.HasField("rank_hard_loss_param"):
            net.refuse(layer, "RankHardLoss", "two spellings of its parameters: keep one")
            return
        message.rank_param.CopyFrom(message.rankhard_loss_param)
        message.ClearField("rankhard_loss_param")
        net.touch(layer)
        net.changed(layer, "rankhard_loss_param", "rank_param", "another spelling")
    else:
        net.stays(layer, "RankHardLoss")
