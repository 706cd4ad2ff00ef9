"""Do different people come out different? A network that is fed wrongly makes everybody look alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Separation:
    """Cosines of pairs of a query and a gallery crop; pairs of one person and one camera are left out."""

    same: float
    """Mean over pairs of one person."""
    different: float
    """Mean over pairs of different people."""
    d_prime: float
    """``(same - different) / sqrt((variance_same + variance_different) / 2)``: how far apart the two lie, in their own
    standard deviations (Green and Swets, 1966). 0 where both variances are 0."""


def separate(genuine: NDArray[np.float32], mean: float, variance: float) -> Separation:
    """How far pairs of one person lie from pairs of different people.

    Args:
        genuine: (P,) cosines of pairs of one person, at least one.
        mean: Of the cosines of pairs of different people.
        variance: Of the same.
    """
    same = float(np.mean(genuine, dtype=np.float64))
    spread = np.sqrt((float(np.var(genuine, dtype=np.float64)) + variance) / 2)
    return Separation(same, mean, float((same - mean) / spread) if spread > 0 else 0.0)
