"""Embeddings of the trained network before they are made unit rows: what a projection is learned on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hamr_edge.dataset import read_crop
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, stack_crops
from hamr_edge.progress import progress_bar
from hamr_edge.trainer.network import Hamr

_BATCH = 32


def embed_raw_files(
    network: Hamr, paths: Sequence[Path], quiet: bool = True, description: str = "embedding"
) -> NDArray[np.float32]:
    """Embed image files, each a whole crop, and leave the rows at their own length: (N, D) float32.

    Raises:
        InputError: A file is missing or cannot be decoded; the message names it.
    """
    embeddings = np.empty((len(paths), network.config.embedding_dim), np.float32)
    with progress_bar(quiet) as progress:
        task = progress.add_task(description, total=len(paths), note="")
        for start in range(0, len(paths), _BATCH):
            chunk = paths[start : start + _BATCH]
            crops = stack_crops([read_crop(path) for path in chunk], network.config.input_size_hw)
            embeddings[start : start + len(chunk)] = embed_raw(network, crops)
            progress.advance(task, len(chunk))
    return embeddings


@torch.inference_mode()
def embed_raw(network: Hamr, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Un-normalised embeddings of the trained network itself, nothing folded.

    Args:
        network: The trained network; it is put into evaluation mode and the channels-last layout.
        crops: (N, H, W, 3) uint8 BGR of the network's size.

    Returns:
        (N, D) float32.
    """
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = network.heads.project.device
    mean, std = (torch.tensor(values, device=device) * 255 for values in (IMAGENET_MEAN_RGB, IMAGENET_STD_RGB))
    batches = []
    for start in range(0, len(crops), _BATCH):
        images = torch.tensor(crops[start : start + _BATCH], device=device).flip(3).float()
        parts = network(((images - mean) / std).permute(0, 3, 1, 2)).embedding
        batches.append(parts.transpose(0, 1).flatten(1).float().cpu().numpy())
    return np.concatenate([np.empty((0, network.config.embedding_dim), np.float32), *batches])
