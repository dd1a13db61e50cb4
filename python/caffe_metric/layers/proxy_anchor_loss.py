"""ProxyAnchorLoss: learned proxies of the classes, which meet the rows of the batch."""

from __future__ import annotations

from caffe_metric.layers.base import (
    MetricLossLayer,
    check_finite,
    check_labels,
    label_column,
    rows_of,
    zero_others,
)
from caffe_metric.losses.batch_pairs import batch_pairs


class ProxyAnchorLossLayer(MetricLossLayer):
    """Pulls rows to a learned proxy of their class, and pushes them from all the other proxies.

    bottom 0  features, N x D
    bottom 1  labels, N, integers in [0, num_output)
    top 0     the loss
    top 1     optional: fraction of proxies with a loss > 0
    top 2, 3  optional: mean cosine similarity of a row and its proxy, and of the others
    blob 0    proxies, num_output x D, taken as if of length 1

    1/|C+| sum over C+ of ln(1 + sum over i of c of e^-alpha(s_ic - margin)) + 1/|C| sum over C of
    ln(1 + sum over i not of c of e^alpha(s_ic + margin)), C+ the classes in the batch
    (Kim et al. 2020, equation 4). Parameters: ProxyAnchorLossParameter.
    """

    MESSAGE = "ProxyAnchorLossParameter"
    MOST_TOPS = 4

    def configure(self, bottom, top):
        p = self.parameters
        if len(bottom) != 2:
            raise ValueError(f"has {len(bottom)} bottoms, must have 2: features and labels")
        if not p.num_output:
            raise ValueError(f"num_output is {p.num_output}, must be >= 1")
        self.check_positive()
        self._width = rows_of(bottom[0]).shape[1]
        if self.add_blobs((p.num_output, self._width)):
            self.fill(self.blobs[0].data, p.proxy_filler, "proxy_filler")

    def shape(self, bottom, top):
        super().shape(bottom, top)
        rows = rows_of(bottom[0])
        if rows.shape[1] != self._width:
            raise ValueError(f"the features have width {rows.shape[1]}, the proxies {self._width}")
        label_column(bottom[1], len(rows))

    def compute(self, bottom, top):
        x, proxies = rows_of(bottom[0]), self.blobs[0].data
        labels = label_column(bottom[1], len(x))
        check_finite(x, "features")
        check_labels(labels, self.parameters.num_output)
        check_finite(proxies, "proxies")
        sums, self._gradient = batch_pairs(
            "ProxyAnchorLoss", self.parameters, x, labels, self.rules, proxies=proxies
        )
        self.report(top, sums.tops(1))

    def propagate(self, top, propagate_down, bottom):
        zero_others(propagate_down, bottom)
        gradient = top[0].diff.dtype.type(top[0].diff) * self._gradient()
        classes = self.parameters.num_output
        if propagate_down[0]:
            bottom[0].diff[...] = gradient[classes:].reshape(bottom[0].diff.shape)
        self.blobs[0].diff[...] += gradient[:classes]
