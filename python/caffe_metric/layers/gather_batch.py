"""GatherBatch: the rows of all ranks as one batch, so that a loss mines over all of them."""

from __future__ import annotations

from caffe_metric.layers.base import TRAIN, MetricLayer, label_column, zero_others
from caffe_metric.nets import schema
from caffe_metric.parallel.ranks import here


class GatherBatchLayer(MetricLayer):
    """One batch of the rows of all ranks that train together, in the order of the ranks.

    bottom 0  features, N x ..., of this rank
    bottom 1  optional: labels, N
    top 0     features, R N x ..., of all R ranks
    top 1     labels, R N, where there is bottom 1

    Every rank computes the same loss L of the whole batch; it gets back sum_r dL_r/dx of its own N
    rows, and the mean over the ranks that `caffe-metric train` makes of the gradients is that of
    (L_1 + ... + L_R) / R. N is the same on all ranks, and does not change. In TEST, and where no
    ranks train together, top is bottom. It has no parameters.
    """

    HAS_RULES = False

    def parse(self, values):
        schema.refuse_unknown(values, [])

    def configure(self, bottom, top):
        if not len(bottom) == len(top) or len(bottom) not in (1, 2):
            raise ValueError(
                f"has {len(bottom)} bottoms and {len(top)} tops, must have 1 bottom (features) or "
                "2 (features, labels), and as many tops"
            )
        self._ranks = here() if self.phase == TRAIN else None
        self._size = self._ranks.size if self._ranks else 1
        self._rows = None
        if self._size > 1:
            counts = self._ranks.gather_objects(int(bottom[0].shape[0]))
            if len({*counts}) > 1:
                raise ValueError(f"the ranks have {counts} rows, must have the same number")
            self._rows = counts[0]

    def shape(self, bottom, top):
        rows = bottom[0].shape[0]
        if self._rows not in (None, rows):
            raise ValueError(f"has {rows} rows now, the ranks agreed on {self._rows}")
        if len(bottom) > 1:
            label_column(bottom[1], rows)
        for i in range(len(bottom)):
            top[i].reshape(self._size * bottom[i].shape[0], *list(bottom[i].shape)[1:])

    def compute(self, bottom, top):
        for i in range(len(bottom)):
            data = bottom[i].data
            gathered = self._ranks.gather(data) if self._size > 1 else data
            top[i].data[...] = gathered.reshape(top[i].data.shape)

    def propagate(self, top, propagate_down, bottom):
        zero_others(propagate_down, bottom)
        if propagate_down[0]:
            diff = top[0].diff
            if self._size > 1:
                diff = self._ranks.sum_own(diff.reshape(self._size, *bottom[0].diff.shape))
            bottom[0].diff[...] = diff
