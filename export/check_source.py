"""What an artifact is held against before it is published: crops, frames of them, and the source's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import ReidDataset, read_crop
from hamr_edge.export.check_frames import SourceFrames, frame_source
from hamr_edge.export.publish import SourceEmbeddings
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import Sidecar
from hamr_edge.trainer.synthetic import random_crops

_CROPS = 32


@dataclass(frozen=True, slots=True)
class CheckSource:
    """What every artifact of an export is held against."""

    crops: SourceEmbeddings
    frames: SourceFrames

    def of_form(self, form: str) -> SourceEmbeddings | SourceFrames:
        """The part that an artifact in this form reproduces."""
        return self.frames if form == "frame" else self.crops


def make_source(
    dataset: ReidDataset | None,
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    sidecar: Sidecar,
    forms: Sequence[str],
    seed: int = 0,
    of: str = "PyTorch",
) -> CheckSource:
    """Choose crops and embed them by the source.

    Args:
        dataset: Crops of its gallery, or else of its training split; drawn figures without one.
        embed: The source: (N, H, W, 3) uint8 at the sidecar's input size to (N, D) rows of unit norm.
        sidecar: Input size, width and largest batch.
        forms: What the artifacts will be in: crops are embedded for ``crops`` only, frames made for ``frame`` only.
        seed: Chooses the crops.
        of: What to call the source in a message.
    """
    crops, names = choose_check_crops(dataset, sidecar.max_batch, seed)
    stacked = stack_crops(crops, sidecar.input_size_hw)
    none = np.empty((0, sidecar.embedding_dim), np.float32)
    frames, embeddings = SourceFrames((), (), (), none), none
    if "crops" in forms:
        embeddings = embed(stacked)
    if "frame" in forms:
        frames = replace(frame_source(crops, names, embed, sidecar.input_size_hw, seed), of=of)
    return CheckSource(SourceEmbeddings(stacked, names, embeddings, of), frames)


def choose_check_crops(
    dataset: ReidDataset | None, max_batch: int, seed: int = 0
) -> tuple[Sequence[NDArray[np.uint8]], tuple[str, ...]]:
    """Crops of their own sizes and their names, at least a largest batch: of a data set, or drawn figures.

    Args:
        dataset: See :func:`make_source`.
        max_batch: The largest batch of what is checked.
        seed: Chooses them.
    """
    count = max(_CROPS, max_batch)
    if dataset is None:
        return random_crops(count, seed), tuple(f"procedural crop {i}" for i in range(count))
    crops = dataset.gallery if len(dataset.gallery) else dataset.train
    chosen = np.random.default_rng(seed).permutation(len(crops))[:count]
    paths = crops.select(np.sort(chosen)).paths
    return [read_crop(path) for path in paths], tuple(path.name for path in paths)
