"""Retrieval scores of any backend on a data set: the same code for a checkpoint, an ONNX file and an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.dataset import JUNK_IDENTITY, LabelledCrops, ReidDataset, read_crop
from hamr_edge.preprocess import stack_crops
from hamr_edge.progress import progress_bar
from hamr_edge.ranking import RetrievalScores, score_retrieval


def embed_files(
    backend: Backend, paths: Sequence[Path], mirror: bool = False, quiet: bool = True, description: str = "embedding"
) -> NDArray[np.float32]:
    """Embed image files, each a whole crop.

    Args:
        backend: An open backend.
        paths: Image files.
        mirror: Add the embedding of each crop's mirror image and normalise again, as the authors' code does.
        quiet: No progress bar.
        description: The bar's label.

    Returns:
        (N, D) float32, rows of unit L2 norm.

    Raises:
        InputError: A file is missing or cannot be decoded; the message names it.
    """
    sidecar = backend.sidecar
    embeddings = np.empty((len(paths), sidecar.embedding_dim), np.float32)
    with progress_bar(quiet) as progress:
        task = progress.add_task(description, total=len(paths), note="")
        for start in range(0, len(paths), sidecar.max_batch):
            chunk = paths[start : start + sidecar.max_batch]
            batch = stack_crops([read_crop(path) for path in chunk], sidecar.input_size_hw)
            rows = backend.infer(batch)
            if mirror:
                rows = rows + backend.infer(batch[:, :, ::-1])
                rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            embeddings[start : start + len(chunk)] = rows
            progress.advance(task, len(chunk))
    return embeddings


def can_be_scored(query: LabelledCrops, gallery: LabelledCrops) -> bool:
    """True where some query has a gallery image of its identity from another camera."""
    cameras: dict[int, set[int]] = {}
    for identity, camera in zip(gallery.identities.tolist(), gallery.cameras.tolist(), strict=True):
        cameras.setdefault(identity, set()).add(camera)
    return any(
        cameras.get(identity, set()) - {camera}
        for identity, camera in zip(query.identities.tolist(), query.cameras.tolist(), strict=True)
    )


def evaluate(backend: Backend, dataset: ReidDataset, mirror: bool = False, quiet: bool = True) -> RetrievalScores:
    """Score an open backend on a data set's query and gallery; junk is not embedded."""
    query = dataset.query
    gallery = dataset.gallery.select(dataset.gallery.identities != JUNK_IDENTITY)
    return score_retrieval(
        embed_files(backend, query.paths, mirror, quiet, "query"),
        embed_files(backend, gallery.paths, mirror, quiet, "gallery"),
        query.identities,
        gallery.identities,
        query.cameras,
        gallery.cameras,
    )
