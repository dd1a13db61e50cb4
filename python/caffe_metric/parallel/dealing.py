"""Which rank reads what: every row of the data goes to one rank, by turns.

IdentityData's batches are numbered, and rank r of R gives those with n % R == r: the ranks' batches
of an iteration, one after another, are the batch that a single rank would give with R times the
rows. Of Data and HDF5Data each rank gets every R-th record, of ImageData every R-th line.
"""

from __future__ import annotations

from caffe_metric.nets import roles
from caffe_metric.support.errors import UserError

BY_RECORDS = ("Data", "HDF5Data", "ImageData")
# Readers of Caffe's that every rank reads alike.
UNDEALT = ("WindowData",)


def check(layers) -> None:
    """Raises UserError where the ranks would read the same rows, or rows torn from their groups."""
    readers = [layer for layer in layers if layer.type in (*BY_RECORDS, *UNDEALT)]
    for layer in readers:
        if layer.type in UNDEALT:
            raise UserError(
                f"layer '{layer.name}' ({layer.type}) gives every rank the same rows: read them "
                "with IdentityData, Data, ImageData or HDF5Data"
            )
    sliced = any(layer.type == "Slice" and not layer.slice_param.axis for layer in layers)
    for layer in layers:
        kind = roles.kind(layer)
        by_place = len(layer.bottom) == 1 or (len(layer.bottom) > 2 and sliced)
        if readers and (kind == "RankHardLoss" or (kind == "TripletLoss" and by_place)):
            raise UserError(
                f"layer '{layer.name}' ({kind}) reads rows in groups, but layer "
                f"'{readers[0].name}' ({readers[0].type}) deals them out to the ranks one by one: "
                "read them with IdentityData"
            )


def draws(layer) -> bool:
    """Whether a layer draws for each of its rows, so that ranks have to draw apart."""
    if layer.type == "DummyData":
        fillers = layer.dummy_data_param.data_filler
        return any(filler.type not in ("constant", "") for filler in fillers)
    stochastic = layer.type == "Pooling" and layer.pooling_param.pool == 2
    return layer.type == "Dropout" or stochastic
