"""How much a quantised network may lose."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hamr_edge.calibration.held_out import Loss
from hamr_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class Budget:
    """Most that may be lost on held-out people.

    Raises:
        InputError: A value is out of its range; the message names the option.
    """

    max_map_drop: float = 0.5
    """Percentage points of mAP."""
    max_rank1_drop: float = 0.3
    """Percentage points of rank-1; above 0, at least one query's worth."""
    min_p01_cosine: float = 0.98
    """The least 1st percentile of the crops' cosines to the float32 network."""

    def __post_init__(self) -> None:
        for option, value, high in (
            ("--max-map-drop", self.max_map_drop, 100.0),
            ("--max-rank1-drop", self.max_rank1_drop, 100.0),
            ("--min-p01-cosine", self.min_p01_cosine, 1.0),
        ):
            if not (math.isfinite(value) and 0 <= value <= high):
                raise InputError(f"{option} must be within 0..{high:g}, got {value}")

    def misses(self, loss: Loss, queries: int) -> Iterator[str]:
        """A sentence for each part of the budget that a loss is beyond.

        Args:
            loss: What was measured.
            queries: Queries that it was measured on. One query more or less tells nothing, so a rank-1 budget above 0
                is at least one query's worth.
        """
        rank1_drop = max(self.max_rank1_drop, 100 / queries) if self.max_rank1_drop else 0.0
        for name, option, drop, allowed, after in (
            ("mAP", "--max-map-drop", loss.map_drop, self.max_map_drop, loss.map),
            ("rank-1", "--max-rank1-drop", loss.rank1_drop, rank1_drop, loss.rank1),
        ):
            if not drop <= allowed + 1e-9:
                yield (
                    f"{name} fell {drop:.2f} points to {100 * after:.2f} % on {queries} held-out queries, "
                    f"{allowed:.2f} may be lost ({option})"
                )
        if not loss.p01_cosine >= self.min_p01_cosine:
            yield (
                f"1st percentile of the cosine to the float32 network is {loss.p01_cosine:.4f}, at least "
                f"{self.min_p01_cosine:g} is asked (--min-p01-cosine)"
            )
