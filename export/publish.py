"""Nothing unverified is published: write under a temporary name, check against the source, then rename."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.atomic import make_folder
from hamr_edge.backend import Backend, open_backend
from hamr_edge.errors import GateError
from hamr_edge.sidecar import Sidecar, external_data_path, hash_file, sidecar_path, write_sidecar

_BATCH_SIZES = (1, 2, 7)
_NORM_TOLERANCE = 1e-4
_DISTINCT_COSINE = 0.99999


@dataclass(frozen=True, slots=True)
class SourceEmbeddings:
    """What an artifact must reproduce."""

    crops: NDArray[np.uint8]
    """(N, H, W, 3) uint8 BGR."""
    names: tuple[str, ...]
    """What to call each crop in a message."""
    embeddings: NDArray[np.float32]
    """(N, D) of the source, rows of unit norm."""


def publish(
    path: Path,
    sidecar: Sidecar,
    write: Callable[[Path], object],
    source: SourceEmbeddings,
    min_cosine: float,
) -> Sidecar:
    """Write an artifact, check it, and only then give it its name.

    Args:
        path: Where the artifact and its sidecar shall lie; the folder is made if it is not there.
        sidecar: What is known; its hash and parity are filled in here.
        write: Called with the temporary path.
        source: Crops and the source's embeddings of them.
        min_cosine: Least agreement of any crop at any batch size.

    Returns:
        The published sidecar.

    Raises:
        GateError: The check failed; nothing was published, and an artifact of that name from before is untouched.
    """
    make_folder(path.parent, "output folder")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        write(temporary)
        data = external_data_path(temporary)
        published = replace(
            sidecar,
            artifact_sha256=hash_file(temporary),
            external_data_sha256=hash_file(data) if data.exists() else "",
        )
        write_sidecar(published, sidecar_path(temporary))
        with open_backend(temporary, "cpu") as backend:
            published = replace(published, parity=check_rows(backend, source, min_cosine))
        write_sidecar(published, sidecar_path(temporary))
        # Between these renames the old sidecar does not fit the new files: loading them is refused, not wrong.
        for made in (data, temporary, sidecar_path(temporary)):
            if made.exists():
                made.replace(path.with_name(made.name))
    return published


def check_rows(backend: Backend, source: SourceEmbeddings, min_cosine: float) -> dict[str, Any]:
    """Hold every row of an artifact against its source, at batches of 1, 2, 7 and the maximum.

    Crops are repeated to fill the largest batch, and each meets other neighbours at each batch size: a graph that
    mixes rows by more than ``min_cosine`` allows cannot pass.

    Returns:
        ``images``, ``batch_sizes``, and the least and mean cosine over all of them.

    Raises:
        GateError: A row disagrees, is not finite or not of unit norm; the message names batch size and crop. Or the
            source cannot tell the crops apart, so that mixed rows would go unseen.
    """
    _check_distinct(source)
    limit = backend.sidecar.max_batch
    sizes = [size for size in _BATCH_SIZES if size < limit] + [limit]
    repeated = np.resize(np.arange(len(source.crops)), max(len(source.crops), limit))
    crops, expected = source.crops[repeated], source.embeddings[repeated]
    names = [source.names[crop] for crop in repeated]
    cosines = []
    for size in sizes:
        rows = np.concatenate([backend.infer(crops[start : start + size]) for start in range(0, len(crops), size)])
        if rows.shape != expected.shape:
            raise GateError(f"embeddings have shape {rows.shape}, the source gives {expected.shape}")
        norms = np.linalg.norm(rows, axis=1)
        wrong = np.flatnonzero(~(np.abs(norms - 1) < _NORM_TOLERANCE))  # written so that NaN is wrong too
        if len(wrong):
            raise GateError(
                f"at batch {size}, the embedding of {names[wrong[0]]} has norm {norms[wrong[0]]:g}, expected 1; "
                "nothing was published"
            )
        cosine = np.einsum("nd,nd->n", rows, expected, dtype=np.float64)
        cosine /= norms * np.linalg.norm(expected, axis=1)
        worst = int(cosine.argmin())
        if cosine[worst] < min_cosine:
            raise GateError(
                f"at batch {size}, the embedding of {names[worst]} has cosine {cosine[worst]:.6f} with "
                f"PyTorch's, expected at least {min_cosine}; {np.count_nonzero(cosine < min_cosine)} of "
                f"{len(cosine)} crops disagree; nothing was published"
            )
        cosines.append(cosine)
    every = np.stack(cosines)
    return {
        "images": len(source.crops),
        "batch_sizes": sizes,
        "min_cosine": float(every.min()),
        "mean_cosine": float(every.mean()),
    }


def _check_distinct(source: SourceEmbeddings) -> None:
    """A check of rows is worth nothing where all rows are the same."""
    if len(source.crops) < 2:
        raise GateError("the check needs at least 2 different crops; pass a data set with more")
    cosines = source.embeddings @ source.embeddings.T
    np.fill_diagonal(cosines, -1)
    if float(np.median(cosines.max(axis=1))) >= _DISTINCT_COSINE:
        raise GateError(
            "the checkpoint gives different crops the same embedding, so mixed rows could not be seen; "
            "train it further, or pass --data with real crops"
        )
