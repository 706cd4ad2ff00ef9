"""Nothing unverified is published: write under a temporary name, check against the source, then rename."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.atomic import make_folder
from hamr_edge.backend import Backend, open_backend
from hamr_edge.errors import GateError
from hamr_edge.export.check_frames import SourceFrames
from hamr_edge.sidecar import Sidecar, external_data_path, hash_file, sidecar_path, write_sidecar

_BATCH_SIZES = (1, 2, 7)
_NORM_TOLERANCE = 1e-4
_DISTINCT_COSINE = 0.99999
_OWN_COSINE = 0.999
"""Of a crop's embeddings at two batch sizes: sums in another order may round to another int8, but seldom."""


@dataclass(frozen=True, slots=True)
class SourceEmbeddings:
    """What an artifact must reproduce."""

    crops: NDArray[np.uint8]
    """(N, H, W, 3) uint8 BGR."""
    names: tuple[str, ...]
    """What to call each crop in a message."""
    embeddings: NDArray[np.float32]
    """(N, D) of the source, rows of unit norm."""
    of: str = "PyTorch"
    """What to call the source in a message."""


def publish(
    path: Path,
    sidecar: Sidecar,
    write: Callable[[Path], object],
    source: SourceEmbeddings | SourceFrames,
    min_cosine: float,
    judge: Callable[[Backend], dict[str, Any]] | None = None,
    device: str = "cpu",
) -> Sidecar:
    """Write an artifact, check it, and only then give it its name.

    Args:
        path: Where the artifact and its sidecar shall lie; the folder is made if it is not there.
        sidecar: What is known; its hash and parity are filled in here. A parity that it has already is that of the
            artifact which this one is made of: it is kept as ``of_source``, for who asks how far both steps lead.
        write: Called with the temporary path.
        source: Crops, or for the ``frame`` form frames and boxes, and the source's embeddings of them.
        min_cosine: Least agreement of any crop at any batch size.
        judge: A further check of the open artifact; raises GateError, or gives entries for the sidecar's parity.
        device: Where the artifact is run to be checked.

    Returns:
        The published sidecar.

    Raises:
        GateError: The check failed; nothing was published, and an artifact of that name from before is untouched.
        ValueError: The source is of another form than the sidecar says.
    """
    if isinstance(source, SourceFrames) != (sidecar.form == "frame"):
        raise ValueError(f"an artifact in the {sidecar.form} form cannot be checked with {type(source).__name__}")
    with _held_back(path, sidecar, write) as (temporary, hashed):
        with open_backend(temporary, device) as backend:
            parity = check_rows(backend, source, min_cosine)
            if judge is not None:
                parity |= judge(backend)
        return _release(temporary, path, replace(hashed, parity=parity | _of_source(sidecar)))


def publish_unchecked(path: Path, sidecar: Sidecar, write: Callable[[Path], object], reason: str) -> Sidecar:
    """Write an artifact that cannot be run here; its sidecar says that nobody checked it, and why.

    Args:
        path: As :func:`publish`.
        sidecar: As :func:`publish`; its parity becomes ``{"unchecked": reason}``, and ``of_source``.
        write: Called with the temporary path.
        reason: Why it was not checked.
    """
    with _held_back(path, sidecar, write) as (temporary, hashed):
        return _release(temporary, path, replace(hashed, parity={"unchecked": reason} | _of_source(sidecar)))


def _of_source(sidecar: Sidecar) -> dict[str, Any]:
    return {"of_source": sidecar.parity} if sidecar.parity else {}


@contextmanager
def _held_back(path: Path, sidecar: Sidecar, write: Callable[[Path], object]) -> Iterator[tuple[Path, Sidecar]]:
    """Write an artifact and its sidecar into a hidden folder beside their place, which goes at the end."""
    make_folder(path.parent, "output folder")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        write(temporary)
        data = external_data_path(temporary)
        hashed = replace(
            sidecar,
            artifact_sha256=hash_file(temporary),
            external_data_sha256=hash_file(data) if data.exists() else "",
        )
        write_sidecar(hashed, sidecar_path(temporary))
        yield temporary, hashed


def _release(temporary: Path, path: Path, published: Sidecar) -> Sidecar:
    """Give an artifact its name."""
    write_sidecar(published, sidecar_path(temporary))
    # Between these renames the old sidecar does not fit the new files: loading them is refused, not wrong.
    for made in (external_data_path(temporary), temporary, sidecar_path(temporary)):
        if made.exists():
            made.replace(path.with_name(made.name))
    return published


def check_rows(backend: Backend, source: SourceEmbeddings | SourceFrames, min_cosine: float) -> dict[str, Any]:
    """Hold every row of an artifact against its source, at batches of 1, 2, 7 and the maximum.

    Crops or boxes are repeated to fill the largest batch, and each meets other neighbours at each batch size: a graph
    that mixes rows by more than ``min_cosine`` allows cannot pass. At low precision, where that allows much, a crop's
    embeddings at different batch sizes must still agree with each other.

    Returns:
        ``images``, ``batch_sizes``, and the least and mean cosine over all of them.

    Raises:
        GateError: A row disagrees, is not finite or not of unit norm; the message names batch size and crop. Or the
            source cannot tell the crops apart, so that mixed rows would go unseen.
    """
    _check_distinct(source)
    limit = backend.sidecar.max_batch
    sizes = [size for size in _BATCH_SIZES if size < limit] + [limit]
    cosines = []
    first = np.zeros_like(source.embeddings)
    for size in sizes:
        rows, places = _embed_in_batches(backend, source, size)
        expected, names = source.embeddings[places], [source.names[place] for place in places]
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
                f"{source.of}'s, expected at least {min_cosine}; {np.count_nonzero(cosine < min_cosine)} of "
                f"{len(cosine)} crops disagree; nothing was published"
            )
        if size == sizes[0]:
            first[places] = rows
        own = np.einsum("nd,nd->n", rows, first[places], dtype=np.float64)
        worst = int(own.argmin())
        if own[worst] < _OWN_COSINE:
            raise GateError(
                f"the embedding of {names[worst]} depends on its batch: cosine {own[worst]:.6f} between batches of "
                f"{sizes[0]} and {size}, expected at least {_OWN_COSINE}; nothing was published"
            )
        cosines.append(cosine)
    every = np.concatenate(cosines)
    return {
        "images": len(source.names),
        "batch_sizes": sizes,
        "min_cosine": float(every.min()),
        "mean_cosine": float(every.mean()),
    }


def _embed_in_batches(
    backend: Backend, source: SourceEmbeddings | SourceFrames, size: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows of the artifact at a batch size, and the source's row for each; a batch may hold one crop several times."""
    if isinstance(source, SourceEmbeddings):
        places = _repeated(len(source.names), backend.sidecar.max_batch)
        starts = range(0, len(places), size)
        return np.concatenate([backend.infer(source.crops[places[start : start + size]]) for start in starts]), places
    rows, places_of_rows, first = [], [], 0
    for frame, boxes in zip(source.frames, source.boxes, strict=True):
        places = _repeated(len(boxes), size)
        for start in range(0, len(places), size):
            rows.append(backend.infer_frame(frame, boxes[places[start : start + size]]))
        places_of_rows.append(first + places)
        first += len(boxes)
    return np.concatenate(rows), np.concatenate(places_of_rows)


def _repeated(count: int, least: int) -> NDArray[np.int64]:
    """0..count-1, again and again up to ``least`` numbers, but all of them once."""
    return np.resize(np.arange(count), max(count, least))


def _check_distinct(source: SourceEmbeddings | SourceFrames) -> None:
    """A check of rows is worth nothing where all rows are the same."""
    if len(source.names) < 2:
        raise GateError("the check needs at least 2 different crops; pass a data set with more")
    cosines = source.embeddings @ source.embeddings.T
    np.fill_diagonal(cosines, -1)
    if float(np.median(cosines.max(axis=1))) >= _DISTINCT_COSINE:
        raise GateError(
            "the checkpoint gives different crops the same embedding, so mixed rows could not be seen; "
            "train it further, or pass --data with real crops"
        )
