"""What a benchmark is asked to do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from hamr_edge.benchmarks.budgets import check_budgets
from hamr_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """Settings of one comparison, one command line option a field.

    Raises:
        InputError: A value is out of its range; the message names the option.
    """

    batches: tuple[int, ...] = (1, 8)
    """Batch sizes to time; those above a model's maximum batch are left out."""
    seconds: float = 10.0
    """Time to measure one batch size at least, all contestants together."""
    max_seconds: float = 60.0
    """Time to measure one batch size at most; in between, until the ratios are known to 1 %."""
    min_rounds: int = 10
    """Rounds that are measured whatever the time."""
    warmup_rounds: int = 3
    """Rounds before the measured ones."""
    seed: int = 0
    """Fixes the choice of crops, the resampling, and the order within each round."""
    max_crops: int | None = None
    """Compare on this many crops at most, whole identities; all when None."""
    mirror: bool = False
    """Average each crop's embedding with its mirror image's, for parity and retrieval."""
    device: str = "auto"
    threads: int | None = None
    """CPU threads of one inference; each library's default when None."""
    budgets: tuple[str, ...] = ()
    """``NAME=VALUE`` or ``PRECISION:NAME=VALUE`` in place of a default: :mod:`hamr_edge.benchmarks.budgets`."""
    beside: tuple[str, ...] = ()
    """Models to measure and not to judge; their embeddings may have any width."""
    torch_modes: tuple[str, ...] = ()
    """Ways to run the reference, a checkpoint, in PyTorch besides the plain one: ``bf16``, ``compile``, ..."""
    peers: tuple[str, ...] = ()
    """``NAME=COMMAND``: other programs, each in a process of its own; measured and not judged."""
    input_description: str | None = None
    """What ``.onnx`` files without a sidecar take, such as ``rgb-float-imagenet``."""
    cold_starts: int = 3
    """Fresh processes that each model is started in; 0 leaves that out."""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or len(set(self.batches)) < len(self.batches):
            raise InputError(f"--batch must name different sizes of at least 1, got {self.batches}")
        for option, value, least in (
            ("--min-rounds", self.min_rounds, 1),
            ("--warmup-rounds", self.warmup_rounds, 0),
            ("--seed", self.seed, 0),
            ("--max-crops", self.max_crops, 2),
            ("--threads", self.threads, 1),
            ("--cold-starts", self.cold_starts, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{option} must be at least {least}, got {value}")
        for option, seconds, shortest in (
            ("--seconds", self.seconds, 0.0),
            ("--max-seconds", self.max_seconds, self.seconds),
        ):
            if not (math.isfinite(seconds) and seconds >= shortest):
                raise InputError(f"{option} must be {shortest:g} or more, got {seconds}")
        check_budgets(self.budgets)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
