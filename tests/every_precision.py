"""The settings of an export of every precision and form, small enough for tests."""

from __future__ import annotations

from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CalibrationConfig
from hamr_edge.export.config import FORMS, PRECISIONS, ExportConfig

LOOSE = Budget(max_map_drop=20, max_rank1_drop=20, min_p01_cosine=0.5)
"""The tests' network has 12 values and learnt little: it is no measure of int8."""
CONFIG = ExportConfig(PRECISIONS, FORMS, max_batch=4, calibration=CalibrationConfig(24, batch_size=8), budget=LOOSE)
