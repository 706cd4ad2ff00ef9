"""Which queries the figures show: those that the user names, or some at random beside the worst."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dataset import LabelledCrops
from hamr_edge.errors import InputError
from hamr_edge.ranked_list import RankedList

_WORST_SHARE = 3
"""One query in so many is among the worst."""


@dataclass(frozen=True, slots=True)
class ChosenQuery:
    """A query and how it came into the figure."""

    row: int
    reason: str
    """``named``, ``random`` or ``low AP``."""


def find_queries(query: LabelledCrops, names: Sequence[str]) -> list[ChosenQuery]:
    """The queries of these files, in their order; one named twice counts once.

    Args:
        query: The data set's query split.
        names: File names, or paths or their last parts where a name stands for several files.

    Raises:
        InputError: A name is no query's, or that of several.
    """
    rows = [_find_query(query, name) for name in names]
    return [ChosenQuery(row, "named") for row in dict.fromkeys(rows)]


def _find_query(query: LabelledCrops, name: str) -> int:
    parts = Path(name).parts
    found = [row for row, path in enumerate(query.paths) if parts and path.parts[-len(parts) :] == parts]
    if not found:  # the same file by another path
        found = [row for row, path in enumerate(query.paths) if path.resolve() == Path(name).resolve()]
    if len(found) > 1:
        several = ", ".join(str(query.paths[row]) for row in found[:3])
        raise InputError(f"--query {name} names {len(found)} files; write more of the path: {several}")
    if not found:
        known = [path.name for path in query.paths]
        close = difflib.get_close_matches(Path(name).name, known, n=3) or known[:3]
        raise InputError(f"--query {name} is none of the {len(known)} queries, such as {', '.join(close)}")
    return found[0]


def draw_queries(query: LabelledCrops, lists: Sequence[RankedList], count: int, seed: int) -> list[ChosenQuery]:
    """Some queries at random, then those with the lowest average precision: what is usual, and what goes wrong.

    One in three is among the worst. No two are of one identity as long as there are others. Queries without a right
    gallery image are passed over.

    Args:
        query: The data set's query split.
        lists: Each query's ranking.
        count: Queries to choose; there may be fewer.
        seed: Of the random ones.
    """
    scored = np.asarray([row for row, ranked in enumerate(lists) if ranked.is_scored], np.int64)
    worst_count = count // _WORST_SHARE
    shuffled = np.random.default_rng(seed).permutation(scored)
    at_random = _distinct(query.identities, shuffled, count - worst_count, ())
    precisions = np.asarray([lists[row].average_precision for row in scored])
    by_precision = scored[np.argsort(precisions, kind="stable")]
    worst = _distinct(query.identities, by_precision, worst_count, at_random)
    return [
        *(ChosenQuery(row, "random") for row in at_random),
        *(ChosenQuery(row, "low AP") for row in worst),
    ]


def _distinct(identities: NDArray[np.int64], rows: Iterable[int], count: int, taken: Sequence[int]) -> list[int]:
    """The first ``count`` rows that are not taken, those of new identities before the others."""
    seen = {int(identities[row]) for row in taken}
    fresh: list[int] = []
    others: list[int] = []
    for row in (int(row) for row in rows if int(row) not in taken):
        (others if int(identities[row]) in seen else fresh).append(row)
        seen.add(int(identities[row]))
    return (fresh + others)[:count]
