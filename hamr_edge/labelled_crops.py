"""Person crops with their labels: what every reader of a data set returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

JUNK_IDENTITY = -1
"""Label of gallery images that count neither for nor against a match."""


@dataclass(frozen=True, slots=True)
class LabelledCrops:
    """Parallel arrays, one entry a crop, sorted by path."""

    paths: tuple[Path, ...]
    identities: NDArray[np.int64]
    """(N,) identity of each crop; ``JUNK_IDENTITY`` for junk."""
    cameras: NDArray[np.int64]
    """(N,) camera of each crop."""

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, chosen: NDArray[Any]) -> LabelledCrops:
        """The crops that an index or mask array chooses, in its order."""
        rows = np.arange(len(self))[chosen]
        return LabelledCrops(tuple(self.paths[row] for row in rows), self.identities[rows], self.cameras[rows])


@dataclass(frozen=True, slots=True)
class ReidDataset:
    """A data set of three splits. Training holds no junk.

    Query and gallery number their people alike; training numbers its own, so one number may stand for two people.
    """

    name: str
    train: LabelledCrops
    query: LabelledCrops
    gallery: LabelledCrops
    cameras_named: bool = True
    """Whether query and gallery say their cameras; if not, images of the query's own camera count as matches."""

    def tested_on(self, other: ReidDataset) -> ReidDataset:
        """This set's training split with the query and gallery of another: the cross-domain setting."""
        return ReidDataset(f"{self.name} -> {other.name}", self.train, other.query, other.gallery, other.cameras_named)


def label_crops(labelled: list[tuple[Path, int, int]]) -> LabelledCrops:
    """Crops from (path, identity, camera) rows of any order."""
    rows = sorted(labelled, key=lambda row: str(row[0]))  # strings: paths compare many times slower
    identities, cameras = np.asarray([row[1:] for row in rows], np.int64).reshape(-1, 2).T
    return LabelledCrops(tuple(row[0] for row in rows), identities, cameras)


def without_junk(crops: LabelledCrops) -> LabelledCrops:
    """The crops that are somebody: what training may use."""
    return crops.select(crops.identities != JUNK_IDENTITY)
