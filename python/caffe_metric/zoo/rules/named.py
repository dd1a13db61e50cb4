"""Layers that have no equal here: what each computes, and what is nearest."""

from __future__ import annotations

# Type: (what it computes, the nearest layer of the suite).
LAYERS = {
    "ActLoss": (
        "the mean product of squared features of several embeddings",
        "none; TripletLoss on the one embedding",
    ),
    "AdaCosAddmScale": (
        "an angular margin and a scale that follows the batch",
        "MarginInnerProduct with angular_margin and a constant scale",
    ),
    "AdaCos": (
        "a scale of cosines that follows the batch",
        "MarginInnerProduct with normalize_features and a constant scale",
    ),
    "AngularTripletLoss": ("a loss that is known by name only", "TripletLoss"),
    "Arccos": ("the angle of a cosine", "none"),
    "BinomialLoss": ("ln(1 + e^(a (s - beta))) over pairs of cosines", "MultiSimilarityLoss"),
    "CCALoss": ("a loss that is known by name only", "BatchContrastiveLoss"),
    "ClassDistance": (
        "logits -|x - w|^2 / (2 sigma) of a Gaussian mixture (L-GM)",
        "MarginInnerProduct, with CenterLoss beside it",
    ),
    "Cosine": ("the cosine of an angle", "none"),
    "CosineContrastiveLoss": ("a loss that is known by name only", "BatchContrastiveLoss"),
    "CosineSimilarityBatch": ("the cosines of all pairs of a batch", "MultiSimilarityLoss"),
    "DSALoss": (
        "pulls features to centres, against a random part of the other classes",
        "CenterLoss",
    ),
    "DoubleMarginContrastiveLoss": (
        "a contrastive loss with a margin for same pairs, too",
        "BatchContrastiveLoss with positive_margin",
    ),
    "FeatureDecay": ("a penalty on the length of features", "none"),
    "FeatureIncay": ("a reward for the length of features", "none"),
    "Flip": ("turns features or images over", "none"),
    "FocalLoss": ("a softmax loss with weights (1 - p)^gamma", "SoftmaxWithLoss"),
    "GeneralContrastiveLoss": (
        "a contrastive loss of distances to class centres (NormFace)",
        "BatchContrastiveLoss, or MarginInnerProduct and SoftmaxWithLoss",
    ),
    "GeneralTripletLoss": (
        "a triplet loss of distances to class centres (NormFace)",
        "TripletLoss, or ProxyAnchorLoss",
    ),
    "GlobalLSEMargin": ("log sum exp of the logits, as a margin", "MarginInnerProduct"),
    "HashingLoss": (
        "a contrastive loss of codes that are to be -1 or 1 (DSH)",
        "BatchContrastiveLoss",
    ),
    "HybridSoftmaxLoss": (
        "a softmax over labelled and unlabelled identities (person search)",
        "MarginSoftmaxLoss",
    ),
    "InfimumLoss": ("a bound of the loss", "none"),
    "InnerDistance": (
        "squared distances to class centres (NormFace)",
        "MarginInnerProduct type SINGLE",
    ),
    "InterClass": ("pushes the rows of a classifier apart (SphereFace+)", "ProxyAnchorLoss"),
    "IslandLoss": ("a centre loss whose centres repel each other", "CenterLoss"),
    "LSROLoss": (
        "a softmax loss, uniform for rows with a negative label",
        "SoftmaxWithLoss with ignore_label, or MarginSoftmaxLoss with label_smoothing",
    ),
    "LabelSpecificAffine": ("a b-factor and a bias on the target's logit", "MarginInnerProduct"),
    "LabelSpecificHardMargin": ("a margin on the target's logit", "MarginInnerProduct"),
    "LabelSpecificRescale": ("a factor on the target's logit", "MarginInnerProduct"),
    "LabeledMatching": (
        "logits against a table of identities (OIM)",
        "MarginSoftmaxLoss, or ProxyAnchorLoss",
    ),
    "MHELoss": ("hyperspherical energy of a classifier's rows", "none"),
    "MovingNormalize": ("division by a moving mean of norms", "Norm"),
    "MultibatchData": ("batches of identities for N-pair losses", "IdentityData, a Python layer"),
    "NCALoss": (
        "distances to class centres in a softmax (NormFace)",
        "MarginInnerProduct and SoftmaxWithLoss",
    ),
    "NoiseTolerantFR": (
        "weights of samples by the angles of the last batches",
        "MarginInnerProduct with angular_margin",
    ),
    "NoisySoftmax": ("a softmax loss with noise on the target's logit", "SoftmaxWithLoss"),
    "NPairMultiClassLoss": ("an N-pair loss with mining", "SupConLoss"),
    "NpairLoss": ("an N-pair loss with mining", "SupConLoss"),
    "PS": ("part of P2SLoss", "TripletLoss"),
    "P2SLoss": ("distances of points to sets of points", "TripletLoss"),
    "Pairwise": ("differences of all pairs of rows", "BatchContrastiveLoss"),
    "PairwiseLoss": ("a weighted likelihood of pairs of codes (HashNet)", "MultiSimilarityLoss"),
    "PedestrianTripletLoss": ("a triplet loss with ignored labels", "TripletLoss"),
    "QuadrupletLoss": ("a hinge of distances of quadruplets", "TripletLoss"),
    "ROIPooling": ("pooling of regions", "none"),
    "RangeLoss": (
        "the largest distances within, the least between classes",
        "TripletLoss with mining HARDEST",
    ),
    "SampleTriplet": ("a table of triplets", "TripletLoss with mining"),
    "ScaleTanH": ("tanh(beta x) with a beta that grows", "TanH"),
    "SharedCenterLoss": ("a centre loss that shares the classifier's rows", "CenterLoss"),
    "SmoothL1Loss": ("a smooth absolute difference", "EuclideanLoss"),
    "SoftContrastiveLoss": (
        "a soft contrastive loss of distances to centres (NormFace)",
        "MultiSimilarityLoss",
    ),
    "SoftTruncation": ("a soft bound of a blob", "none"),
    "TripletRankingHinge": (
        "a hinge of query, similar and dissimilar codes",
        "TripletLoss with three bottoms",
    ),
    "UnlabeledMatching": (
        "logits against a queue of features without identity (OIM)",
        "a loss over the batch with batch_memory_param",
    ),
}
_LOWER = {name.lower(): name for name in LAYERS}


def known(type_name: str) -> bool:
    return type_name.lower() in _LOWER


def rewrite(net, layer) -> None:
    """A layer of LAYERS, whatever the case of its letters."""
    what, nearest = LAYERS[_LOWER[layer.type.lower()]]
    tail = "nothing here is near it" if nearest == "none" else f"nearest: {nearest}"
    net.refuse(layer, layer.type, f"{what}; {tail}")


# Python layers that compute what some layer of LAYERS does.
PYTHON = {
    "DistributionLossLayer": "a histogram loss of pairs' cosines; nearest: MultiSimilarityLoss"
}
