from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hamr_edge.errors import UnavailableError
from hamr_edge.machine import nvidia_gpus
from hamr_edge.onnx_backend import OnnxBackend
from hamr_edge.onnx_session import resolve_device
from tests.artifacts import INPUT_SIZE_HW, write_tiny_artifact, write_tiny_frame_artifact
from tests.check_backend import check_backend

DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]
WRITERS = {"crops": write_tiny_artifact, "frame": write_tiny_frame_artifact}


def _bound(artifact: Path, device: str) -> OnnxBackend:
    """A backend with buffers on its device, also where that is the CPU."""
    if device != "cpu" and not nvidia_gpus():
        pytest.skip("nvidia-smi names no GPU")
    try:
        resolve_device(device)
    except UnavailableError as error:
        pytest.skip(str(error))
    return OnnxBackend(artifact, device, threads=1, device_buffers=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("max_batch", [1, 8])
def test_buffers_on_the_device_keep_the_contract(tmp_path: Path, form: str, max_batch: int, device: str) -> None:
    check_backend(_bound(WRITERS[form](tmp_path / "tiny.onnx", max_batch), device))


@pytest.mark.parametrize("device", DEVICES)
def test_batches_of_any_order_of_sizes_are_those_of_plain_feeds(tiny_artifact: Path, device: str) -> None:
    rng = np.random.default_rng(3)
    with OnnxBackend(tiny_artifact, "cpu", threads=1) as plain, _bound(tiny_artifact, device) as bound:
        for count in (8, 3, 1, 7, 8, 2, 19):
            batch = rng.integers(0, 256, (count, *INPUT_SIZE_HW, 3), np.uint8)
            np.testing.assert_allclose(bound.infer(batch), plain.infer(batch), atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_frames_of_any_order_of_sizes_are_those_of_plain_feeds(tmp_path: Path, device: str) -> None:
    artifact = write_tiny_frame_artifact(tmp_path / "tiny.onnx")
    rng = np.random.default_rng(4)
    with OnnxBackend(artifact, "cpu", threads=1) as plain, _bound(artifact, device) as bound:
        for height, width in ((90, 120), (240, 320), (31, 17), (239, 321), (240, 320), (1, 1)):
            frame = rng.integers(0, 256, (height, width, 3), np.uint8)
            boxes = [[-5, -2, width, height], [0, 0, width / 2 + 1, height / 2 + 1]]
            np.testing.assert_allclose(
                bound.infer_frame(frame, boxes), plain.infer_frame(frame, boxes), atol=1e-5, err_msg=str(frame.shape)
            )


@pytest.mark.parametrize("device", DEVICES)
def test_threads_take_turns_at_the_buffers(tiny_artifact: Path, device: str) -> None:
    rng = np.random.default_rng(5)
    batches = [rng.integers(0, 256, (count, *INPUT_SIZE_HW, 3), np.uint8) for count in (8, 1, 5, 3)]
    with _bound(tiny_artifact, device) as backend, ThreadPoolExecutor(4) as pool:
        expected = [backend.infer(batch) for batch in batches]
        for _ in range(20):
            for found, wanted in zip(pool.map(backend.infer, batches), expected, strict=True):
                np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("form", WRITERS)
def test_cuda_gives_what_the_cpu_gives(tmp_path: Path, form: str) -> None:
    """Strict: no node but arithmetic on sizes is on the CPU."""
    artifact = WRITERS[form](tmp_path / "tiny.onnx")
    batch = np.random.default_rng(6).integers(0, 256, (8, *INPUT_SIZE_HW, 3), np.uint8)
    with _bound(artifact, "cuda:0") as cuda, OnnxBackend(artifact, "cpu", threads=1) as cpu:
        assert cuda.name == "onnxruntime-cuda"
        np.testing.assert_allclose(cuda.infer(batch), cpu.infer(batch), atol=1e-4)
