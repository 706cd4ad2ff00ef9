"""Batches of augmented images on the training device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hamr_edge.trainer.augment import augment, draw_drop_block, step_generator
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.datasets import TrainingImages
from hamr_edge.trainer.distributed import own_rows

_SHARE_OF_GPU = 0.25
"""Of a GPU's free memory, what the training images may take."""


class Batch(NamedTuple):
    """This process's share of a batch, N images."""

    images: Tensor
    """(N, 3, H, W) float32, augmented and normalised."""
    labels: Tensor
    """(N,) int64."""
    keep: Tensor | None
    """What batch drop-block leaves of the fused map; None: all."""


class BatchMaker:
    """Makes batches, each a function of its rows, the seed, the epoch and the step.

    On a GPU all images lie there as uint8, where they fit; else a step's images come from page-locked memory, so that
    neither way waits for the step before.

    Args:
        data: All training images.
        config: Augmentation and batch size.
        device: Where batches are wanted.
    """

    def __init__(self, data: TrainingImages, config: TrainConfig, device: torch.device) -> None:
        self._images = torch.from_numpy(data.images)
        self._labels = torch.from_numpy(data.labels)
        self._config = config
        self._device = device
        self._own = own_rows(config.batch_size)
        if device.type == "cuda" and data.images.nbytes <= _SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]:
            self._images, self._labels = self._images.to(device), self._labels.to(device)

    def make(self, rows: NDArray[np.int64], epoch: int, step: int) -> Batch:
        """Gather and augment this process's share of a batch whose images are ``rows`` of the training images."""
        generator = step_generator(self._config.seed, epoch, step)
        chosen = torch.from_numpy(rows[self._own])
        images = augment(self._gather(self._images, chosen), self._config, generator, self._own)
        keep = draw_drop_block(self._config, generator)
        if keep is not None:
            keep = keep.to(self._device, non_blocking=True)
        return Batch(images, self._gather(self._labels, chosen), keep)

    def _gather(self, values: Tensor, rows: Tensor) -> Tensor:
        if self._device.type == "cpu":
            return values[rows]
        if values.is_cuda:
            return values[rows.to(self._device, non_blocking=True)]
        return values[rows].pin_memory().to(self._device, non_blocking=True)
