"""Spatial and channel attention (paper, section 3.2; Woo et al., CBAM, ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Weighs each position: ``F * sigmoid(conv([mean over C, max over C]))`` (paper, equation 1)."""

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        context = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return features * torch.sigmoid(self.conv(context))


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
        context = features.mean((2, 3)) + features.amax((2, 3))
        return features * torch.sigmoid(self.mlp(context))[:, :, None, None]
