"""Parts of the body and their heads: multi-granularity operation and multi-pool feature extractors (paper, 3.3, 3.4).

The heads are batched matrix products, and every part's pools follow from the stripes' pools, so the forward pass never
walks over parts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamr_edge.trainer.pooling import RowPools, group_rows, row_pools

Partition = Literal["mgo", "pcb"]
Pooling = Literal["both", "max", "avg", "gem"]
_GEM_EXPONENT = 3.0
_GEM_SMALLEST = 1e-4


class PartFeatures(NamedTuple):
    """What the heads give, one row a part; P parts, N images."""

    triplet: Tensor
    """(P, N, part_dim): before the last batch normalisation, for the triplet loss."""
    embedding: Tensor
    """(P, N, part_dim): after it; the test feature."""
    logits: Tensor
    """(P, N, classes): for the ID loss."""


def part_windows(stripes: int, partition: Partition = "mgo") -> list[tuple[int, int]]:
    """The (first, end) stripes of every part, level by level.

    ``mgo``: one window of K stripes, two of K - 1, ..., K of one (equation 3). ``pcb``: K of one (Sun et al., PCB,
    ECCV 2018).
    """
    sizes = range(stripes, 0, -1) if partition == "mgo" else (1,)
    return [(first, first + size) for size in sizes for first in range(stripes - size + 1)]


def level_sizes(stripes: int, partition: Partition = "mgo") -> list[int]:
    """Parts of each level, in the order of :func:`part_windows`; a level has one triplet loss."""
    return list(range(1, stripes + 1)) if partition == "mgo" else [stripes]


class PartHeads(nn.Module):
    """All parts' multi-pool feature extractors (MPFE) at once (paper, section 3.4; figure 5).

    A part's head is: pools, concatenated; 1x1 convolution; BN; ReLU; FC (triplet feature); BN (test feature); FC (ID
    logits). Weights carry the part as their first axis.

    Args:
        channels: C of the fused map.
        stripes: K.
        partition: See :func:`part_windows`.
        pooling: ``both`` maximum and mean (the paper's), one of them, or ``gem``, the generalised mean with a learned
            exponent (Radenovic et al., TPAMI 2019).
        reduced_dim: Width after the 1x1 convolution.
        part_dim: Width of a part's feature.
        classes: Training identities.
    """

    def __init__(
        self,
        channels: int,
        stripes: int,
        partition: Partition,
        pooling: Pooling,
        reduced_dim: int,
        part_dim: int,
        classes: int,
    ) -> None:
        super().__init__()
        windows = part_windows(stripes, partition)
        parts = len(windows)
        pooled = 2 * channels if pooling == "both" else channels
        self.stripes = stripes
        self.partition = partition
        self.pooling = pooling
        self.reduce = nn.Parameter(torch.empty(parts, pooled, reduced_dim))
        self.reduce_bn = nn.BatchNorm1d(parts * reduced_dim)
        self.project = nn.Parameter(torch.empty(parts, reduced_dim, part_dim))
        self.project_bn = nn.BatchNorm1d(parts * part_dim)
        self.classify = nn.Parameter(torch.empty(parts, part_dim, classes))
        self.classify_bias = nn.Parameter(torch.zeros(parts, 1, classes))
        self.gem_exponent = nn.Parameter(torch.tensor(_GEM_EXPONENT)) if pooling == "gem" else None
        membership = torch.zeros(stripes, parts)
        for part, (first, end) in enumerate(windows):
            membership[first:end, part] = 1
        self.membership: Tensor
        """(K, parts): 1 where the part covers the stripe; exact in every dtype."""
        self.register_buffer("membership", membership, persistent=False)
        nn.init.normal_(self.reduce, std=(2.0 / reduced_dim) ** 0.5)
        nn.init.normal_(self.project, std=(2.0 / part_dim) ** 0.5)
        nn.init.normal_(self.classify, std=0.001)

    def pool(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (P, N, pooled): each part's maximum, mean, both in this order, or generalised mean."""
        if self.gem_exponent is not None:
            powers = features.clamp_min(_GEM_SMALLEST) ** self.gem_exponent
            return self._means(group_rows(row_pools(powers), self.stripes).mean) ** (1 / self.gem_exponent)
        return self.pool_rows(row_pools(features))

    def pool_rows(self, rows: RowPools, gate: Tensor | None = None) -> Tensor:
        """What :meth:`pool` gives, but for the generalised mean, from the pools of a map's rows.

        Args:
            rows: The pools.
            gate: (N, C) weights, above 0, of the map's channels: they change places with the pools.
        """
        maximum, mean = group_rows(rows, self.stripes)
        if gate is not None:
            maximum, mean = maximum * gate[:, None], mean * gate[:, None]
        if self.pooling == "max":
            return self._maxima(maximum)
        if self.pooling == "avg":
            return self._means(mean)
        return torch.cat([self._maxima(maximum), self._means(mean)], dim=2)

    def _maxima(self, stripes: Tensor) -> Tensor:
        # A window of s + 1 stripes is two windows of s: levels come from the finest up, and are stored coarsest first.
        levels = [stripes.transpose(0, 1)]
        if self.partition == "mgo":
            for _ in range(self.stripes - 1):
                levels.insert(0, torch.maximum(levels[0][:-1], levels[0][1:]))
        return torch.cat(levels)

    def _means(self, stripes: Tensor) -> Tensor:
        average = (self.membership / self.membership.sum(0)).t()
        means: Tensor = average @ stripes
        return means.transpose(0, 1)

    def forward(self, pools: Tensor) -> PartFeatures:
        """(P, N, pooled), see :meth:`pool`, to the parts' features."""
        reduced = F.relu(_normalise(self.reduce_bn, torch.bmm(pools, self.reduce)))
        triplet = torch.bmm(reduced, self.project)
        embedding = _normalise(self.project_bn, triplet)
        logits = torch.baddbmm(self.classify_bias, embedding, self.classify)
        return PartFeatures(triplet, embedding, logits)


def _normalise(bn: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch normalisation of (P, N, C), each part and channel by its own statistics over N."""
    parts, count, channels = x.shape
    flat: Tensor = bn(x.transpose(0, 1).reshape(count, parts * channels))
    return flat.reshape(count, parts, channels).transpose(0, 1)
