"""The layers of the suite, in one table.

Whatever has to know which layers there are, and what their bottoms, tops and blobs mean, reads it
here: the tools that read nets, `lint`, the gradient check, deployment, training, the reference
pages, `spec`, the benchmarks and the tests. A new layer is a row. Its parameters stand in
proto/caffe_metric.proto, not here.

    >>> find("TripletLoss").field
    'triplet_loss_param'
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping

# What a bottom carries. Features get a gradient, the others do not.
FEATURES, LABEL, WEIGHT = "features", "label", "weight"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A row of the table. `parameters` of its functions: all fields of the message, by name."""

    type: str
    # What the bottoms carry, a tuple for each number of bottoms that the layer takes.
    bottoms: tuple[tuple[str, ...], ...]
    # The tops it always has, and those it may have: by what they hold. The further ones report
    # and pass no gradient.
    tops: tuple[str, ...]
    further: tuple[str, ...] = ()
    # The message of its parameters, and the fields of LayerParameter: the name, older spellings.
    message: str = ""
    field: str = ""
    older_fields: tuple[str, ...] = ()
    # Further fields of LayerParameter that count, with their messages. No name stands in two.
    also: tuple[tuple[str, str], ...] = ()
    # Whether it is built into Caffe, too, or a Python layer only.
    native: bool = True
    # How many blobs it has, by its parameters.
    blobs: Callable[[object], int] = lambda parameters: 0
    # Blobs it keeps for itself: no solver learns them, they have no gradient.
    state_blobs: tuple[int, ...] = ()
    # Parameters that must be > 0.
    positive: tuple[str, ...] = ()
    # Whether loss_param { normalization } replaces what the sum of its losses is divided by.
    normalization: bool = True
    # What backward takes for constants, as the paper does: then it is no derivative.
    constants: str = ""
    # Whether it ends a net: what it reads is the embedding that is deployed.
    head: bool = False
    # Whether it keeps MarginInnerProduct's iteration count, from which lambda comes.
    counts: bool = False
    # Whether it is meant for features of length 1, which it does not make itself.
    unit_features: bool = False
    # Rows of one class that stand together in a batch.
    group: Callable[[Mapping], int] = lambda parameters: 2
    # The loss when all features are equal; NaN where that depends on more than the parameters.
    collapsed: Callable[[object, int], float] | None = None
    # For its page: headers of include/caffe_metric/, parameters of a prototxt to copy, papers.
    rules: tuple[str, ...] = ()
    example: Mapping[str, object] = dataclasses.field(default_factory=dict)
    papers: tuple[str, ...] = ()

    @property
    def loss(self) -> bool:
        """Whether its first top has a loss_weight of 1 by itself."""
        return self.type.endswith("Loss")

    @property
    def stem(self) -> str:
        """The name of its files: triplet_loss of TripletLoss."""
        return file_stem(self.type)

    @property
    def messages(self) -> dict[str, str]:
        """{field of LayerParameter: message} of all its parameters, its own first."""
        return dict(((self.field, self.message), *self.also) if self.field else self.also)

    @property
    def python_class(self) -> str:
        """Its Python twin in caffe_metric.layers."""
        return f"{self.type}Layer"

    @property
    def bottom_counts(self) -> tuple[int, ...]:
        return tuple(len(roles) for roles in self.bottoms)

    @property
    def top_counts(self) -> tuple[int, ...]:
        """A loss may leave out its top, too."""
        least = 0 if self.loss else len(self.tops)
        return tuple(range(least, len(self.tops) + len(self.further) + 1))

    def roles(self, count: int) -> tuple[str, ...]:
        """What `count` bottoms carry, () for a number that it does not take."""
        return next((roles for roles in self.bottoms if len(roles) == count), ())


def file_stem(name: str) -> str:
    """The name of the files of a class."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _collapsed_triplet(parameters, bottoms: int) -> float:
    if bottoms == 4:
        return math.nan  # the weights decide
    loss = {"HINGE": parameters.margin, "RATIO": 1.0, "SOFT": math.log(2)}[parameters.losstype]
    negatives = parameters.num_negatives if bottoms == 1 else 1
    return loss if bottoms == 2 else loss * negatives / 2


def _collapsed_rank(parameters, bottoms: int) -> float:
    """Every row is a candidate then, and as many as the ratios tell are drawn."""
    most = parameters.neg_num
    drawn = int(most * parameters.hard_ratio) + int(most * parameters.rand_ratio)
    return parameters.margin * drawn / max(1, most)


FACENET = (
    "Schroff, Kalenichenko, Philbin: FaceNet: A Unified Embedding for Face Recognition and "
    "Clustering. CVPR 2015, arXiv:1503.03832."
)
RATIO = (
    "Wohlhart, Lepetit: Learning Descriptors for Object Recognition and 3D Pose Estimation. "
    "CVPR 2015, arXiv:1502.05908."
)
SOFT = (
    "Hermans, Beyer, Leibe: In Defense of the Triplet Loss for Person Re-Identification. "
    "arXiv:1703.07737 (2017)."
)
SWAP = (
    "Balntas, Riba, Ponsa, Mikolajczyk: Learning local feature descriptors with triplets and "
    "shallow convolutional neural networks. BMVC 2016."
)
VIDEOS = (
    "Wang, Gupta: Unsupervised Learning of Visual Representations using Videos. ICCV 2015, "
    "arXiv:1505.00687 (a ranking loss with hard negatives)."
)
SPHEREFACE = (
    "Liu, Wen, Yu, Li, Raj, Song: SphereFace: Deep Hypersphere Embedding for Face Recognition. "
    "CVPR 2017, arXiv:1704.08063."
)
LARGE_MARGIN = (
    "Liu, Wen, Yu, Yang: Large-Margin Softmax Loss for Convolutional Neural Networks. ICML 2016, "
    "arXiv:1612.02295."
)
PARTIAL_FC = (
    "An, Zhu, Gao, Xiao, Zhao, Feng, Wu, Qin, Zhang, Zhang, Fu: Partial FC: Training 10 Million "
    "Identities on a Single Machine. ICCVW 2021, arXiv:2010.05222."
)
ONLINE_SOFTMAX = (
    "Milakov, Gimelshein: Online normalizer calculation for softmax. arXiv:1805.02867 (2018)."
)
ARCFACE = (
    "Deng, Guo, Xue, Zafeiriou: ArcFace: Additive Angular Margin Loss for Deep Face Recognition. "
    "CVPR 2019, arXiv:1801.07698."
)
COSFACE = (
    "Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu: CosFace: Large Margin Cosine Loss for Deep Face "
    "Recognition. CVPR 2018, arXiv:1801.09414."
)

CONTRASTIVE = (
    "Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping. CVPR 2006."
)
MULTI_SIMILARITY = (
    "Wang, Han, Huang, Dong, Scott: Multi-Similarity Loss with General Pair Weighting for Deep "
    "Metric Learning. CVPR 2019, arXiv:1904.06627."
)
CIRCLE = (
    "Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei: Circle Loss: A Unified Perspective of Pair "
    "Similarity Optimization. CVPR 2020, arXiv:2002.10857."
)
SUP_CON = (
    "Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan: Supervised Contrastive "
    "Learning. NeurIPS 2020, arXiv:2004.11362."
)
LIFTED = (
    "Song, Xiang, Jegelka, Savarese: Deep Metric Learning via Lifted Structured Feature Embedding. "
    "CVPR 2016, arXiv:1511.06452."
)
PROXY_ANCHOR = (
    "Kim, Kim, Cho, Kwak: Proxy Anchor Loss for Deep Metric Learning. CVPR 2020, arXiv:2003.13911."
)
CENTER = (
    "Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition. "
    "ECCV 2016."
)
MEMORY = (
    "Wang, Zhang, Huang, Scott: Cross-Batch Memory for Embedding Learning. CVPR 2020, "
    "arXiv:1912.06798."
)

BATCH = ((FEATURES, LABEL),)
# The rows of earlier batches, which a loss over pairs may meet, too.
BATCH_MEMORY = (("batch_memory_param", "BatchMemoryParameter"),)
# Of the losses over all pairs of a batch: s the cosine similarity, d the distance of two rows.
SIMILARITIES = ("active", "s_ap", "s_an")
DISTANCES = ("active", "d_ap", "d_an")


def _over_pairs(kind, field, further, papers, example, **more) -> Layer:
    """A loss in which each row of a batch meets all the others."""
    return Layer(
        kind,
        bottoms=BATCH,
        tops=("loss",),
        further=further,
        message=f"{kind}Parameter",
        field=field,
        head=True,
        papers=papers,
        example=example,
        **more,
    )


def _with_memory(*arguments, **more) -> Layer:
    """One that meets the rows of earlier batches, too: these, their labels and their number."""
    return _over_pairs(
        *arguments,
        also=BATCH_MEMORY,
        blobs=lambda parameters: 3 if parameters.rows else 0,
        state_blobs=(0, 1, 2),
        **more,
    )


LAYERS = (
    Layer(
        "Norm",
        bottoms=((FEATURES,),),
        tops=("unit",),
        message="L2NormParameter",
        field="l2_norm_param",
        rules=("norm",),
    ),
    Layer(
        "TripletLoss",
        bottoms=(
            (FEATURES,),
            (FEATURES, LABEL),
            (FEATURES, FEATURES, FEATURES),
            (FEATURES, FEATURES, FEATURES, WEIGHT),
        ),
        tops=("loss",),
        further=("active", "d_ap", "d_an"),
        message="TripletLossParameter",
        field="triplet_loss_param",
        head=True,
        collapsed=_collapsed_triplet,
        rules=("triplet_rule", "distance", "triplet_mining"),
        example={"margin": 0.2, "mining": "SEMIHARD"},
        papers=(FACENET, RATIO, SOFT, SWAP),
    ),
    Layer(
        "RankHardLoss",
        bottoms=BATCH,
        tops=("loss",),
        further=("active",),
        message="RankParameter",
        field="rank_param",
        older_fields=("rank_hard_loss_param",),
        head=True,
        unit_features=True,
        group=lambda parameters: int(parameters.get("pair_size", 2)),
        collapsed=_collapsed_rank,
        rules=("rank_hard",),
        example={
            "neg_num": 4,
            "pair_size": 2,
            "hard_ratio": 0.5,
            "rand_ratio": 0.5,
            "margin": 1,
        },
        papers=(VIDEOS,),
    ),
    Layer(
        "MarginInnerProduct",
        bottoms=BATCH,
        tops=("logits",),
        further=("lambda",),
        message="MarginInnerProductParameter",
        field="margin_inner_product_param",
        blobs=lambda parameters: 2 if parameters.persist_iteration else 1,
        state_blobs=(1,),
        head=True,
        counts=True,
        rules=("margin_rule",),
        example={
            "num_output": 10,
            "type": "QUADRUPLE",
            "weight_filler": {"type": "xavier"},
            "base": 1000,
            "gamma": 0.12,
            "power": 1,
            "lambda_min": 5,
        },
        papers=(SPHEREFACE, LARGE_MARGIN, ARCFACE, COSFACE),
    ),
    Layer(
        "MarginSoftmaxLoss",
        bottoms=BATCH,
        tops=("loss",),
        further=("lambda", "accuracy"),
        message="MarginSoftmaxLossParameter",
        field="margin_softmax_loss_param",
        also=(("margin_inner_product_param", "MarginInnerProductParameter"),),
        blobs=lambda parameters: (
            1 + bool(parameters.persist_iteration) + (2 if parameters.own_update else 0)
        ),
        # The count; with own_update, the momentum and the rate.
        state_blobs=(1, 2, 3),
        head=True,
        counts=True,
        rules=("softmax_rule", "margin_rule", "class_sampling", "exponential"),
        example={
            "num_output": 1000000,
            "weight_filler": {"type": "gaussian", "std": 0.01},
            "normalize_features": True,
            "scale": 64,
            "cosine_margin": 0.35,
        },
        papers=(SPHEREFACE, LARGE_MARGIN, ARCFACE, COSFACE, PARTIAL_FC, ONLINE_SOFTMAX),
    ),
    _with_memory(
        "BatchContrastiveLoss",
        "batch_contrastive_loss_param",
        DISTANCES,
        (CONTRASTIVE, MEMORY),
        {"negative_margin": 1},
        positive=("negative_margin",),
        normalization=False,
        rules=("batch_contrastive",),
    ),
    _with_memory(
        "MultiSimilarityLoss",
        "multi_similarity_loss_param",
        SIMILARITIES,
        (MULTI_SIMILARITY, MEMORY),
        {"alpha": 2, "beta": 50},
        positive=("alpha", "beta"),
        rules=("multi_similarity",),
    ),
    _with_memory(
        "CircleLoss",
        "circle_loss_param",
        SIMILARITIES,
        (CIRCLE, MEMORY),
        {"margin": 0.25, "gamma": 256},
        positive=("gamma",),
        constants="the factors [s + m]+ and [1 + m - s]+",
        rules=("circle",),
    ),
    _with_memory(
        "SupConLoss",
        "sup_con_loss_param",
        SIMILARITIES,
        (SUP_CON, MEMORY),
        {"temperature": 0.1},
        positive=("temperature",),
        rules=("sup_con",),
    ),
    _with_memory(
        "LiftedStructureLoss",
        "lifted_structure_loss_param",
        DISTANCES,
        (LIFTED, SOFT, MEMORY),
        {"margin": 1, "form": "GENERALIZED"},
        rules=("lifted_structure",),
    ),
    _over_pairs(
        "ProxyAnchorLoss",
        "proxy_anchor_loss_param",
        SIMILARITIES,
        (PROXY_ANCHOR,),
        {"num_output": 10, "proxy_filler": {"type": "gaussian", "std": 0.1}},
        positive=("alpha",),
        normalization=False,
        blobs=lambda parameters: 1,
        rules=("proxy_anchor",),
    ),
    Layer(
        "CenterLoss",
        bottoms=BATCH,
        tops=("loss",),
        message="CenterLossParameter",
        field="center_loss_param",
        head=True,
        example={"num_output": 10, "center_filler": {"type": "gaussian", "std": 0.1}},
        normalization=False,
        rules=("center",),
        papers=(CENTER,),
        blobs=lambda parameters: 1,
    ),
    Layer(
        "TripletSelect",
        bottoms=BATCH,
        tops=("anchors", "positives", "negatives"),
        further=("weights",),
        message="TripletLossParameter",
        native=False,
        head=True,
    ),
    Layer(
        "ShardedMarginSoftmaxLoss",
        bottoms=BATCH,
        tops=("loss",),
        further=("lambda", "accuracy"),
        message="MarginSoftmaxLossParameter",
        also=(("margin_inner_product_param", "MarginInnerProductParameter"),),
        native=False,
        head=True,
    ),
    Layer(
        "GatherBatch",
        bottoms=((FEATURES,), (FEATURES, LABEL)),
        tops=("features",),
        further=("labels",),
        native=False,
    ),
    Layer(
        "IdentityData",
        bottoms=((),),
        tops=("images",),
        further=("labels",),
        native=False,
        state_blobs=(0,),
    ),
)

_BY_TYPE = {layer.type: layer for layer in LAYERS}
# Those that Caffe's own factory makes, once a tree is patched.
NATIVE = tuple(layer for layer in LAYERS if layer.native)


def find(kind: str) -> Layer | None:
    """The row of a type, None where it is no layer of the suite."""
    return _BY_TYPE.get(kind)


def of_message(name: str) -> Layer:
    """The row whose parameters are of that message."""
    return next(layer for layer in LAYERS if layer.message == name)
