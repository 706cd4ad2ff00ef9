"""What a benchmark is asked to do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from hamr_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """Settings of one comparison, one command line option a field.

    The budgets that are None follow from each artifact's precision: see :mod:`hamr_edge.benchmarks.verdict`.

    Raises:
        InputError: A value is out of its range; the message names the option.
    """

    batches: tuple[int, ...] = (1, 8)
    """Batch sizes to time; those above an artifact's maximum batch are left out."""
    seconds: float = 10.0
    """Time to measure one batch size, all contestants together."""
    min_rounds: int = 10
    """Rounds that are measured even where ``seconds`` are over."""
    warmup_rounds: int = 3
    """Rounds before the measured ones."""
    seed: int = 0
    """Fixes the choice of crops and the order within each round."""
    max_crops: int | None = None
    """Compare on this many crops at most, whole identities; all when None."""
    mirror: bool = False
    """Average each crop's embedding with its mirror image's, for parity and retrieval."""
    device: str = "auto"
    threads: int | None = None
    """CPU threads of one inference; each library's default when None."""
    min_cosine: float | None = None
    """The least cosine that any crop may have to the reference."""
    p01_cosine: float | None = None
    """The least 1st percentile of the crops' cosines."""
    max_map_drop: float | None = None
    """Most mAP that may be lost, in percentage points."""
    max_rank1_drop: float | None = None
    """Most rank-1 that may be lost, in percentage points."""
    min_speedup: float | None = None
    """The least median speedup at every batch size; not checked when None."""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or len(set(self.batches)) < len(self.batches):
            raise InputError(f"--batch must name different sizes of at least 1, got {self.batches}")
        for option, value, least in (
            ("--min-rounds", self.min_rounds, 1),
            ("--warmup-rounds", self.warmup_rounds, 0),
            ("--seed", self.seed, 0),
            ("--max-crops", self.max_crops, 2),
            ("--threads", self.threads, 1),
        ):
            if value is not None and value < least:
                raise InputError(f"{option} must be at least {least}, got {value}")
        _check_range("--seconds", self.seconds, 0.0, math.inf)
        _check_range("--min-cosine", self.min_cosine, -1.0, 1.0)
        _check_range("--p01-cosine", self.p01_cosine, -1.0, 1.0)
        _check_range("--max-map-drop", self.max_map_drop, 0.0, 100.0)
        _check_range("--max-rank1-drop", self.max_rank1_drop, 0.0, 100.0)
        _check_range("--min-speedup", self.min_speedup, 0.0, math.inf)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {**asdict(self), "batches": list(self.batches)}


def _check_range(option: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"{option} must be within {low:g}..{high:g}, got {value}")
