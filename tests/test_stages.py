from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from hamr_edge.backend import open_backend
from hamr_edge.benchmarks.stages import StageSplit, measure_stages
from hamr_edge.embedder import Embedder
from hamr_edge.errors import InputError
from hamr_edge.onnx_backend import OnnxBackend
from hamr_edge.stage_times import StageTimes, time_steps
from tests.artifacts import write_tiny_frame_artifact
from tests.engine_files import noise_frame, some_boxes

_WORK_S = 0.004
"""Far above what the tiny network and this machine's clock take."""


def _measure(backend: OnnxBackend, boxes: int = 3, seed: int = 0) -> StageSplit:
    rng = np.random.default_rng(seed)
    return measure_stages(backend, noise_frame(), some_boxes(boxes), rng, seconds=0, min_rounds=5, warmup_rounds=1)


def test_time_is_found_in_the_stage_that_takes_it(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow crop, a slow network, and a slow step between that is in no stage: overhead."""
    crop, infer = Embedder.crop, OnnxBackend.infer

    def slow_crop(embedder: Embedder, frame: np.ndarray, boxes: object) -> np.ndarray:
        time.sleep(_WORK_S)
        return crop(embedder, frame, boxes)  # type: ignore[arg-type]

    def slow_stages(backend: OnnxBackend, batch: np.ndarray) -> StageTimes:
        return StageTimes(upload_ms=2.0, compute_ms=3.0, download_ms=1.0)

    def slow_infer(backend: OnnxBackend, batch: np.ndarray) -> np.ndarray:
        time.sleep(5 * _WORK_S)
        return infer(backend, batch)

    monkeypatch.setattr(Embedder, "crop", slow_crop)
    monkeypatch.setattr(OnnxBackend, "infer_stages", slow_stages)
    monkeypatch.setattr(OnnxBackend, "infer", slow_infer)
    with OnnxBackend(tiny_artifact, "cpu", threads=1) as backend:
        found = _measure(backend)
    assert (found.upload_ms, found.compute_ms, found.download_ms) == (2.0, 3.0, 1.0)
    assert found.crop_ms >= 1000 * _WORK_S
    assert found.end_to_end_ms >= 6000 * _WORK_S
    # At least 24 ms against 4 and 6: a machine that sleeps longer than it is told makes both longer.
    assert found.overhead > 0.3
    assert (found.boxes, found.iterations) == (3, 5)


def test_the_stages_of_a_cpu_are_cropping_and_computing(tiny_artifact: Path) -> None:
    with OnnxBackend(tiny_artifact, "cpu", threads=1) as backend:
        found = _measure(backend)
        assert found.upload_ms == found.download_ms == 0
        assert found.crop_ms > 0
        assert 0 < found.compute_ms < found.end_to_end_ms
        with pytest.raises(InputError, match="of 1 to 8 crops; got 9"):
            _measure(backend, boxes=9)


def test_the_frame_form_has_no_cropping_outside(tmp_path: Path) -> None:
    with OnnxBackend(write_tiny_frame_artifact(tmp_path / "tiny.onnx"), "cpu", threads=1) as backend:
        found = _measure(backend)
    assert found.crop_ms == 0
    assert found.compute_ms > 0
    assert found.end_to_end_ms > 0


def test_buffers_on_a_device_are_filled_and_read_apart(tiny_artifact: Path) -> None:
    with OnnxBackend(tiny_artifact, "cpu", threads=1, device_buffers=True) as backend:
        times = backend.infer_stages(np.zeros((4, 32, 16, 3), np.uint8))
    assert min(times.upload_ms, times.compute_ms, times.download_ms) > 0


def test_steps_are_told_apart() -> None:
    steps: list[str] = []

    def step(name: str, seconds: float) -> None:
        steps.append(name)
        time.sleep(seconds)

    found = time_steps(lambda: step("up", 0.002), lambda: step("run", 0.02), lambda: step("down", 0.002))
    assert steps == ["up", "run", "down"]
    assert found.compute_ms >= 20 > 2 <= min(found.upload_ms, found.download_ms)


def test_more_than_the_seconds_are_measured(tiny_artifact: Path) -> None:
    with open_backend(tiny_artifact, "cpu", threads=1) as backend:
        frame, boxes = noise_frame(), some_boxes(1)
        begin = time.perf_counter()
        found = measure_stages(backend, frame, boxes, np.random.default_rng(0), 0.2, 1, 0)
        assert time.perf_counter() - begin >= 0.2
        assert found.iterations > 1
