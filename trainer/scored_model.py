"""A checkpoint with what the figures need of it: its log, its scores and every query's ranking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hamr_edge.evaluation import embed_files
from hamr_edge.labelled_crops import ReidDataset
from hamr_edge.ranked_list import RankedList, cumulative_matches, rank_blocks
from hamr_edge.ranking import RetrievalScores, score_blocks
from hamr_edge.similarity import similarity_blocks, usable_device
from hamr_edge.trainer.checkpoint import CheckpointInfo, load_checkpoint
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.run_log import LOG
from hamr_edge.trainer.torch_backend import TorchBackend
from hamr_edge.trainer.training_log import read_training_log


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint that was read, not run yet."""

    role: str
    """``model`` or ``baseline``."""
    folder: Path
    network: Hamr
    info: CheckpointInfo
    log: dict[str, list[float]] | None
    """The training log's columns; None where the folder has no log."""

    @property
    def name(self) -> str:
        """Role and folder, as legends and tables show them."""
        return f"{self.role} ({self.folder.resolve().name})"


@dataclass(frozen=True, slots=True)
class Rankings:
    """Every query's ranking, and what follows from all of them."""

    lists: list[RankedList]
    scores: RetrievalScores
    cmc: list[float]
    """Shares in 0..1 of the scored queries with a right match at rank 1, 2, ... or better."""


def load_model(role: str, folder: Path) -> LoadedModel:
    """Read a checkpoint folder and, where there is one, its log.

    Raises:
        InputError: The folder is not a whole checkpoint, or its log cannot be read.
    """
    network, info, _ = load_checkpoint(folder)
    log = read_training_log(folder / LOG) if (folder / LOG).exists() else None
    return LoadedModel(role, folder, network, info, log)


def rank_model(
    model: LoadedModel, dataset: ReidDataset, ranks: int, device: torch.device, mirror: bool = False, quiet: bool = True
) -> Rankings:
    """Embed a data set's query split and gallery, and rank the gallery for every query.

    Args:
        model: Its network is left on ``device``, in evaluation mode.
        dataset: Its gallery holds no junk.
        ranks: Length of the kept lists and of the CMC curve.
        device: Where to run.
        mirror: Add each crop's mirror image.
        quiet: No progress bar.

    Raises:
        InputError: An image is missing or cannot be decoded, or no query can be scored.
    """
    query, gallery = dataset.query, dataset.gallery
    with TorchBackend.of_network(model.network, device) as backend:
        query_rows, gallery_rows = (
            embed_files(backend, crops.paths, mirror, quiet, f"{model.role}: {name}")
            for name, crops in (("query", query), ("gallery", gallery))
        )
    lists: list[RankedList] = []

    def ranked_blocks() -> Iterator[tuple[int, NDArray[np.float32]]]:
        # Between the product, which takes the time, and the scoring, which overwrites it.
        for start, block in similarity_blocks(query_rows, gallery_rows, usable_device(str(device))):
            lists.extend(rank_blocks([(start, block)], query, gallery, ranks))
            yield start, block

    scores = score_blocks(ranked_blocks(), query.identities, gallery.identities, query.cameras, gallery.cameras)
    return Rankings(lists, scores, cumulative_matches(lists, min(ranks, len(gallery))).tolist())
