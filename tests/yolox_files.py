"""Tiny YOLOX files whose output is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from tests.detector_files import SIZE_HW, Box, plant_people, write_detector

__all__ = ["SIZE_HW", "write_yolox", "yolox_output"]


def yolox_output(people: list[tuple[int, Box, float]]) -> np.ndarray:
    """Raw output (A, 5 + classes) with people: (anchor, xyxy in canvas pixels, score)."""
    return plant_people("yolox", people)["output"]


def write_yolox(path: Path, output: np.ndarray, dtype: int = TensorProto.FLOAT) -> Path:
    """A model with that constant output."""
    return write_detector(path, {"output": output}, dtype=dtype)
