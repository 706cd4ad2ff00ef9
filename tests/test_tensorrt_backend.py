"""The TensorRT backend on doubles of PyCUDA, cuda-bindings and TensorRT, which compute with ONNX Runtime.

The doubles run work as late or as oddly as its streams allow, and report what is not ordered, not current or not given
back: see ``gpu_double``. Tests marked ``gpu`` hold the same backend against a real device.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder
from hamr_edge.backend import open_backend
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.cuda_graphs import CudaGraphs
from hamr_edge.engine_parts import frame_parts
from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.export.engine_export import EngineConfig, export_engine
from hamr_edge.preprocess import crop_boxes
from hamr_edge.sidecar import load_sidecar, sidecar_path, write_sidecar
from hamr_edge.tensorrt_backend import TensorrtBackend
from hamr_edge.tensorrt_library import import_tensorrt
from tests.artifacts import EMBEDDING_DIM, INPUT_SIZE_HW, write_tiny_artifact, write_tiny_frame_artifact
from tests.check_backend import check_backend
from tests.engine_files import MAX_BATCH, embed_by_onnx, noise_crops, noise_frame, some_boxes
from tests.gpu_double import Machine
from tests.gpu_install import gpu_doubles
from tests.tensorrt_context_double import IExecutionContext


@pytest.mark.parametrize("form", ["crops", "frame"])
@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_the_backend_keeps_the_contract(form: str, lanes: int, engines: Path, gpu: Machine) -> None:
    check_backend(TensorrtBackend(engines / f"{form}.engine", lanes=lanes))


def test_an_engine_is_opened_by_its_suffix_and_says_where_it_runs(engines: Path, one_gpu: Machine) -> None:
    with Embedder(engines / "crops.engine", device="auto") as embedder:
        assert (embedder.backend_name, embedder.device) == ("tensorrt-cuda", "cuda:0")
        frame, boxes = noise_frame(), some_boxes(5)
        rows = embedder.embed(frame, boxes)
    np.testing.assert_allclose(rows, embed_by_onnx(engines, crop_boxes(frame, boxes, INPUT_SIZE_HW)), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 16, 17, 40])
def test_any_number_of_crops(count: int, engines: Path, gpu: Machine) -> None:
    batch = noise_crops(count)
    with TensorrtBackend(engines / "crops.engine") as backend:
        for _ in range(3):  # plain, captured, launched again
            np.testing.assert_allclose(backend.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)


def test_batches_run_in_buckets(engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "crops.engine", lanes=1) as backend:
        for count in (1, 2, 3, 4, 5, 7, 8):
            backend.infer(noise_crops(count))
    assert [run.shapes["images"][0] for run in one_gpu.runs if not run.by_graph][:3] == [1, 2, 4]
    assert {run.shapes["images"][0] for run in one_gpu.runs} == {1, 2, 4, 8}


def test_what_comes_again_is_launched_as_a_graph(engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "crops.engine", lanes=1) as backend:
        for _ in range(5):
            backend.infer(noise_crops(4))
        counts = one_gpu.counts
        assert (counts["captures"], counts["launches"]) == (1, 4)
        backend.infer(noise_crops(3))  # of the same bucket
        assert (counts["captures"], counts["launches"]) == (1, 5)
    assert [run.by_graph for run in one_gpu.runs] == [False, False, True, True, True, True, True]


def test_each_graph_has_a_context_of_its_own(engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "crops.engine", lanes=1) as backend:
        for _ in range(2):
            for count in (1, 2, 8):
                backend.infer(noise_crops(count))
    assert one_gpu.counts["create_execution_context"] == 1 + 3


def test_a_frame_travels_once_a_lane(engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "frame.engine") as backend:
        backend.infer_frame(noise_frame(), some_boxes(4 * MAX_BATCH))
    frame_bytes = 600 * 800 * 3
    uploads = [label for _, label in one_gpu.history if "htod" in label]
    assert len([label for label in uploads if str(frame_bytes) in label]) == 2, uploads


def test_two_lanes_work_in_turn(engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "crops.engine") as backend:
        one_gpu.history.clear()
        backend.infer(noise_crops(4 * MAX_BATCH))
    uploads = [stream for stream, label in one_gpu.history if "htod" in label]
    first, second = uploads[:2]
    assert first != second
    assert uploads == [first, second] * 2


@pytest.mark.parametrize("fails", ["begin", "enqueue", "end", "instantiate"])
def test_without_capture_runs_are_plain(
    fails: str, engines: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = noise_crops(4)
    caplog.set_level(logging.DEBUG, "hamr_edge")
    with (
        gpu_doubles(monkeypatch, capture_fails=fails) as machine,
        TensorrtBackend(engines / "crops.engine", lanes=1) as backend,
    ):
        for _ in range(4):
            np.testing.assert_allclose(backend.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)
        assert machine.counts["launches"] == 0
        assert machine.counts["cudaGetLastError"], "the error would be found by the next library that asks"
    assert any("CUDA" in record.message for record in caplog.records)


def test_without_cuda_bindings_runs_are_plain(
    engines: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = noise_crops(4)
    caplog.set_level(logging.DEBUG, "hamr_edge")
    with (
        gpu_doubles(monkeypatch, cuda_bindings=False) as machine,
        TensorrtBackend(engines / "crops.engine") as backend,
    ):
        for _ in range(3):
            np.testing.assert_allclose(backend.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)
        assert machine.counts["launches"] == 0
    assert "no CUDA graphs: cuda-bindings cannot be had" in caplog.text


def test_a_second_engine_opens_while_the_first_one_captures(
    engines: Path, one_gpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = TensorrtBackend(engines / "frame.engine")
    capture = CudaGraphs.capture

    def open_meanwhile(graphs: CudaGraphs, stream: int, enqueue: Callable[[], bool]) -> object:
        def enqueue_and_open() -> bool:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(second.open).result()
            return enqueue()

        return capture(graphs, stream, enqueue_and_open)

    monkeypatch.setattr(CudaGraphs, "capture", open_meanwhile)
    batch = noise_crops(4)
    with TensorrtBackend(engines / "crops.engine", lanes=1) as first:
        for _ in range(3):
            np.testing.assert_allclose(first.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)
    second.close()
    assert one_gpu.counts["launches"] == 2


def test_many_threads_share_an_engine(engines: Path, gpu: Machine) -> None:
    batches = [noise_crops(count, seed) for seed, count in enumerate([1, 3, 8, 9, 20, 2] * 4)]
    expected = [embed_by_onnx(engines, batch) for batch in batches]
    with TensorrtBackend(engines / "crops.engine", lanes=2) as backend, ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            for rows, right in zip(pool.map(backend.infer, batches), expected, strict=True):
                np.testing.assert_allclose(rows, right, atol=1e-6)


def test_closing_refuses_calls_that_wait(engines: Path, one_gpu: Machine) -> None:
    backend = TensorrtBackend(engines / "crops.engine", lanes=1)
    backend.open()
    pool = backend._pool
    assert pool is not None
    told: list[str] = []

    def call() -> None:
        try:
            backend.infer(noise_crops(1))
        except HamrEdgeError as error:
            told.append(str(error))

    with pool.borrow(1):
        waiting = [threading.Thread(target=call) for _ in range(3)]
        for thread in waiting:
            thread.start()
        closing = threading.Thread(target=backend.close)
        closing.start()
    for thread in (*waiting, closing):
        thread.join(10)
        assert not thread.is_alive()
    assert all("closed" in words or "not open" in words for words in told)
    for _ in range(2):  # nobody waits for ever, however many come
        with pytest.raises(HamrEdgeError, match="closed while a call waited"), pool.borrow(1):
            pass
    with pytest.raises(HamrEdgeError, match="not open"):
        backend.infer(noise_crops(1))


def test_lanes_do_not_wait_for_the_default_stream(engines: Path, one_gpu: Machine) -> None:
    with TensorrtBackend(engines / "crops.engine"):
        assert [stream.blocking for stream in one_gpu.streams.created()] == [False, False]


def test_boxes_that_pad_a_bucket_are_boxes_of_the_frame() -> None:
    sent: dict[str, np.ndarray] = {}

    class Lane:
        def pinned(self, name: str, size: int) -> np.ndarray:
            return sent.setdefault(name, np.full(size, 255, np.uint8))

        def upload(self, name: str, size: int) -> None:
            assert sent[name].nbytes == size

        def execute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
            assert (shapes, addresses) == ({"frame": (600, 800, 3), "boxes": (8, 4)}, {})

    boxes = some_boxes(5)
    (part,) = frame_parts(noise_frame(), boxes, (1, 2, 4, 8), (480, 640))
    part.start(Lane())  # type: ignore[arg-type]
    padded = sent["boxes"].view(np.float32).reshape(8, 4)
    np.testing.assert_array_equal(padded, np.concatenate([boxes, boxes[[0, 0, 0]]]))


@pytest.mark.parametrize("size", [(10, 12), (479, 641), (480, 640), (2160, 3840), (2161, 300), (300, 4000)])
def test_frames_of_any_size_on_the_host(size: tuple[int, int], engines: Path, one_gpu: Machine) -> None:
    height, width = size
    rng = np.random.default_rng(height)
    first = rng.uniform(-5, [width - 1, height - 1], (9, 2))
    boxes = np.concatenate([first, first + rng.uniform(1, 40, (9, 2)) + 5], axis=1)
    boxes[0] = [width - 0.4, 0, width + 3, height]  # less than half a pixel of the last column
    frame = noise_frame(height, width)
    with TensorrtBackend(engines / "frame.engine") as backend:
        rows = backend.infer_frame(frame, boxes)
    np.testing.assert_allclose(rows, embed_by_onnx(engines, crop_boxes(frame, boxes, INPUT_SIZE_HW)), atol=1e-5)


def test_an_engine_runs_on_no_cpu(engines: Path, one_gpu: Machine) -> None:
    with pytest.raises(InputError, match=r"runs on NVIDIA GPUs only; take the \.onnx"):
        open_backend(engines / "crops.engine", "cpu")
    with pytest.raises(UnavailableError, match="cuda:1 was asked for, but the driver sees 1 GPU"):
        open_backend(engines / "crops.engine", "cuda:1")
    with pytest.raises(InputError, match="lanes must be at least 1, got 0"):
        TensorrtBackend(engines / "crops.engine", lanes=0)


def test_the_second_gpu_is_used_where_it_is_asked_for(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noise_crops(20)
    with gpu_doubles(monkeypatch, gpus=2) as machine, TensorrtBackend(engines / "crops.engine", "cuda:1") as backend:
        assert backend.device == "cuda:1"
        np.testing.assert_allclose(backend.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)
        assert machine.memory[0].blocks == {}


def test_without_memory_nothing_is_left_behind(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_doubles(monkeypatch, memory_bytes=40_000_000) as machine:
        backend = TensorrtBackend(engines / "frame.engine")
        with pytest.raises(UnavailableError, match=r"no memory left for this engine.*smaller --batch"):
            backend.open()
        assert not backend.is_open
        assert machine.memory[0].blocks == {}


def test_a_refused_run_is_told_and_the_backend_goes_on(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noise_crops(20)
    with gpu_doubles(monkeypatch) as machine, TensorrtBackend(engines / "crops.engine") as backend:
        machine.options.execute_error = "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (an illegal access)"
        with pytest.raises(HamrEdgeError, match=r"does not run images \(8, 32, 16, 3\).*an illegal access"):
            backend.infer(batch)
        machine.options.execute_error = ""
        np.testing.assert_allclose(backend.infer(batch), embed_by_onnx(engines, batch), atol=1e-6)


def test_shapes_that_tensorrt_cannot_work_out_are_told(
    engines: Path, one_gpu: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(context: IExecutionContext) -> list[str]:
        raise RuntimeError("inferShapes returned an error")

    with TensorrtBackend(engines / "crops.engine") as backend:
        with monkeypatch.context() as patch:
            patch.setattr(IExecutionContext, "infer_shapes", fail)
            with pytest.raises(HamrEdgeError, match=r"finds no shapes for .*images.*: inferShapes returned an error"):
                backend.infer(noise_crops(3))
        assert backend.infer(noise_crops(3)).shape == (3, EMBEDDING_DIM)


def test_an_unchecked_engine_says_so(
    engines: Path, tmp_path: Path, one_gpu: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "crops.engine"
    path.write_bytes((engines / "crops.engine").read_bytes())
    sidecar = replace(load_sidecar(engines / "crops.engine"), parity={"unchecked": "there is no GPU here"})
    write_sidecar(sidecar, sidecar_path(path))
    with TensorrtBackend(path) as backend:
        backend.infer(noise_crops(1))
    assert "was published unchecked (there is no GPU here)" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["crops", "frame"])
def test_on_a_gpu_the_same_holds(form: str, tmp_path: Path) -> None:
    """Build, check, publish and run on the real thing; then frames that PyTorch has on the GPU."""
    try:
        CudaDevice(0)
        import_tensorrt()
    except UnavailableError as error:
        pytest.skip(str(error))
    write = write_tiny_frame_artifact if form == "frame" else write_tiny_artifact
    model = write(tmp_path / "tiny.onnx", MAX_BATCH)
    path, _ = export_engine(model, tmp_path, EngineConfig())
    check_backend(TensorrtBackend(path), atol=1e-3)
    batch = noise_crops(5)
    with open_backend(model, "cpu") as reference, TensorrtBackend(path) as backend:
        for _ in range(3):
            np.testing.assert_allclose(backend.infer(batch), reference.infer(batch), atol=1e-3)
    torch = pytest.importorskip("torch")
    if form == "frame" and torch.cuda.is_available():
        with Embedder(path) as embedder:
            frame, boxes = noise_frame(), some_boxes(5)
            there = embedder.embed(torch.from_numpy(frame).cuda(), boxes, to_host=False)
            rows = torch.from_dlpack(there).cpu().numpy()
            np.testing.assert_allclose(rows, embedder.embed(frame, boxes), atol=1e-3)
