from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.artifacts import write_tiny_artifact


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny .onnx with its sidecar: input 32 x 16, 12 values, batches up to 8."""
    return write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx")


@pytest.fixture
def frame() -> np.ndarray:
    """A (120, 160, 3) uint8 frame of noise."""
    return np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data that HAMR_DATA names; the test is skipped without it."""
    root = os.environ.get("HAMR_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("HAMR_DATA does not name a folder of real data")
    return Path(root)
