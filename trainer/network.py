"""HAMR: the hybrid-attention multi-resolution network (paper, section 3; figure 2).

Stages 1 to 4 of a ResNet are aligned by max-pooling, weighed by spatial attention, concatenated and weighed by
channel attention. The fused map is cut into K stripes; every run of adjacent stripes is a part, K (K + 1) / 2 in all.
Each part has its own head. The heads are batched matrix products, and every part's pools follow from the K stripes'
pools, so the forward pass never walks over parts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamr_edge.errors import InputError
from hamr_edge.trainer.attention import ChannelAttention, SpatialAttention
from hamr_edge.trainer.resnet import BLOCKS, STAGE_STRIDES, ResNet, stage_channels


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What fixes the network's shape. The defaults are the paper's."""

    backbone: str = "resnet50"
    input_size_hw: tuple[int, int] = (384, 128)
    stripes: int = 6
    """K: the finest cut of the fused map; it gives K (K + 1) / 2 parts."""
    reduced_dim: int = 256
    """Width of a head between its 1x1 convolution and its FC."""
    part_dim: int = 512
    """Width of a part's feature; the embedding has ``parts * part_dim`` values."""
    stride_in_1x1: bool = False
    """True for weights trained with the stride in the first 1x1 of a bottleneck (Caffe, MSRA)."""

    def __post_init__(self) -> None:
        if self.backbone not in BLOCKS:
            raise InputError(f"backbone must be one of {', '.join(BLOCKS)}, got {self.backbone!r}")
        for name, most in (("stripes", 24), ("reduced_dim", 8192), ("part_dim", 8192)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} must be in 1..{most}, got {getattr(self, name)}")
        height, width = self.input_size_hw
        stride = STAGE_STRIDES[-1]
        if height < stride or width < stride or height % (stride * self.stripes) or width % stride:
            raise InputError(
                f"input size must be a multiple of {stride * self.stripes} x {stride} (height: {self.stripes} stripes "
                f"of the last map, which is 1/{stride} of the image; width: 1/{stride}), got {height} x {width}"
            )

    @property
    def parts(self) -> int:
        """Number of runs of adjacent stripes."""
        return self.stripes * (self.stripes + 1) // 2

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding of an image."""
        return self.parts * self.part_dim

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold and :meth:`from_json` reads."""
        return {**asdict(self), "input_size_hw": list(self.input_size_hw)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NetworkConfig:
        """The inverse of :meth:`to_json`."""
        height, width = values["input_size_hw"]
        return cls(**{**values, "input_size_hw": (int(height), int(width))})


class PartFeatures(NamedTuple):
    """What the heads give, one row a part; P parts, N images."""

    triplet: Tensor
    """(P, N, part_dim): before the last batch normalisation, for the triplet loss."""
    embedding: Tensor
    """(P, N, part_dim): after it; the test feature."""
    logits: Tensor
    """(P, N, classes): for the ID loss."""


def part_windows(stripes: int) -> list[tuple[int, int]]:
    """The (first, end) stripes of every part, level by level: one window of K, two of K - 1, ... (equation 3)."""
    return [(first, first + size) for size in range(stripes, 0, -1) for first in range(stripes - size + 1)]


def part_levels(stripes: int) -> list[int]:
    """The level of every part (0: whole body, K - 1: single stripes), in the order of :func:`part_windows`."""
    return [stripes - (end - first) for first, end in part_windows(stripes)]


class PartHeads(nn.Module):
    """All parts' multi-pool feature extractors (MPFE) at once (paper, section 3.4; figure 5).

    A part's head is: max-pool and mean-pool, concatenated; 1x1 convolution; BN; ReLU; FC (triplet feature); BN (test
    feature); FC (ID logits). Weights carry the part as their first axis.
    """

    def __init__(self, channels: int, config: NetworkConfig, classes: int) -> None:
        super().__init__()
        parts, reduced, width = config.parts, config.reduced_dim, config.part_dim
        self.stripes = config.stripes
        self.reduce = nn.Parameter(torch.empty(parts, 2 * channels, reduced))
        self.reduce_bn = nn.BatchNorm1d(parts * reduced)
        self.project = nn.Parameter(torch.empty(parts, reduced, width))
        self.project_bn = nn.BatchNorm1d(parts * width)
        self.classify = nn.Parameter(torch.empty(parts, width, classes))
        self.classify_bias = nn.Parameter(torch.zeros(parts, 1, classes))
        windows = part_windows(config.stripes)
        membership = torch.zeros(config.stripes, parts)
        for part, (first, end) in enumerate(windows):
            membership[first:end, part] = 1
        self.membership: Tensor
        """(K, parts): 1 where the part covers the stripe; exact in every dtype."""
        self.register_buffer("membership", membership, persistent=False)
        nn.init.normal_(self.reduce, std=(2.0 / reduced) ** 0.5)
        nn.init.normal_(self.project, std=(2.0 / width) ** 0.5)
        nn.init.normal_(self.classify, std=0.001)

    def pool(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (P, N, 2 C): each part's maximum, then its mean, per channel."""
        height, width = features.shape[2:]
        window = (height // self.stripes, width)
        # A window of s + 1 stripes is two windows of s: levels come from the finest up, and are stored coarsest first.
        levels = [F.max_pool2d(features, window).squeeze(3).permute(2, 0, 1)]
        for _ in range(self.stripes - 1):
            levels.insert(0, torch.maximum(levels[0][:-1], levels[0][1:]))
        average = self.membership / self.membership.sum(0)
        means = F.avg_pool2d(features, window).squeeze(3) @ average
        return torch.cat([torch.cat(levels), means.permute(2, 0, 1)], dim=2)

    def forward(self, features: Tensor) -> PartFeatures:
        """(N, C, H, W) fused map to the parts' features."""
        reduced = F.relu(_normalise(self.reduce_bn, torch.bmm(self.pool(features), self.reduce)))
        triplet = torch.bmm(reduced, self.project)
        embedding = _normalise(self.project_bn, triplet)
        logits = torch.baddbmm(self.classify_bias, embedding, self.classify)
        return PartFeatures(triplet, embedding, logits)


def _normalise(bn: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch normalisation of (P, N, C), each part and channel by its own statistics over N."""
    parts, count, channels = x.shape
    flat: Tensor = bn(x.transpose(0, 1).reshape(count, parts * channels))
    return flat.reshape(count, parts, channels).transpose(0, 1)


class Hamr(nn.Module):
    """The whole network, in the paper's best order: spatial attention, concatenation, channel attention (table 9).

    Args:
        config: Shape of the network.
        classes: Training identities, the width of the ID logits.
    """

    def __init__(self, config: NetworkConfig, classes: int) -> None:
        super().__init__()
        if classes < 1:
            raise InputError(f"the network needs at least 1 identity to classify, got {classes}")
        self.config = config
        self.classes = classes
        channels = stage_channels(config.backbone)
        self.backbone = ResNet(config.backbone, config.stride_in_1x1)
        self.spatial = nn.ModuleList(SpatialAttention() for _ in channels)
        self.channel = ChannelAttention(sum(channels))
        self.heads = PartHeads(sum(channels), config, classes)

    def fuse(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB to the attended fused map (N, sum of stages' channels, H / 16, W / 16)."""
        attended = []
        for features, attention, stride in zip(self.backbone(images), self.spatial, STAGE_STRIDES, strict=True):
            factor = STAGE_STRIDES[-1] // stride
            attended.append(attention(F.max_pool2d(features, factor) if factor > 1 else features))
        fused: Tensor = self.channel(torch.cat(attended, dim=1))
        return fused

    def forward(self, images: Tensor) -> PartFeatures:
        """(N, 3, H, W) float RGB images, ImageNet-normalised, to the parts' features."""
        features: PartFeatures = self.heads(self.fuse(images))
        return features

    def embed(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB to (N, embedding_dim) test features of unit L2 norm, part after part."""
        embedding = self.forward(images).embedding
        return F.normalize(embedding.transpose(0, 1).flatten(1), dim=1)
