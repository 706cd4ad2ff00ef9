"""Settings of a calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hamr_edge.errors import InputError

CALIBRATORS = ("minmax", "percentile", "entropy", "mse")
"""The rules that turn a tensor's histogram into its threshold; :mod:`hamr_edge.calibration.calibrators`."""


@dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """Which crops are run through the network, and which rule chooses the thresholds."""

    crops: int = 512
    """Training crops to calibrate on; all of them where the data set has fewer."""
    calibrator: str = "auto"
    """One of ``CALIBRATORS``; ``auto`` tries all and keeps the one with the best mAP."""
    seed: int = 0
    """Chooses the crops."""
    allow_random: bool = False
    """Calibrate on noise where there is no data set. The scales are then of noise: for trying out only."""
    batch_size: int = 16
    """Crops run at once."""

    def __post_init__(self) -> None:
        if self.calibrator not in ("auto", *CALIBRATORS):
            raise InputError(f"calibrator must be auto or one of {', '.join(CALIBRATORS)}, got {self.calibrator!r}")
        if self.crops < 1:
            raise InputError(f"calibration crops must be at least 1, got {self.crops}")
        if self.seed < 0:
            raise InputError(f"calibration seed must be at least 0, got {self.seed}")
        if not 1 <= self.batch_size <= 1024:
            raise InputError(f"calibration batch_size must be in 1..1024, got {self.batch_size}")

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON holds them, one entry a field."""
        return asdict(self)
