"""How well a mean over queries is known: the bootstrap (Efron, Annals of Statistics, 1979)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError

_RESAMPLES = 2000
_BLOCK = 250
"""Resamples at once: their weights are an array of this many rows."""


def mean_interval(differences: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean; of paired differences, that is the paired bootstrap.

    Args:
        differences: (Q,) one value a query: after less before.
        seed: Fixes the resamples.

    Raises:
        InputError: There is none.
    """
    count = len(differences)
    if not count:
        raise InputError("an interval needs at least one value")
    rng = np.random.default_rng(seed)
    share = np.full(count, 1 / count)
    means = np.concatenate(
        [rng.multinomial(count, share, _BLOCK) @ differences / count for _ in range(_RESAMPLES // _BLOCK)]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
