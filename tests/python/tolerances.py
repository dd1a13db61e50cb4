"""The tolerances of the Python tests: each with the reason for its size.

A float32 number carries a relative rounding error of up to 6e-8 (2^-24). Errors are relative to the
greatest number of the array they are in, unless an entry says otherwise.
"""

# A sum of up to a few hundred products in float32, against float64: the rounding errors add up like
# a random walk, 6e-8 * sqrt(500) = 1.3e-6. The bound has an order to spare for cancellation between
# d_ap and d_an.
from __future__ import annotations

VALUE = 1e-5

# Gradients pass through one more division and one more sum than values do.
GRADIENT = 1e-5

# d_ap - d_an + margin of distances about 1e3 times the loss: the rounding of the distances counts.
CANCELLED = 1e-3

# LP with p < 1 or near-zero differences divides by |u|^(1-p): errors of u grow by that factor.
LP_GRADIENT = 1e-4

# Central differences around a float net (caffe_metric.gradients.check): rounding of the top over a
# step of 1/32 of the features' size is about 1e-5 of a gradient, and up to 1e-2 for small ones.
DIFFERENCES = 1e-2

# Two oracles in float64: their own rounding.
ORACLES = 1e-10

# numeric.gradient in float64, step 1e-6: rounding 1e-16 / 1e-6, truncation 1e-12.
NUMERIC = 1e-7

# C++ and Python layers: both float32, sums in another order.
PARITY = 1e-5

# Unit rows: one division in float32.
UNIT = 1e-6

# A mean over 2000 draws of values in [0, 1] has a standard error of at most 0.5 / sqrt(2000), which
# is 0.011. Five of them: one false alarm in two million.
DRAWS = 5.5e-2
