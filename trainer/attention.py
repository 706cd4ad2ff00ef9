"""Spatial and channel attention (paper, section 3.2; Woo et al., CBAM, ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hamr_edge.errors import InputError
from hamr_edge.trainer.pooling import RowPools, channel_pools, group_rows, row_pools

CONCATENATION = "cat"


def attention_steps(order: str) -> tuple[list[str], list[str]]:
    """Which attention comes before the concatenation of the stages' maps, and which after.

    Args:
        order: Like ``s+cat+c``: ``s`` spatial, ``c`` channel attention, each at most once, and ``cat`` once.

    Returns:
        The steps before and after, each ``s`` or ``c``.

    Raises:
        InputError: Not such an order.
    """
    steps = order.split("+")
    if sorted(set(steps)) != sorted(steps) or CONCATENATION not in steps or not set(steps) <= {"s", "c", CONCATENATION}:
        raise InputError(
            f"attention must be s (spatial), c (channel) and cat (concatenation) in some order, joined by +, like "
            f"s+cat+c; s and c may be left out; got {order!r}"
        )
    place = steps.index(CONCATENATION)
    return steps[:place], steps[place + 1 :]


class SpatialAttention(nn.Module):
    """Weighs each position: ``F * sigmoid(conv([mean over C, max over C]))`` (paper, equation 1)."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return features * torch.sigmoid(self.conv(channel_pools(features)))


class ChannelAttention(nn.Module):
    """Weighs each channel: ``F * sigmoid(MLP(avgpool(F) + maxpool(F)))`` (paper, equation 2).

    The paper applies the MLP to the sum of the pools; CBAM sums two applications of it.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return features * self.gate(row_pools(features))[:, :, None, None]

    def gate(self, rows: RowPools) -> Tensor:
        """The pools of a map's rows to the weight of each channel, (N, C), above 0."""
        maximum, mean = group_rows(rows, 1)
        return torch.sigmoid(self.mlp((mean + maximum).squeeze(1)))
