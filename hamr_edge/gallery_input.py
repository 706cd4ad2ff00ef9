"""What a gallery takes: embeddings, names, times, a retention time; checked before anything is changed."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.errors import InputError

_NORM_TOLERANCE = 1e-3
_LONGEST_NAME = 200
_DAY_S = 86_400.0


def check_embeddings(embeddings: ArrayLike, dim: int) -> NDArray[np.float32]:
    """(N, ``dim``) float32 rows of unit norm, a copy.

    Raises:
        InputError: Another shape, or a row that is not finite or not of unit norm to 0.001; the message names it.
    """
    rows = np.asarray(embeddings)
    if rows.dtype.kind != "f" or rows.ndim != 2 or rows.shape[1] != dim:
        way_out = "; pass a single embedding as embedding[None]" if rows.shape == (dim,) else ""
        raise InputError(
            f"embeddings must be floats of shape (N, {dim}), as the gallery's artifact gives them, got {rows.dtype} "
            f"{rows.shape}{way_out}"
        )
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= _NORM_TOLERANCE))  # written so that NaN is wrong too
    if len(wrong):
        raise InputError(
            f"embeddings must be finite rows of unit norm, row {wrong[0]} has norm {norms[wrong[0]]:g}; pass them as "
            "the embedder gives them"
        )
    unit = np.array(rows, np.float32)
    unit /= norms.astype(np.float32)[:, None]
    return unit


def check_name(name: str, what: str) -> str:
    """A name that can be shown and stored.

    Raises:
        InputError: It is empty, longer than 200, not printable, or has spaces around it.
    """
    is_text = isinstance(name, str) and name.isprintable() and name == name.strip()
    if not is_text or not 1 <= len(name) <= _LONGEST_NAME:
        raise InputError(
            f"{what} must be 1 to {_LONGEST_NAME} printable characters, none of them a space at an end, got {name!r}"
        )
    return name


def check_time(time_s: float | None, retention_s: float | None) -> float:
    """A Unix time; now when None.

    Raises:
        InputError: It is no such time, lies more than a day ahead, or so far back that it would be deleted at once.
    """
    now = time.time()
    if time_s is None:
        return now
    if not math.isfinite(time_s) or not 0 <= time_s <= now + _DAY_S:
        raise InputError(
            f"a time must be in Unix seconds, from 0 to now, {now:.0f}, got {time_s:g}; divide milliseconds by 1000"
        )
    if retention_s is not None and time_s < now - retention_s:
        raise InputError(
            f"what was seen {(now - time_s) / _DAY_S:.1f} days ago is older than the gallery's retention time, "
            f"{retention_s / _DAY_S:.1f} days; it would be deleted at once"
        )
    return float(time_s)


def check_retention(retention_s: float | None, index: str) -> float | None:
    """A retention time in seconds, or None.

    Raises:
        InputError: It is no time, or the index cannot let go of a row.
    """
    if retention_s is None:
        return None
    if not math.isfinite(retention_s) or retention_s <= 0:
        raise InputError(f"the retention time must be more than 0 seconds, got {retention_s:g}; None keeps for ever")
    if index == "hnsw":
        raise InputError(
            "the index 'hnsw' cannot let go of an embedding without being built anew, so it does not go with a "
            "retention time; take 'codes', which is fast as well"
        )
    return float(retention_s)


def check_search(k: int, cameras: Collection[str] | None) -> None:
    """Raise InputError unless ``k`` is at least 1 and ``cameras`` is no bare text."""
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if isinstance(cameras, str):
        raise InputError(f"cameras must be a list of names, got the text {cameras!r}; pass [{cameras!r}]")
