"""The stages of an engine's run, by events on the lane's stream."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from hamr_edge.backend import open_backend
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.export.engine_export import EngineConfig, export_engine
from hamr_edge.tensorrt_backend import TensorrtBackend
from hamr_edge.tensorrt_library import import_tensorrt
from tests.artifacts import write_tiny_artifact
from tests.engine_files import MAX_BATCH, embed_by_onnx, noise_crops, noise_frame, some_boxes
from tests.gpu_double import Machine
from tests.gpu_install import gpu_doubles

_EVENT = "record an event"


@pytest.mark.parametrize("form", ["crops", "frame"])
def test_events_stand_between_the_stages(form: str, engines: Path, gpu: Machine) -> None:
    frame, boxes, batch = noise_frame(), some_boxes(3), noise_crops(3)
    with TensorrtBackend(engines / f"{form}.engine", lanes=1) as backend:
        for _ in range(3):  # plain, captured, launched again
            begin = len(gpu.history)
            times = backend.infer_frame_stages(frame, boxes) if form == "frame" else backend.infer_stages(batch)
        uploads = 2 if form == "frame" else 1
        labels = [label for _, label in gpu.history[begin:]]
        marks = [place for place, label in enumerate(labels) if label == _EVENT]
        assert len(marks) == 4, labels
        assert marks[0] == 0
        assert marks[1] == 1 + uploads
        assert all("htod" in label for label in labels[1 : marks[1]])
        assert all("htod" not in label and "dtoh" not in label for label in labels[marks[1] : marks[2]])
        assert marks[2] - marks[1] > 1, "nothing ran"
        assert "dtoh" in labels[marks[2] + 1]
        assert marks[3] == len(labels) - 1 == marks[2] + 2
        assert min(times.upload_ms, times.compute_ms, times.download_ms) >= 0
        assert len({stream for stream, _ in gpu.history[begin:]}) == 1


def test_inference_itself_has_no_events(engines: Path, one_gpu: Machine) -> None:
    batch = noise_crops(4)
    with TensorrtBackend(engines / "crops.engine", lanes=1) as backend:
        for _ in range(3):
            backend.infer(batch)
        assert one_gpu.counts["cuEventCreate"] == 0
        backend.infer_stages(batch)
        backend.infer_stages(batch)
        assert one_gpu.counts["cuEventCreate"] == 4, "the lane keeps its events"
        recorded = one_gpu.counts["cuEventRecord"]
        np.testing.assert_allclose(backend.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)
        assert one_gpu.counts["cuEventRecord"] == recorded
    assert one_gpu.events == 0


def test_a_refused_run_is_told_and_the_lane_goes_on(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noise_crops(3)
    with gpu_doubles(monkeypatch) as machine, TensorrtBackend(engines / "crops.engine", lanes=1) as backend:
        machine.options.execute_error = "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (an illegal access)"
        with pytest.raises(HamrEdgeError, match=r"does not run images.*an illegal access"):
            backend.infer_stages(batch)
        machine.options.execute_error = ""
        assert backend.infer_stages(batch).compute_ms >= 0
        np.testing.assert_allclose(backend.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)


def test_a_frame_that_the_engine_does_not_crop_has_no_stages(engines: Path, one_gpu: Machine) -> None:
    with (
        TensorrtBackend(engines / "frame.engine") as backend,
        pytest.raises(InputError, match=r"up to 3840 x 2160 pixels.*got 800 x 2161"),
    ):
        backend.infer_frame_stages(noise_frame(2161, 800), some_boxes(2))


def test_the_double_of_an_event_is_as_strict_as_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_doubles(monkeypatch) as machine, CudaDevice():
        driver = import_module("pycuda.driver")
        stream, first, second, untimed = driver.Stream(1), driver.Event(), driver.Event(), driver.Event(2)
        with pytest.raises(driver.LogicError, match="cuEventElapsedTime failed: invalid resource handle"):
            first.time_till(second)
        for event in (first, second, untimed):
            event.record(stream)
        with pytest.raises(AssertionError, match="device not ready"):
            first.time_till(second)
        stream.synchronize()
        assert first.time_till(second) == second.time_since(first) == -first.time_since(second) >= 0
        with pytest.raises(driver.LogicError, match="invalid resource handle"):
            first.time_till(untimed)
        assert len(machine.faults) == 1
        machine.faults.clear()
        del first, second, untimed, event, stream


@pytest.mark.gpu
def test_on_a_gpu_stages_add_up_to_about_the_whole(tmp_path: Path) -> None:
    try:
        CudaDevice(0)
        import_tensorrt()
    except UnavailableError as error:
        pytest.skip(str(error))
    path, _ = export_engine(write_tiny_artifact(tmp_path / "tiny.onnx", MAX_BATCH), tmp_path, EngineConfig())
    with open_backend(path) as backend:
        for _ in range(5):
            times = backend.infer_stages(noise_crops(MAX_BATCH))
        assert 0 < times.compute_ms < 100
        assert 0 < times.upload_ms < 100
        assert 0 < times.download_ms < 100
