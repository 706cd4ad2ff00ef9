"""HAMR: the hybrid-attention multi-resolution network (paper, section 3; figure 2).

Stages 1 to 4 of a ResNet are aligned by max-pooling, weighed by spatial attention, concatenated and weighed by
channel attention. The fused map is cut into K stripes; every run of adjacent stripes is a part, K (K + 1) / 2 in all.
Each of these choices is a setting, so that the paper's ablations (tables 6 to 10) are settings too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hamr_edge.errors import InputError
from hamr_edge.trainer.attention import ChannelAttention, SpatialAttention, attention_steps
from hamr_edge.trainer.heads import PartFeatures, PartHeads, Partition, Pooling, part_windows
from hamr_edge.trainer.pooling import RowPools, row_pools
from hamr_edge.trainer.resnet import BLOCKS, ResNet, stage_channels, stage_strides

_COARSEST_WITHOUT_STAGE_4 = 16


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What fixes the network's shape. The defaults are the paper's."""

    backbone: str = "resnet50"
    input_size_hw: tuple[int, int] = (384, 128)
    stripes: int = 6
    """K: the finest cut of the fused map; ``mgo`` gives K (K + 1) / 2 parts; 1 is the whole body alone."""
    reduced_dim: int = 256
    """Width of a head between its 1x1 convolution and its FC."""
    part_dim: int = 512
    """Width of a part's feature; the embedding has ``parts * part_dim`` values."""
    stride_in_1x1: bool = False
    """True for weights trained with the stride in the first 1x1 of a bottleneck (Caffe, MSRA)."""
    last_stride: int = 1
    """Stride of stage 4: 1, or ImageNet's 2."""
    stages: tuple[int, ...] = (1, 2, 3, 4)
    """Stages whose maps are fused, ascending (table 10)."""
    attention: str = "s+cat+c"
    """Spatial attention (s), channel attention (c) and the concatenation (cat) in their order (table 9)."""
    partition: Partition = "mgo"
    """``mgo``: runs of adjacent stripes at every size; ``pcb``: single stripes (table 7)."""
    pooling: Pooling = "both"
    """A part's pools: ``both`` maximum and mean (MPFE), ``max``, ``avg``, or ``gem``."""

    def __post_init__(self) -> None:
        choices = (("backbone", tuple(BLOCKS)), ("partition", get_args(Partition)), ("pooling", get_args(Pooling)))
        for name, values in (*choices, ("last_stride", (1, 2))):
            if getattr(self, name) not in values:
                raise InputError(f"{name} must be one of {', '.join(map(str, values))}, got {getattr(self, name)!r}")
        for name, most in (("stripes", 24), ("reduced_dim", 8192), ("part_dim", 8192)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} must be in 1..{most}, got {getattr(self, name)}")
        if not self.stages or not set(self.stages) <= {1, 2, 3, 4} or list(self.stages) != sorted(set(self.stages)):
            raise InputError(f"stages must be some of 1, 2, 3, 4, ascending, got {self.stages}")
        attention_steps(self.attention)
        height, width = self.input_size_hw
        stride = self.map_stride
        if height < stride or width < stride or height % (stride * self.stripes) or width % stride:
            raise InputError(
                f"input size must be a multiple of {stride * self.stripes} x {stride} (height: {self.stripes} stripes "
                f"of the fused map, which is 1/{stride} of the image; width: 1/{stride}), got {height} x {width}"
            )

    @property
    def map_stride(self) -> int:
        """Pixels of the input that a step in the fused map covers; the paper's is 16, whatever the stages."""
        coarsest = stage_strides(self.last_stride)[self.stages[-1] - 1]
        return max(_COARSEST_WITHOUT_STAGE_4, coarsest)

    @property
    def parts(self) -> int:
        """Number of parts of the body."""
        return len(part_windows(self.stripes, self.partition))

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding of an image."""
        return self.parts * self.part_dim

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold and :meth:`from_json` reads."""
        return {**asdict(self), "input_size_hw": list(self.input_size_hw), "stages": list(self.stages)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NetworkConfig:
        """The inverse of :meth:`to_json`; a setting that an older checkpoint lacks is the paper's."""
        height, width = values["input_size_hw"]
        stages = tuple(values.get("stages", (1, 2, 3, 4)))
        return cls(**{**values, "input_size_hw": (int(height), int(width)), "stages": stages})


class Hamr(nn.Module):
    """The whole network.

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
        channels = [stage_channels(config.backbone)[stage - 1] for stage in config.stages]
        self.backbone = ResNet(config.backbone, config.stride_in_1x1, config.last_stride, depth=config.stages[-1])
        self._before, self._after = attention_steps(config.attention)
        spatial_count = len(channels) if "s" in self._before else self._after.count("s")
        self.spatial = nn.ModuleList(SpatialAttention() for _ in range(spatial_count))
        self.stage_channel = nn.ModuleList(ChannelAttention(count) for count in channels if "c" in self._before)
        self.channel = ChannelAttention(sum(channels)) if "c" in self._after else None
        self._gated = self._after[-1:] == ["c"]
        self.heads = PartHeads(
            sum(channels),
            config.stripes,
            config.partition,
            config.pooling,
            config.reduced_dim,
            config.part_dim,
            classes,
        )

    def fuse(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB to the attended fused map (N, sum of stages' channels, H / 16, W / 16)."""
        fused = torch.cat(self._attended_maps(images), dim=1)
        return self.channel(fused) if self.channel is not None and self._gated else fused

    def _attended_maps(self, images: Tensor) -> list[Tensor]:
        """The fused map in pieces, in their order, as they are before a channel attention that comes last."""
        all_maps = self.backbone(images)
        strides = stage_strides(self.config.last_stride)
        maps = []
        for stage in self.config.stages:
            factor = self.config.map_stride // strides[stage - 1]
            maps.append(F.max_pool2d(all_maps[stage - 1], factor) if factor > 1 else all_maps[stage - 1])
        for step in self._before:
            modules = self.spatial if step == "s" else self.stage_channel
            maps = [attention(features) for attention, features in zip(modules, maps, strict=True)]
        for step in self._after[:-1] if self._gated else self._after:
            attention = self.spatial[0] if step == "s" or self.channel is None else self.channel
            maps = [attention(torch.cat(maps, dim=1))]
        return maps

    def forward(self, images: Tensor, keep: Tensor | None = None) -> PartFeatures:
        """Map (N, 3, H, W) float RGB images, ImageNet-normalised, to the parts' features.

        Args:
            images: The batch.
            keep: What batch drop-block leaves of the fused map's rows: 0 and 1, (H / 16, 1).
        """
        features: PartFeatures = self.heads(self.pool(images, keep))
        return features

    def pool(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """What the heads take, (P, N, pooled), of the arguments of :meth:`forward`."""
        if self.config.pooling == "gem":  # the powers are the whole map's
            fused = self.fuse(images)
            return self.heads.pool(fused if keep is None else fused * keep)
        # Weights of at least 0 change places with pools, so that the fused map itself is never made.
        pieces = zip(*(row_pools(features) for features in self._attended_maps(images)), strict=True)
        rows = RowPools(*(torch.cat(pools, dim=2) for pools in pieces))
        gate = self.channel.gate(rows) if self.channel is not None and self._gated else None
        if keep is not None:
            rows = RowPools(*(pools * keep.to(pools.dtype) for pools in rows))
        return self.heads.pool_rows(rows, gate)

    def embed(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised RGB to (N, embedding_dim) test features of unit L2 norm, part after part."""
        embedding = self.forward(images).embedding
        return F.normalize(embedding.transpose(0, 1).flatten(1), dim=1)
