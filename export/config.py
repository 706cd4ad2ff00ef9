"""Settings of an export."""

from __future__ import annotations

from dataclasses import dataclass

from hamr_edge.errors import InputError

PRECISIONS = ("fp32",)


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to export and how it is checked."""

    precisions: tuple[str, ...] = ("fp32",)
    max_batch: int = 32
    """Largest batch of the artifact; the runtime splits larger ones."""
    min_cosine: float = 0.99999
    """Every crop's embedding must agree with PyTorch's at least this well, at every batch size tried."""
    seed: int = 0
    """Chooses the crops of the check."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.precisions if name not in PRECISIONS]
        if unknown or not self.precisions:
            raise InputError(f"precision must be of {', '.join(PRECISIONS)}, got {', '.join(unknown) or 'nothing'}")
        if not 1 <= self.max_batch <= 1024:
            raise InputError(f"max_batch must be in 1..1024, got {self.max_batch}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, got {self.seed}")
        if not 0 < self.min_cosine < 1:
            raise InputError(f"min_cosine must be between 0 and 1, got {self.min_cosine}")
