"""The crops that an artifact changes most, with their nearest neighbours before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.scored_crops import ScoredCrops

_CROPS, _NEIGHBOURS = 8, 5


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A crop near another."""

    crop: str
    """File within the data set's folder, with forward slashes."""
    cosine: float
    same_person: bool
    """False of two distractors, whose people are not known."""


@dataclass(frozen=True, slots=True)
class WorstCrop:
    """A crop, and the gallery crops nearest to it, nearest first; those of its person and camera are left out."""

    crop: str
    """File within the data set's folder, with forward slashes."""
    cosine: float
    """Of its embedding to the reference's."""
    before: tuple[Neighbour, ...]
    """By the reference."""
    after: tuple[Neighbour, ...]
    """By the artifact."""


def find_worst_crops(
    reference: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    cosines: NDArray[np.float64],
    crops: ScoredCrops,
    folder: Path,
) -> tuple[WorstCrop, ...]:
    """The crops of the least cosine, least first.

    Args:
        reference: (N, D) float32 of the reference, one row a crop, query first.
        embeddings: (N, D) float32 of the artifact, finite.
        cosines: (N,) of each crop's two embeddings.
        crops: The crops of the rows.
        folder: Of the data set.
    """
    worst = np.argsort(cosines, kind="stable")[:_CROPS]
    return tuple(
        WorstCrop(
            crop=_file(crops.paths[row], folder),
            cosine=float(cosines[row]),
            before=_nearest(reference, row, crops, folder),
            after=_nearest(embeddings, row, crops, folder),
        )
        for row in worst.tolist()
    )


def _nearest(embeddings: NDArray[np.float32], row: int, crops: ScoredCrops, folder: Path) -> tuple[Neighbour, ...]:
    split = len(crops.query)
    identities = np.concatenate([crops.query.identities, crops.gallery.identities])
    cameras = np.concatenate([crops.query.cameras, crops.gallery.cameras])
    similarity = embeddings[split:] @ embeddings[row]
    # Distractors share a number and need not be one person; their number is no query's.
    same_person = (identities[split:] == identities[row]) & np.isin(identities[row], crops.query.identities)
    allowed = ~(same_person & (cameras[split:] == cameras[row]))
    if row >= split:
        allowed[row - split] = False
    candidates = np.flatnonzero(allowed)
    nearest = candidates[np.argsort(-similarity[candidates], kind="stable")[:_NEIGHBOURS]]
    return tuple(
        Neighbour(_file(crops.gallery.paths[index], folder), float(similarity[index]), bool(same_person[index]))
        for index in nearest.tolist()
    )


def _file(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else Path(path.parent.name, path.name)).as_posix()
