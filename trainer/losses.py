"""The paper's loss (equation 4): mean of the parts' ID losses plus mean of the levels' metric losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.heads import PartFeatures, level_sizes

_SMALLEST_SQUARED = 1e-12


class Loss(NamedTuple):
    """Scalars; ``total`` is what is minimised."""

    total: Tensor
    identity: Tensor
    triplet: Tensor
    """The metric loss, whichever is chosen."""


def hamr_loss(
    features: PartFeatures,
    labels: Tensor,
    config: TrainConfig,
    gather: Callable[[Tensor, int], Tensor] | None = None,
) -> Loss:
    """Equation 4 for a batch.

    Args:
        features: What the network gave; P parts, N images.
        labels: (N,) int64, classes from 0.
        config: Chooses the metric loss and the settings of both.
        gather: With several processes: joins all processes' tensors along an axis, with gradient. The metric loss
            then sees the whole batch, as one process would; the ID loss needs its own images only.
    """
    identity = identity_loss(features.logits, labels, config.label_smoothing)
    triplet = features.triplet
    if gather is not None:
        triplet, labels = gather(triplet, 1), gather(labels, 0)
    gram = level_products(triplet, level_sizes(config.network.stripes, config.network.partition))
    margin = config.margin if config.metric_loss == "triplet" else None
    metric = triplet_loss(gram, labels, margin, config.normalize_triplet)
    return Loss(identity + metric, identity, metric)


def identity_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Mean over parts and images of the smoothed cross-entropy (Szegedy et al., CVPR 2016).

    Args:
        logits: (P, N, classes).
        labels: (N,) int64.
        label_smoothing: Share of the target spread over all classes.
    """
    parts = logits.shape[0]
    return F.cross_entropy(logits.flatten(0, 1), labels.repeat(parts), label_smoothing=label_smoothing)


def level_products(features: Tensor, sizes: list[int]) -> Tensor:
    """Inner products between images of each level's concatenated features.

    Args:
        features: (P, N, D).
        sizes: Parts of each level, which lie side by side; they sum to P.

    Returns:
        (levels, N, N).
    """
    gram = torch.bmm(features, features.transpose(1, 2))
    # The inner product of concatenated vectors is the sum of their pieces' inner products.
    return torch.stack([level.sum(0) for level in torch.split(gram, sizes)])


def triplet_loss(gram: Tensor, labels: Tensor, margin: float | None, normalize: bool) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., 2017), averaged over levels.

    Args:
        gram: (levels, N, N) inner products; see :func:`level_products`.
        labels: (N,) int64; at least two classes.
        margin: Wanted gap between the farthest positive and the nearest negative, as Euclidean distance; None for
            the soft margin, softplus.
        normalize: Scale each level's vector to unit length first.
    """
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
    gap = hardest_positive - hardest_negative
    return (F.softplus(gap) if margin is None else F.relu(gap + margin)).mean()
