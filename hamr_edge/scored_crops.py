"""Which crops a model is scored on: the query and gallery of a data set, or a part of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import JUNK_IDENTITY, LabelledCrops, ReidDataset
from hamr_edge.errors import InputError
from hamr_edge.evaluation import can_be_scored
from hamr_edge.ranking import RetrievalScores, score_retrieval


@dataclass(frozen=True, slots=True)
class ScoredCrops:
    """The crops that a model is scored on; embeddings hold the query's rows first, then the gallery's."""

    query: LabelledCrops
    gallery: LabelledCrops

    def __len__(self) -> int:
        return len(self.query) + len(self.gallery)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The image file of each row."""
        return self.query.paths + self.gallery.paths

    def name(self, row: int) -> str:
        """How messages and reports name a row: folder and file."""
        path = self.paths[row]
        return f"{path.parent.name}/{path.name}"


def choose_crops(dataset: ReidDataset, max_crops: int | None = None, seed: int = 0) -> ScoredCrops:
    """The query and gallery without junk: junk counts for no score, and detectors' junk need not be embedded well.

    Args:
        dataset: The data set.
        max_crops: Take whole identities, in random order, while they fit; distractors fill up what is left. All crops
            when None.
        seed: Fixes the random order.

    Raises:
        InputError: The crops that fit hold no query with a gallery image of its identity from another camera.
    """
    query = dataset.query
    gallery = dataset.gallery.select(dataset.gallery.identities != JUNK_IDENTITY)
    if max_crops is not None and len(query) + len(gallery) > max_crops:
        query, gallery = _choose_identities(query, gallery, max_crops, np.random.default_rng(seed))
    crops = ScoredCrops(query, gallery)
    if not can_be_scored(query, gallery):
        hint = f"; raise --max-crops {max_crops}" if max_crops is not None else ""
        raise InputError(
            f"data set {dataset.name}: no query has a gallery image of its identity from another camera; "
            f"retrieval cannot be scored{hint}"
        )
    return crops


def score_crops(embeddings: NDArray[np.float32], crops: ScoredCrops) -> RetrievalScores:
    """Retrieval scores of (N, D) finite embeddings, query rows first."""
    split = len(crops.query)
    return score_retrieval(
        embeddings[:split],
        embeddings[split:],
        crops.query.identities,
        crops.gallery.identities,
        crops.query.cameras,
        crops.gallery.cameras,
    )


def _choose_identities(
    query: LabelledCrops, gallery: LabelledCrops, max_crops: int, rng: np.random.Generator
) -> tuple[LabelledCrops, LabelledCrops]:
    left = max_crops
    chosen: list[int] = []
    for identity in rng.permutation(np.unique(query.identities)).tolist():
        size = int(np.sum(query.identities == identity) + np.sum(gallery.identities == identity))
        if size <= left:
            chosen.append(identity)
            left -= size
    in_gallery: NDArray[np.bool_] = np.isin(gallery.identities, chosen)
    distractors = np.flatnonzero(~np.isin(gallery.identities, query.identities))
    in_gallery[rng.permutation(distractors)[:left]] = True
    return query.select(np.isin(query.identities, chosen)), gallery.select(in_gallery)
