"""The settings of an export of every precision and form, small enough for tests."""

from __future__ import annotations

from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CalibrationConfig
from hamr_edge.export.config import FORMS, PRECISIONS, ExportConfig

LOOSE = Budget(max_map_drop=50, max_rank1_drop=50, min_p01_cosine=0.3)
"""The tests' network has 12 values and learnt little: no measure of int8, and another one on another CPU."""
CONFIG = ExportConfig(
    PRECISIONS, FORMS, max_batch=4, min_cosine=0.5, calibration=CalibrationConfig(24, batch_size=8), budget=LOOSE
)
