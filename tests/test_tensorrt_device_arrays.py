"""Frames and crops that are on the GPU already, and embeddings that stay there; on the doubles of ``gpu_double``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.errors import InputError
from hamr_edge.tensorrt_backend import TensorrtBackend
from tests.artifacts import EMBEDDING_DIM
from tests.engine_files import MAX_BATCH, embed_by_onnx, noise_crops, noise_frame, some_boxes
from tests.gpu_double import Machine
from tests.gpu_install import device_array


@pytest.mark.parametrize("stream", [None, 1])
@pytest.mark.parametrize("offset", [0, 256, 3])
def test_a_frame_on_the_gpu_is_read_where_it_is(stream: int | None, offset: int, engines: Path, gpu: Machine) -> None:
    frame, boxes = noise_frame(), some_boxes(2 * MAX_BATCH + 1)
    with Embedder(engines / "frame.engine") as embedder:
        expected = embedder.embed(frame, boxes)
        gpu.history.clear()
        device = CudaDevice(0)
        with device:
            there = device_array(frame, stream, offset)
        np.testing.assert_allclose(embedder.embed(there, boxes), expected, atol=1e-6)  # type: ignore[call-overload]
        copies = [label for _, label in gpu.history if "dtod" in label]
        assert bool(copies) == (offset % 256 != 0), "TensorRT reads from multiples of 256 only"
        assert not [label for _, label in gpu.history if "htod" in label and str(frame.nbytes) in label]
        with device:
            there.allocation.free()


def test_what_another_stream_still_writes_is_waited_for(engines: Path, gpu: Machine) -> None:
    old, new, boxes = noise_frame(seed=1), noise_frame(seed=2), some_boxes(3 * MAX_BATCH)
    with Embedder(engines / "frame.engine") as embedder:
        expected = embedder.embed(new, boxes)
        with CudaDevice(0) as device:
            producer = device.driver.Stream(1)
            there, source = device_array(old, producer.handle), device_array(new)
            device.driver.memcpy_dtod_async(there.pointer, source.pointer, new.nbytes, producer)
            rows = embedder.embed(there, boxes)  # type: ignore[call-overload]
            producer.synchronize()
            there.allocation.free()
            source.allocation.free()
            del producer
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_crops_on_the_gpu_are_read_where_they_are(engines: Path, gpu: Machine) -> None:
    batch = noise_crops(2 * MAX_BATCH + 3)
    with TensorrtBackend(engines / "crops.engine") as backend:
        with CudaDevice(0):
            there = device_array(batch)
        for _ in range(2):
            np.testing.assert_allclose(backend.infer(there), embed_by_onnx(engines, batch), atol=1e-6)  # type: ignore[arg-type]
        with CudaDevice(0):
            there.allocation.free()


@pytest.mark.parametrize("count", [0, 5, 3 * MAX_BATCH])
def test_embeddings_can_stay_on_the_gpu(count: int, engines: Path, gpu: Machine) -> None:
    frame, boxes = noise_frame(), some_boxes(count)
    with Embedder(engines / "frame.engine") as embedder:
        expected = embedder.embed(frame, boxes)
        there = embedder.embed(frame, boxes, to_host=False)
        assert there.shape == (count, EMBEDDING_DIM)
        assert there.__cuda_array_interface__["typestr"] == "<f4"
        np.testing.assert_allclose(there.numpy(), expected, atol=1e-6)
        there.release()
    with TensorrtBackend(engines / "crops.engine") as backend:
        crops = noise_crops(count)
        np.testing.assert_allclose(backend.infer_to_device(crops).numpy(), embed_by_onnx(engines, crops), atol=1e-6)


def test_on_other_backends_embeddings_cannot_stay_on_a_gpu(engines: Path) -> None:
    with (
        Embedder(engines / "frame.onnx", device="cpu") as embedder,
        pytest.raises(InputError, match=r"with \.engine artifacts only; this one runs on onnxruntime-cpu"),
    ):
        embedder.embed(noise_frame(), some_boxes(1), to_host=False)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (noise_frame()[:, :, :2], r"frame must be a \(H, W, 3\) uint8 BGR array, got uint8 \(600, 800, 2\)"),
        (noise_frame().astype(np.float32), "got float32"),
        (noise_frame(479, 640), "from 640 x 480 to 3840 x 2160 pixels for this engine, got 640 x 479"),
        (noise_frame(500, 3841), "got 3841 x 500; on the host, any size will do"),
    ],
)
def test_a_wrong_frame_on_the_gpu_is_refused(frame: np.ndarray, message: str, engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "frame.engine") as backend:
        with CudaDevice(0):
            there = device_array(np.ascontiguousarray(frame))
        with pytest.raises(InputError, match=message):
            backend.infer_frame(there, some_boxes(1))  # type: ignore[arg-type]
        with CudaDevice(0):
            there.allocation.free()


def test_crops_on_the_gpu_need_the_crops_form(engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "frame.engine") as backend:
        with CudaDevice(0):
            there = device_array(noise_crops(1))
        with pytest.raises(InputError, match=r"frame\.engine is in the frame form"):
            backend.infer(there)  # type: ignore[arg-type]
        with CudaDevice(0):
            there.allocation.free()
