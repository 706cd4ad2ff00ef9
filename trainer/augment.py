"""Augmentation of whole batches on the device: crop, flip, colours, erasing; normalisation; batch drop-block."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from hamr_edge.trainer.config import TrainConfig

_ERASE_AREA = (0.02, 0.4)
_ERASE_ASPECT = (0.3, 1 / 0.3)
_ERASE_TRIES = 10
_DROPPED_ROWS = 1 / 3
"""Share of the fused map's rows that batch drop-block takes, over the full width (Dai et al., ICCV 2019)."""
_LUMA_BGR = (0.114, 0.587, 0.299)


def step_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Random numbers for one step, a function of its arguments alone; on the CPU: every device draws the same."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def normalise(images: Tensor) -> Tensor:
    """(N, H, W, 3) BGR in 0..255 to (N, 3, H, W) float32 RGB, channels last, by ImageNet's mean and deviation."""
    mean = _constant(IMAGENET_MEAN_RGB[::-1], images.device) * 255
    std = _constant(IMAGENET_STD_RGB[::-1], images.device) * 255
    return ((images.float() - mean) / std).flip(3).permute(0, 3, 1, 2)


def augment(images: Tensor, config: TrainConfig, generator: torch.Generator, rows: slice | None = None) -> Tensor:
    """Crop, flip, change the colours of, normalise and erase a batch, each image by its own draw.

    Args:
        images: (N, H, W, 3) uint8 BGR, on the training device.
        config: Probabilities and padding.
        generator: See :func:`step_generator`.
        rows: With several processes: the places of ``images`` in the whole batch, for which the numbers are drawn.

    Returns:
        (N, 3, H, W) float32, normalised RGB; padding and erased areas are 0, ImageNet's mean.
    """
    device, (height, width) = images.device, images.shape[1:3]
    count, chosen = (len(images), slice(None)) if rows is None else (config.batch_size, rows)
    pad = config.crop_padding
    offsets = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator) - pad
    flipped = torch.rand(count, generator=generator) < config.flip
    erased = _draw_erased(count, height, width, config.erase, generator)
    gains = _uniform((count, 3), (1 - config.color_jitter, 1 + config.color_jitter), generator)
    offsets, flipped, erased, gains = (
        draw[chosen].to(device, non_blocking=True) for draw in (offsets, flipped, erased, gains)
    )
    row = offsets[:, :1] + torch.arange(height, device=device)
    column = offsets[:, 1:] + torch.arange(width, device=device)
    column = torch.where(flipped[:, None], column.flip(1), column)
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    image = torch.arange(len(images), device=device)[:, None, None]
    moved = images[image, row.clamp(0, height - 1)[:, :, None], column.clamp(0, width - 1)[:, None, :]]
    if config.color_jitter:
        moved = _jitter(moved, gains)
    return normalise(moved) * (inside & ~_mask(erased, height, width))[:, None]


def draw_drop_block(config: TrainConfig, generator: torch.Generator) -> Tensor | None:
    """Draw batch drop-block for a step: one block of the fused map, the same in all its images (Dai et al., ICCV 2019).

    Args:
        config: Probability and shape of the map.
        generator: See :func:`step_generator`; equal on all processes.

    Returns:
        (H / 16, 1) float32, on the CPU, 0 in the block's rows and 1 elsewhere; None where the probability is 0.
    """
    if not config.drop_block:
        return None
    height = config.network.input_size_hw[0] // config.network.map_stride
    dropped = round(height * _DROPPED_ROWS)
    chosen = torch.rand(1, generator=generator) < config.drop_block
    top = torch.randint(0, height - dropped + 1, (1,), generator=generator)
    row = torch.arange(height)
    return 1 - (chosen & (row >= top) & (row < top + dropped)).float()[:, None]


def _jitter(images: Tensor, gains: Tensor) -> Tensor:
    """Scale each image's brightness, contrast and saturation.

    Args:
        images: (N, H, W, 3) uint8 BGR.
        gains: (N, 3) float32, around 1.

    Returns:
        (N, H, W, 3) float32 in 0..255.
    """
    brightness, contrast, saturation = gains.T[:, :, None, None, None]
    luma = _constant(_LUMA_BGR, images.device)
    bright = (images * brightness).clamp(0, 255)
    mean = (bright @ luma).mean((1, 2))[:, None, None, None]
    contrasted = (mean + (bright - mean) * contrast).clamp(0, 255)
    grey = (contrasted @ luma)[..., None]
    saturated: Tensor = grey + (contrasted - grey) * saturation
    return saturated.clamp(0, 255)


def _draw_erased(count: int, height: int, width: int, probability: float, generator: torch.Generator) -> Tensor:
    """(N, 4) int64 first and end row, first and end column of random erasing's rectangles; all 0 where there is none.

    Zhong et al., AAAI 2020: the first of a few draws that fits.
    """
    shape = (count, _ERASE_TRIES)
    area = _uniform(shape, _ERASE_AREA, generator) * height * width
    aspect = _uniform(shape, _ERASE_ASPECT, generator)
    box_height = (area * aspect).sqrt().round().long()
    box_width = (area / aspect).sqrt().round().long()
    fits = (box_height < height) & (box_width < width)
    first = fits.long().argmax(1, keepdim=True)
    chosen = (torch.rand(count, generator=generator) < probability) & fits.any(1)
    box_height, box_width = box_height.gather(1, first), box_width.gather(1, first)
    top = (torch.rand(count, 1, generator=generator) * (height - box_height + 1)).long()
    left = (torch.rand(count, 1, generator=generator) * (width - box_width + 1)).long()
    return torch.cat([top, top + box_height, left, left + box_width], dim=1) * chosen[:, None]


def _mask(rectangles: Tensor, height: int, width: int) -> Tensor:
    """(N, 4) rectangles to (N, H, W) bool, True inside."""
    top, bottom, left, right = rectangles[:, :, None].unbind(1)
    row, column = (torch.arange(size, device=rectangles.device) for size in (height, width))
    return ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]


def _uniform(shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A constant on a device, put there once: copying it at every step would make a GPU's queue run dry."""
    return torch.tensor(values, device=device)
