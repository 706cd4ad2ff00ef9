"""What a gallery takes: embeddings, names, times, a retention time; checked before anything is changed."""

from __future__ import annotations

import math
import operator
import re
import time
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.errors import InputError
from hamr_edge.gallery_times import format_duration, format_moment

MOST_RESULTS = 10_000
"""People or embeddings that a search gives for one query."""
_NORM_TOLERANCE = 1e-3
_LONGEST_NAME = 200
_DAY_S = 86_400.0
_BLOCK_BYTES = 16 << 20


def check_embeddings(embeddings: ArrayLike, dim: int) -> NDArray[np.float32]:
    """(N, ``dim``) float32 rows of unit norm, a copy.

    Raises:
        InputError: Another shape, or a row that is not finite or not of unit norm to 0.001; the message names it.
    """
    try:
        rows = np.asarray(embeddings)
    except ValueError as error:
        raise InputError(f"embeddings must be floats of shape (N, {dim}), got rows of several lengths") from error
    if rows.dtype.kind != "f" or rows.ndim != 2 or rows.shape[1] != dim:
        way_out = "; pass a single embedding as embedding[None]" if rows.shape == (dim,) else ""
        raise InputError(
            f"embeddings must be floats of shape (N, {dim}), as the gallery's artifact gives them, got {rows.dtype} "
            f"{rows.shape}{way_out}"
        )
    rows = rows.astype(np.float64) if rows.dtype.itemsize > 8 else rows  # long doubles, which einsum does not narrow
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    wrong = _first_wrong(norms)
    if wrong is not None:
        raise InputError(
            f"embeddings must be finite rows of unit norm, row {wrong} has norm {norms[wrong]:g}; pass them as the "
            "embedder gives them"
        )
    unit = np.array(rows, np.float32)
    unit /= norms.astype(np.float32)[:, None]
    return unit


def find_no_unit_row(rows: NDArray[np.float32]) -> tuple[int, float] | None:
    """The first of (N, D) rows that is not finite or not of unit norm to 0.001, and its norm; None without one."""
    step = max(1, _BLOCK_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        norms = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = _first_wrong(norms)
        if wrong is not None:
            return start + wrong, float(norms[wrong])
    return None


def check_name(name: object, what: str) -> str:
    """A name that can be shown and stored, in Unicode's form NFC: two spellings that look the same are one name.

    Raises:
        InputError: It is empty, longer than 200, not printable, or has spaces around it.
    """
    is_text = isinstance(name, str) and name.isprintable() and name == name.strip()
    if not isinstance(name, str) or not is_text or not 1 <= len(name) <= _LONGEST_NAME:
        raise InputError(
            f"{what} must be 1 to {_LONGEST_NAME} printable characters, none of them a space at an end, got {name!r}"
        )
    return normalise_name(name)


def check_person_name(name: object) -> str:
    """:func:`check_name` for who is new.

    Raises:
        InputError: As there, or it is like ``#2``, which is what people without a name are called.
    """
    checked = check_name(name, "a person's name")
    if re.fullmatch(r"#\d+", checked):
        raise InputError(f"a person's name must not be like #2, as who has no name is called, got {name!r}; add a word")
    return checked


def normalise_name(name: str) -> str:
    """A name as galleries spell it."""
    return unicodedata.normalize("NFC", name)


def check_time(time_s: float | None, retention_s: float | None) -> float:
    """A Unix time; now when None.

    Raises:
        InputError: It is no such time, lies more than a day ahead, or so far back that it would be deleted at once.
    """
    now = time.time()
    if time_s is None:
        return now
    checked = check_unix_time(time_s, "a time")
    if retention_s is not None and checked < now - retention_s:
        raise InputError(
            f"what was seen at {format_moment(checked)} is older than the gallery's retention time, "
            f"{format_duration(retention_s)}; it would be deleted at once"
        )
    return checked


def check_unix_time(time_s: Any, what: str) -> float:
    """A Unix time.

    Raises:
        InputError: It is no number, or none from 0 to a day ahead.
    """
    latest = time.time() + _DAY_S
    if not isinstance(time_s, int | float | np.integer | np.floating):
        raise InputError(f"{what} must be a number, Unix seconds, got {time_s!r}; a datetime gives it by timestamp()")
    if not _is_number(time_s) or not 0 <= time_s <= latest:
        raise InputError(
            f"{what} must be in Unix seconds, from 0 to now, {latest - _DAY_S:.0f}, got {_shown(time_s)}; divide "
            "milliseconds by 1000"
        )
    return float(time_s)


def check_retention(retention_s: float | None, index: str) -> float | None:
    """A retention time in seconds, or None.

    Raises:
        InputError: It is no time, or the index cannot let go of a row.
    """
    if retention_s is None:
        return None
    if not _is_number(retention_s) or retention_s <= 0:
        raise InputError(
            f"the retention time must be more than 0 seconds, got {_shown(retention_s)}; None keeps for ever"
        )
    if index == "hnsw":
        raise InputError(
            "the index 'hnsw' cannot let go of an embedding without being built anew, so it does not go with a "
            "retention time; take 'codes', which is fast as well"
        )
    return float(retention_s)


def check_ids(ids: ArrayLike) -> NDArray[np.int64]:
    """Numbers of embeddings, (N,).

    Raises:
        InputError: They are no integers, such as a mask of the embeddings.
    """
    numbers = np.atleast_1d(np.asarray(ids))
    if numbers.size == 0:
        return np.empty(0, np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise InputError(
            f"ids must be integers of shape (N,), as enrol gave them, got {numbers.dtype} {numbers.shape}; a mask "
            "chooses among them as ids[mask]"
        )
    return numbers.astype(np.int64)


def check_count(k: Any) -> int:
    """How many results a query gets.

    Raises:
        InputError: It is no integer from 1 to 10,000.
    """
    try:
        count = operator.index(k)
    except TypeError:
        raise InputError(f"k must be an integer from 1 to {MOST_RESULTS}, got {k!r}") from None
    if count < 1:
        raise InputError(f"k must be at least 1, got {k!r}")
    if count > MOST_RESULTS:
        raise InputError(f"k must be at most {MOST_RESULTS}, got {k!r}; a list of everybody is people()")
    return count


def check_cameras(cameras: Iterable[str] | None) -> frozenset[str] | None:
    """Names of cameras, as galleries spell them; None for all.

    Raises:
        InputError: It is a bare text, or what is no name is among them.
    """
    if cameras is None:
        return None
    if isinstance(cameras, str):
        raise InputError(f"cameras must be a list of names, got the text {cameras!r}; pass [{cameras!r}]")
    names = list(cameras)
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"cameras must be a list of names, got {name!r} among them")
    return frozenset(normalise_name(name) for name in names)


def check_period(since: float | None, until: float | None) -> tuple[float | None, float | None]:
    """Two Unix times.

    Raises:
        InputError: One is no such time, or the first is the later one.
    """
    start = None if since is None else check_unix_time(since, "since")
    end = None if until is None else check_unix_time(until, "until")
    if start is not None and end is not None and start > end:
        raise InputError(f"since must not be later than until, got {start:.0f} and {end:.0f}; swap them")
    return start, end


def _first_wrong(norms: NDArray[np.floating]) -> int | None:
    wrong = np.flatnonzero(~(np.abs(norms - 1) <= _NORM_TOLERANCE))  # written so that NaN is wrong too
    return int(wrong[0]) if len(wrong) else None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)
