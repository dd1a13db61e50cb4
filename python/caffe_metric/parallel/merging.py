"""Blobs that layers change by themselves, made the same on all ranks.

BatchNorm keeps running sums, of its rank's rows: their mean is kept. `own_update` is linear in the
gradient: the mean of what the ranks made of the weights is what one would make of the mean
gradient. `triplet` of MarginInnerProduct gives classes the features of samples: of two ranks with
samples of a class the higher one's count, as the last rows of a batch do. Behind GatherBatch all
ranks do the same, and nothing is left to merge.
"""

from __future__ import annotations

import numpy as np

from caffe_metric.nets import roles
from caffe_metric.support.errors import UserError


class Merging:
    """What of a net's blobs is merged.

    means: blobs whose data become their mean over the ranks at each update; what a layer does to
    its weights in a backward pass is merged at the end of that pass.
    """

    def __init__(self, layers, net, ranks):
        self._net, self._ranks = net, ranks
        self.means, self._placed, self._rows, self._updated = [], {}, {}, {}
        names, gathered = list(net._layer_names), _gathered(layers)
        for layer in layers:
            kept = net.params.get(layer.name, [])
            if layer.type == "BatchNorm" and not layer.batch_norm_param.use_global_stats:
                self.means += kept
            row = roles.row_of(layer)
            if row is None or layer.bottom[:1] and layer.bottom[0] in gathered:
                continue
            given = roles.parameters(layer)
            if given.get("triplet") and row.counts:
                self._placed[names.index(layer.name)] = kept[0]
            if given.get("own_update"):
                self._updated[names.index(layer.name)] = self._own(layer, given, kept)
            if given.get("rows"):
                raise UserError(
                    f"layer '{layer.name}': batch_memory_param would hold other rows on each rank: "
                    "put GatherBatch before it"
                )
        if self._placed or self._updated:
            net.before_backward(self._note)
            net.after_backward(self._merge)

    @staticmethod
    def _own(layer, given, kept):
        if given.get("sample_rate", 1) < 1:
            raise UserError(
                f"layer '{layer.name}': own_update with sample_rate needs the rows of all ranks: "
                "put GatherBatch before it, or use ShardedMarginSoftmaxLoss"
            )
        return [kept[0], kept[-2]]  # weights and momentum

    def _note(self, place):
        """What the rows of the batch's classes are before samples are placed."""
        if place in self._placed:
            labels = self._net._blobs[self._net._bottom_ids(place)[1]].data
            classes = np.unique(labels[labels >= 0].astype(np.int64))
            self._rows[place] = classes, self._placed[place].data[classes]

    def _merge(self, place):
        for blob in self._updated.get(place, ()):
            flat = blob.data.reshape(-1)
            self._ranks.add(flat)
            flat *= np.float32(1 / self._ranks.size)
        if place not in self._placed:
            return
        weights, (classes, before) = self._placed[place].data, self._rows.pop(place)
        changed = classes[(weights[classes] != before).any(axis=1)]
        found = self._ranks.gather_rows(changed), self._ranks.gather_rows(weights[changed])
        for own, rows in zip(*found):
            weights[own] = rows


def _gathered(layers) -> set:
    """The blobs that hold rows of all ranks."""
    found = set()
    for layer in layers:
        if roles.kind(layer) == "GatherBatch" or (layer.bottom and layer.bottom[0] in found):
            found.update(layer.top)
        elif found:
            found.difference_update(layer.top)
    return found
