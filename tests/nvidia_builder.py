"""NVIDIA's builder in tests: it parses and builds on a CPU, but runs nothing there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from hamr_edge.errors import UnavailableError
from hamr_edge.export.engine_builder import build_engine
from hamr_edge.tensorrt_library import import_tensorrt
from tests.enterprise_bindings import STRICT


def build_with_nvidia(path: Path, max_batch: int = 8) -> bytes:
    """Build the plan of an ONNX file, in either form; the test is skipped where no builder is installed.

    Raises:
        InputError: NVIDIA's parser or builder rejects the file.
    """
    return build_engine(nvidia_builder(), path, max_batch).plan


def nvidia_builder() -> Any:
    """TensorRT for RTX, which needs no GPU to build; the test is skipped without it."""
    try:
        return import_tensorrt(("tensorrt_rtx_bindings",))
    except UnavailableError as error:
        skip_unless_strict(str(error))


def skip_unless_strict(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get(STRICT):
        pytest.fail(f"{reason}; {STRICT} is set, so nothing is skipped", pytrace=False)
    pytest.skip(reason)
