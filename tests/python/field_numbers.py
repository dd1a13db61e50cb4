"""The fields of LayerParameter: a number, once released, never changes its meaning."""

from __future__ import annotations

# field: number, message
FIELDS = {
    "l2_norm_param": (40101, "L2NormParameter"),
    "triplet_loss_param": (40102, "TripletLossParameter"),
    "rank_param": (40103, "RankParameter"),
    "rank_hard_loss_param": (40104, "RankParameter"),
    "margin_inner_product_param": (40105, "MarginInnerProductParameter"),
    "margin_softmax_loss_param": (40106, "MarginSoftmaxLossParameter"),
    "batch_contrastive_loss_param": (40107, "BatchContrastiveLossParameter"),
    "multi_similarity_loss_param": (40108, "MultiSimilarityLossParameter"),
    "circle_loss_param": (40109, "CircleLossParameter"),
    "sup_con_loss_param": (40110, "SupConLossParameter"),
    "lifted_structure_loss_param": (40111, "LiftedStructureLossParameter"),
    "proxy_anchor_loss_param": (40112, "ProxyAnchorLossParameter"),
    "center_loss_param": (40113, "CenterLossParameter"),
    "batch_memory_param": (40114, "BatchMemoryParameter"),
}
NUMBERS = {field: number for field, (number, _) in FIELDS.items()}
