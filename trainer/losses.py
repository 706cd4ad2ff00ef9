"""The paper's loss (equation 4): mean of the parts' ID losses plus mean of the levels' triplet losses."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hamr_edge.trainer.network import PartFeatures, part_levels

_SMALLEST_SQUARED = 1e-12


class Loss(NamedTuple):
    """Scalars; ``total`` is what is minimised."""

    total: Tensor
    identity: Tensor
    triplet: Tensor


def hamr_loss(
    features: PartFeatures,
    labels: Tensor,
    stripes: int,
    margin: float = 1.0,
    label_smoothing: float = 0.1,
    normalize_triplet: bool = False,
) -> Loss:
    """Equation 4 for a batch.

    Args:
        features: What the network gave; P parts, N images.
        labels: (N,) int64, classes from 0.
        stripes: K of the network; one triplet loss a level.
        margin: Of the triplet loss.
        label_smoothing: Share of the target spread over all classes (Szegedy et al., CVPR 2016).
        normalize_triplet: Measure distances between unit vectors.
    """
    identity = identity_loss(features.logits, labels, label_smoothing)
    triplet = triplet_loss(features.triplet, labels, stripes, margin, normalize_triplet)
    return Loss(identity + triplet, identity, triplet)


def identity_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean over parts and images of the smoothed cross-entropy; ``logits`` is (P, N, classes)."""
    parts = logits.shape[0]
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(parts), label_smoothing=label_smoothing)


def triplet_loss(features: Tensor, labels: Tensor, stripes: int, margin: float, normalize: bool) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., 2017) of every level's concatenated features, averaged over levels.

    Args:
        features: (P, N, D) triplet features.
        labels: (N,) int64; at least two classes.
        stripes: K; levels are groups of parts.
        margin: Wanted gap between the farthest positive and the nearest negative, as Euclidean distance.
        normalize: Scale each level's vector to unit length first.
    """
    levels = torch.tensor(part_levels(stripes), device=features.device)
    gram = torch.bmm(features, features.transpose(1, 2))
    # The inner product of concatenated vectors is the sum of their pieces' inner products.
    gram = gram.new_zeros(stripes, *gram.shape[1:]).index_add(0, levels, gram)
    squared_norm = gram.diagonal(dim1=1, dim2=2)
    if normalize:
        scale = squared_norm.clamp_min(_SMALLEST_SQUARED).rsqrt()
        gram = gram * scale[:, :, None] * scale[:, None, :]
        squared_norm = gram.diagonal(dim1=1, dim2=2)
    squared = squared_norm[:, :, None] + squared_norm[:, None, :] - 2 * gram
    distance = squared.clamp_min(_SMALLEST_SQUARED).sqrt()
    same = labels[:, None] == labels[None, :]
    hardest_positive = distance.masked_fill(~same, float("-inf")).amax(2)
    hardest_negative = distance.masked_fill(same, float("inf")).amin(2)
    return F.relu(hardest_positive - hardest_negative + margin).mean()
