"""Augmentation of whole batches on the device: random crop, flip, erasing; and normalisation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from hamr_edge.trainer.config import TrainConfig

_ERASE_AREA = (0.02, 0.4)
_ERASE_ASPECT = (0.3, 1 / 0.3)
_ERASE_TRIES = 10


def step_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """Random numbers for one step, a function of its arguments alone; on the CPU: every device draws the same."""
    state = np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def normalise(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 BGR to (N, 3, H, W) float32 RGB, channels last in memory, by ImageNet's mean and deviation."""
    mean = torch.tensor(IMAGENET_MEAN_RGB[::-1], device=images.device) * 255
    std = torch.tensor(IMAGENET_STD_RGB[::-1], device=images.device) * 255
    return ((images.float() - mean) / std).flip(3).permute(0, 3, 1, 2)


def augment(images: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Crop, flip, normalise and erase a batch, each image by its own draw.

    Args:
        images: (N, H, W, 3) uint8 BGR, on the training device.
        config: Probabilities and padding.
        generator: See :func:`step_generator`.

    Returns:
        (N, 3, H, W) float32, normalised RGB; padding and erased areas are 0, ImageNet's mean.
    """
    count, height, width, _ = images.shape
    pad = config.crop_padding
    offsets = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator) - pad
    flipped = torch.rand(count, generator=generator) < config.flip
    rows = offsets[:, :1] + torch.arange(height)
    columns = offsets[:, 1:] + torch.arange(width)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    keep = inside & ~_erased(count, height, width, config.erase, generator)
    rows, columns, keep = (
        tensor.to(images.device) for tensor in (rows.clamp(0, height - 1), columns.clamp(0, width - 1), keep)
    )
    image = torch.arange(count, device=images.device)[:, None, None]
    moved = images[image, rows[:, :, None], columns[:, None, :]]
    return normalise(moved) * keep[:, None]


def _erased(count: int, height: int, width: int, probability: float, generator: torch.Generator) -> Tensor:
    """(N, H, W) bool: random erasing's rectangles (Zhong et al., AAAI 2020), the first of a few draws that fits."""
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
    row, column = torch.arange(height), torch.arange(width)
    in_rows = (row >= top) & (row < top + box_height)
    in_columns = (column >= left) & (column < left + box_width)
    return in_rows[:, :, None] & in_columns[:, None, :] & chosen[:, None, None]


def _uniform(shape: tuple[int, ...], bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)
