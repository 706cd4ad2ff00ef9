"""Retrieval scores of any backend on a data set: the same code for a checkpoint, an ONNX file and an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.crop_canvas import fits_a_frame, lay_out_images
from hamr_edge.dataset import JUNK_IDENTITY, LabelledCrops, ReidDataset, read_crop
from hamr_edge.preprocess import stack_crops
from hamr_edge.progress import progress_bar
from hamr_edge.ranking import RetrievalScores, score_retrieval
from hamr_edge.similarity import usable_device


class EmbeddedTest(NamedTuple):
    """What :func:`hamr_edge.ranking.score_retrieval` takes, in its order; junk is left out."""

    query: NDArray[np.float32]
    gallery: NDArray[np.float32]
    query_identities: NDArray[np.int64]
    gallery_identities: NDArray[np.int64]
    query_cameras: NDArray[np.int64]
    gallery_cameras: NDArray[np.int64]


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
    return embed_chunks(
        partial(embed_images, backend), paths, sidecar.max_batch, sidecar.embedding_dim, mirror, quiet, description
    )


def embed_chunks(
    embed: Callable[[Sequence[NDArray[np.uint8]], bool], NDArray[np.float32]],
    paths: Sequence[Path],
    chunk_size: int,
    width: int,
    mirror: bool,
    quiet: bool,
    description: str,
) -> NDArray[np.float32]:
    """Read image files some at a time, and embed them by a function: what :func:`embed_files` does for any model.

    Args:
        embed: Takes (H, W, 3) uint8 BGR images, and whether to mirror them; gives (n, D) float32.
        paths: Image files.
        chunk_size: Files at once.
        width: D.
        mirror: As in :func:`embed_files`.
        quiet: No progress bar.
        description: The bar's label.
    """
    embeddings = np.empty((len(paths), width), np.float32)
    with progress_bar(quiet) as progress:
        task = progress.add_task(description, total=len(paths), note="")
        for start in range(0, len(paths), chunk_size):
            chunk = paths[start : start + chunk_size]
            images = [read_crop(path) for path in chunk]
            rows = embed(images, False)
            if mirror:
                rows = rows + embed(images, True)
                rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
            embeddings[start : start + len(chunk)] = rows
            progress.advance(task, len(chunk))
    return embeddings


def embed_images(backend: Backend, images: Sequence[NDArray[np.uint8]], mirror: bool = False) -> NDArray[np.float32]:
    """Embed whole crops of any sizes, resized where the artifact has it: in the graph in the frame form.

    Args:
        backend: An open backend.
        images: (H, W, 3) uint8 BGR each, at least one.
        mirror: Embed their mirror images instead.

    Returns:
        (N, D) float32, as the backend gives them.
    """
    sidecar = backend.sidecar
    if sidecar.form == "frame" and all(fits_a_frame(image) for image in images):
        shown = [image[:, ::-1] for image in images] if mirror else images
        frames = lay_out_images(shown, sidecar.max_batch)
        return np.concatenate([backend.infer_frame(frame, boxes) for frame, boxes in frames])
    batch = stack_crops(images, sidecar.input_size_hw)
    return backend.infer(batch[:, :, ::-1] if mirror else batch)


def can_be_scored(query: LabelledCrops, gallery: LabelledCrops) -> bool:
    """True where some query has a gallery image of its identity from another camera."""
    cameras: dict[int, set[int]] = {}
    for identity, camera in zip(gallery.identities.tolist(), gallery.cameras.tolist(), strict=True):
        cameras.setdefault(identity, set()).add(camera)
    return any(
        cameras.get(identity, set()) - {camera}
        for identity, camera in zip(query.identities.tolist(), query.cameras.tolist(), strict=True)
    )


def embed_test(backend: Backend, dataset: ReidDataset, mirror: bool = False, quiet: bool = True) -> EmbeddedTest:
    """Embed a data set's query and gallery with an open backend; see :func:`embed_files`."""
    query = dataset.query
    gallery = dataset.gallery.select(dataset.gallery.identities != JUNK_IDENTITY)
    return EmbeddedTest(
        embed_files(backend, query.paths, mirror, quiet, "query"),
        embed_files(backend, gallery.paths, mirror, quiet, "gallery"),
        query.identities,
        gallery.identities,
        query.cameras,
        gallery.cameras,
    )


def evaluate(
    backend: Backend, dataset: ReidDataset, mirror: bool = False, quiet: bool = True, rerank: bool = False
) -> RetrievalScores:
    """Score an open backend on a data set's query and gallery; distances on its GPU where torch can use that.

    Args:
        backend: An open backend.
        dataset: The data set.
        mirror: Average each crop with its mirror image.
        quiet: No progress bar.
        rerank: Rank by k-reciprocal re-ranking.
    """
    embedded = embed_test(backend, dataset, mirror, quiet)
    return score_retrieval(*embedded, rerank=rerank, device=usable_device(backend.device))
