"""Pools of feature maps whose gradients are written once, in the map's own memory layout.

On a channels_last map autograd gives the gradients of a mean over channels and of a pool that is one pixel wide in
another layout, and copies and adds them one by one: several times the work of the pools themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class RowPools(NamedTuple):
    """The pools of every row of a map, or of every group of rows; N images, H of them, C channels."""

    maximum: Tensor
    """(N, H, C)."""
    mean: Tensor
    """(N, H, C)."""


def row_pools(features: Tensor) -> RowPools:
    """(N, C, H, W) to the maximum and the mean of every row."""
    if torch.is_grad_enabled() and features.requires_grad:
        return RowPools(*_RowPools.apply(features))  # type: ignore[no-untyped-call]
    window = (1, features.shape[3])
    return RowPools(_rows(F.max_pool2d(features, window)), _rows(F.avg_pool2d(features, window)))


def group_rows(rows: RowPools, groups: int) -> RowPools:
    """The pools of ``groups`` groups of adjacent rows, all of one size."""
    count, height, channels = rows.mean.shape
    mean = rows.mean.reshape(count, groups, -1, channels).mean(2)
    if torch.is_grad_enabled() and rows.maximum.requires_grad:
        # By place, not by amax: its gradient looks for what equals the maximum, and divides by the count of it, which
        # is 0 where a compiler computes one of the two again at another precision.
        maximum = F.max_pool1d(rows.maximum.transpose(1, 2), height // groups).transpose(1, 2)
    else:
        maximum = rows.maximum.reshape(count, groups, -1, channels).amax(2)
    return RowPools(maximum, mean)


def channel_pools(features: Tensor) -> Tensor:
    """(N, C, H, W) to (N, 2, H, W): the mean and the maximum over channels of every position."""
    if torch.is_grad_enabled() and features.requires_grad:
        pools: Tensor = _ChannelPools.apply(features)  # type: ignore[no-untyped-call]
        return pools
    return torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)


def _rows(pools: Tensor) -> Tensor:
    """(N, C, H, 1) to (N, H, C)."""
    return pools.squeeze(3).transpose(1, 2)


class _RowPools(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        window = (1, features.shape[3])
        maximum, place = F.max_pool2d(features, window, return_indices=True)
        ctx.save_for_backward(place)
        ctx.width = features.shape[3]
        return _rows(maximum), _rows(F.avg_pool2d(features, window))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_maximum: Tensor, of_mean: Tensor) -> Tensor:
        (place,) = ctx.saved_tensors
        count, height, channels = of_mean.shape
        width: int = ctx.width
        spread = (of_mean / width)[:, :, None].expand(count, height, width, channels)
        gradient = spread.contiguous().view(count, height * width, channels)
        gradient.scatter_add_(1, _rows(place), of_maximum)
        return gradient.view(count, height, width, channels).permute(0, 3, 1, 2)


class _ChannelPools(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        maximum, place = features.max(1, keepdim=True)
        ctx.save_for_backward(place)
        ctx.channels = features.shape[1]
        return torch.cat([features.mean(1, keepdim=True), maximum], dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_pools: Tensor) -> Tensor:
        (place,) = ctx.saved_tensors
        channels: int = ctx.channels
        last = of_pools.permute(0, 2, 3, 1)
        gradient = (last[..., :1] / channels).expand(*last.shape[:3], channels).contiguous()
        gradient.scatter_add_(3, place.permute(0, 2, 3, 1), last[..., 1:])
        return gradient.permute(0, 3, 1, 2)
