"""The rules of caffe-metric's layers, for NumPy arrays of float32 or float64.

Arrays are C-contiguous and of one type a call; nothing is converted or copied. Enums are the
numbers of proto/caffe_metric.proto. ValueError where shapes do not fit, TypeError for types.
"""

from typing import overload

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]

class Options:
    """losstype, margin, distance with p and eps, swap, use_pair: what a triplet costs."""

    def __init__(
        self,
        losstype: int,
        margin: float,
        distance: int,
        p: float,
        eps: float,
        swap: bool,
        use_pair: bool,
    ) -> None: ...

class TripletStats:
    """Sums over triplets."""

    @property
    def loss(self) -> float: ...
    @property
    def selected(self) -> float: ...
    @property
    def active(self) -> float: ...
    @property
    def d_ap(self) -> float: ...
    @property
    def d_an(self) -> float: ...

LISTED_TERM_SIZE: int

class RowTriplets32:
    """Triplets of anchors and positives (G x D) and negatives (G x K x D), rows contiguous."""

    def __init__(
        self, options: Options, a: Float32, p: Float32, n: Float32, weight: Float32 | None
    ) -> None: ...
    @property
    def stats(self) -> TripletStats: ...
    def gradient(self, scale: float, da: Float32, dp: Float32, dn: Float32) -> None: ...

class RowTriplets64:
    """The same for float64."""

    def __init__(
        self, options: Options, a: Float64, p: Float64, n: Float64, weight: Float64 | None
    ) -> None: ...
    @property
    def stats(self) -> TripletStats: ...
    def gradient(self, scale: float, da: Float64, dp: Float64, dn: Float64) -> None: ...

@overload
def norm_forward(x: Float32, eps: float, y: Float32) -> Float32:
    """y = x / max(||x||, eps) over axis 1 of N x C x S. Returns the norms, N x S."""

@overload
def norm_forward(x: Float64, eps: float, y: Float64) -> Float64: ...
@overload
def norm_backward(y: Float32, norms: Float32, eps: float, dy: Float32, dx: Float32) -> None:
    """dx = (dy - y (y . dy)) / ||x||, 0 under eps. dx may be dy."""

@overload
def norm_backward(y: Float64, norms: Float64, eps: float, dy: Float64, dx: Float64) -> None: ...
@overload
def prepare_rows(
    distance: int,
    x: Float32,
    u: Float32,
    squares: Float32,
    lengths: Float32,
) -> None:
    """Writes the rows u that distances are computed from, with ||u||^2 or ||x|| of each."""

@overload
def prepare_rows(
    distance: int,
    x: Float64,
    u: Float64,
    squares: Float64,
    lengths: Float64,
) -> None: ...
@overload
def gram_to_distances(
    distance: int,
    p: float,
    eps: float,
    rows: Rows,
    u: Float32,
    squares: Float32,
    strip: Float32,
    first: int = 0,
) -> None:
    """Turns rows of the Gram matrix u u^T, from column `first` on, into distances, in place."""

@overload
def gram_to_distances(
    distance: int,
    p: float,
    eps: float,
    rows: Rows,
    u: Float64,
    squares: Float64,
    strip: Float64,
    first: int = 0,
) -> None: ...
@overload
def gram_weights(distance: int, d: Float32, w: Float32) -> None:
    """w = 2 w, w / d or w, by distance: what u is multiplied by in the gradient."""

@overload
def gram_weights(distance: int, d: Float64, w: Float64) -> None: ...
@overload
def add_transpose(v: Float32) -> None:
    """v += v^T."""

@overload
def add_transpose(v: Float64) -> None: ...
@overload
def finish_gradient(
    distance: int,
    x: Float32,
    u: Float32,
    lengths: Float32,
    sums: Float32,
    gradient: Float32,
) -> None:
    """Completes a gradient that holds -S u, with sums the row sums of S."""

@overload
def finish_gradient(
    distance: int,
    x: Float64,
    u: Float64,
    lengths: Float64,
    sums: Float64,
    gradient: Float64,
) -> None: ...
@overload
def listed_triplets(
    options: Options,
    x: Float32,
    triplets: Rows,
    terms: Float32,
) -> TripletStats:
    """Sums over the triplets (T x 3 rows of x); writes their terms (T x LISTED_TERM_SIZE)."""

@overload
def listed_triplets(
    options: Options,
    x: Float64,
    triplets: Rows,
    terms: Float64,
) -> TripletStats: ...
@overload
def listed_gradient(
    options: Options,
    x: Float32,
    triplets: Rows,
    terms: Float32,
    gradient: Float32,
) -> None:
    """Adds the gradient of the sum of losses."""

@overload
def listed_gradient(
    options: Options,
    x: Float64,
    triplets: Rows,
    terms: Float64,
    gradient: Float64,
) -> None: ...
@overload
def mine(mining: int, d: Float32, rows: Rows, labels: Float32, margin: float, key: int) -> Rows:
    """The triplets (T x 3) of the anchors `rows`, whose distances are d."""

@overload
def mine(mining: int, d: Float64, rows: Rows, labels: Float64, margin: float, key: int) -> Rows: ...
@overload
def all_triplets(
    options: Options,
    d: Float32,
    rows: Rows,
    labels: Float32,
    slopes: Float32,
) -> TripletStats:
    """Sums over every triplet of the anchors; adds the slopes by d. With swap: of all rows."""

@overload
def all_triplets(
    options: Options,
    d: Float64,
    rows: Rows,
    labels: Float64,
    slopes: Float64,
) -> TripletStats: ...
@overload
def pair_sums(d: Float32, rows: Rows, labels: Float32) -> tuple[float, float, float, float]:
    """Same pairs of the anchors, other pairs, and the sums of their distances."""

@overload
def pair_sums(d: Float64, rows: Rows, labels: Float64) -> tuple[float, float, float, float]: ...
def draw(key: int, a: int, b: int, n: int) -> int:
    """The number of candidate n in the stream of the pair (a, b)."""

def coin(key: int, n: Rows) -> Flags:
    """True with probability one half, for each n."""

@overload
def rank_hard_select(
    products: Float32,
    anchors: Rows,
    labels: Float32,
    neg_num: int,
    hard_ratio: float,
    rand_ratio: float,
    margin: float,
    key: int,
) -> tuple[Rows, Rows]:
    """The taken negatives of RankHardLoss: rows of `products`, and columns."""

@overload
def rank_hard_select(
    products: Float64,
    anchors: Rows,
    labels: Float64,
    neg_num: int,
    hard_ratio: float,
    rand_ratio: float,
    margin: float,
    key: int,
) -> tuple[Rows, Rows]: ...
@overload
def pair_products(x: Float32, u: Rows, v: Rows) -> Float32:
    """x_u_k . x_v_k for each k."""

@overload
def pair_products(x: Float64, u: Rows, v: Rows) -> Float64: ...
@overload
def products_gradient(x: Float32, u: Rows, v: Rows, w: Float32, gradient: Float32) -> None:
    """Adds the gradient of sum_k w_k x_u_k . x_v_k."""

@overload
def products_gradient(x: Float64, u: Rows, v: Rows, w: Float64, gradient: Float64) -> None: ...
def draw_classes(key: int, classes: int, count: int, batch: Rows) -> Rows:
    """The classes that meet, ascending: those of the batch and drawn ones, `count` in all."""

@overload
def exponentials(z: Float32, shift: Float32) -> Float64:
    """z (N x C) becomes exp(z - shift), shift being a number a row; the rows' sums."""

@overload
def exponentials(z: Float64, shift: Float64) -> Float64: ...
@overload
def target_curve(
    m: int, lambda_: float, angular_margin: float, cosine_margin: float, c: Float32
) -> tuple[Float32, Float32]:
    """f(c) of the target's logit in MarginInnerProduct, and its derivative."""

@overload
def target_curve(
    m: int, lambda_: float, angular_margin: float, cosine_margin: float, c: Float64
) -> tuple[Float64, Float64]: ...

class _RuleRows:
    """A rule of a loss over the pairs of a batch, at work on strips of measures v.

    name: the type of the layer. parameters: the fields of its message. labels: of the columns of
    v, N. The anchors are the first rows, or, with proxies, these: proxy c is of class c.
    """

    def __init__(
        self, name: str, parameters: dict, labels: Float32 | Float64, anchors: int, proxies: int = 0
    ) -> None: ...
    @property
    def measure(self) -> int:
        """What v is, a number of Distance in include/caffe_metric/distance.hpp."""
    @property
    def reduction(self) -> str:
        """What the sum of the losses is divided by: "anchors", "active", "pairs", "as it is"."""
    @property
    def two_sweeps(self) -> bool:
        """Whether all anchors are folded before the first of them has its loss."""
    @property
    def pairs(self) -> tuple[float, float, float, float]:
        """The same and the other pairs that were folded, and the sums of their v."""
    def fold(self, v: Float32 | Float64, begin: int) -> None:
        """Folds the rows of the anchors from `begin` on, a row of v each."""
    def meet(self) -> None:
        """All anchors are folded."""
    def slope(self, v: Float32 | Float64, begin: int, write: bool) -> NDArray[np.float64]:
        """The anchors' losses; with `write`, v becomes gram_weight of the derivatives."""

class RuleRows32(_RuleRows): ...
class RuleRows64(_RuleRows): ...
