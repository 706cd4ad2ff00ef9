"""The doubles of TensorRT's runtime and of CUDA graphs: they compute, and refuse or report what a GPU would not do."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hamr_edge.backend import open_backend
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.tensorrt_library import collecting_logger
from tests.artifacts import EMBEDDING_DIM, write_tiny_artifact
from tests.double_memory import MisuseError
from tests.gpu_double import Machine
from tests.gpu_install import gpu_doubles
from tests.tensorrt_double import WRONG_VERSION, double_plan
from tests.test_doubles import gpu as gpu  # fixtures
from tests.test_doubles import wrong as wrong

PROFILE = {"images": ((1, 32, 16, 3), (4, 32, 16, 3), (8, 32, 16, 3))}
SIDES = (32, 16, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_artifact(tmp_path_factory.mktemp("model") / "tiny.onnx")


class Rig:
    """An engine, one context with all it needs, and a stream."""

    def __init__(self, model: Path) -> None:
        self.drv, self.trt = import_module("pycuda.driver"), import_module("tensorrt")
        self.graphs = import_module("cuda.bindings.runtime")
        self.logger = collecting_logger(self.trt)
        self.engine = self.trt.Runtime(self.logger).deserialize_cuda_engine(double_plan(model, PROFILE))
        self.stream = self.drv.Stream(1)
        self.handle = self.stream.handle
        self.images = self.drv.mem_alloc(8 * 32 * 16 * 3)
        self.embeddings = self.drv.mem_alloc(8 * EMBEDDING_DIM * 4)
        self.context = self.engine.create_execution_context()
        assert self.context.set_optimization_profile_async(0, self.handle)
        assert self.context.set_tensor_address("images", int(self.images))
        assert self.context.set_tensor_address("embeddings", int(self.embeddings))

    def upload(self, batch: np.ndarray) -> np.ndarray:
        """Send a batch and set its shape; gives the page-locked array, which must be kept until it has arrived."""
        pinned = self.drv.pagelocked_empty(batch.shape, np.uint8)
        pinned[:] = batch
        self.drv.memcpy_htod_async(self.images, pinned, self.stream)
        assert self.context.set_input_shape("images", batch.shape)
        return pinned

    def result(self, rows: int) -> np.ndarray:
        pinned = self.drv.pagelocked_empty((rows, EMBEDDING_DIM), np.float32)
        self.drv.memcpy_dtoh_async(pinned, self.embeddings, self.stream)
        self.stream.synchronize()
        return pinned.copy()

    def capture(self, act: Callable[[], object]) -> Any:
        """What ``cudaStreamEndCapture`` gives for what ``act`` puts on the stream."""
        mode = self.graphs.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        (error,) = self.graphs.cudaStreamBeginCapture(self.handle, mode)
        assert error == self.graphs.cudaError_t.cudaSuccess
        act()
        return self.graphs.cudaStreamEndCapture(self.handle)

    def captured_run(self) -> Any:
        """An executable graph of a run."""
        _, graph = self.capture(lambda: self.context.execute_async_v3(self.handle))
        _, executable = self.graphs.cudaGraphInstantiate(graph, 0)
        self.graphs.cudaGraphDestroy(graph)
        return executable

    def close(self) -> None:
        self.images.free()
        self.embeddings.free()


def _batch(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *SIDES), np.uint8)


def _expected(model: Path, batch: np.ndarray) -> np.ndarray:
    with open_backend(model, "cpu") as backend:
        return backend.infer(batch)


def test_the_engine_describes_itself(gpu: Machine, model: Path) -> None:
    rig = Rig(model)
    engine, trt = rig.engine, rig.trt
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    assert names == ["images", "embeddings"]
    assert [engine.get_tensor_mode(name) for name in names] == [trt.TensorIOMode.INPUT, trt.TensorIOMode.OUTPUT]
    assert [engine.get_tensor_dtype(name) for name in names] == [trt.DataType.UINT8, trt.DataType.FLOAT]
    assert [tuple(engine.get_tensor_shape(name)) for name in names] == [(-1, *SIDES), (-1, EMBEDDING_DIM)]
    assert tuple(map(tuple, engine.get_tensor_profile_shape("images", 0))) == PROFILE["images"]
    with pytest.raises(ValueError, match="__len__"):
        [tuple(shape) for shape in engine.get_tensor_profile_shape("embeddings", 0)]
    assert rig.context.infer_shapes() == ["images"]
    assert tuple(rig.context.get_tensor_shape("embeddings")) == (-1, EMBEDDING_DIM)
    rig.context.set_input_shape("images", (3, *SIDES))
    assert tuple(rig.context.get_tensor_shape("embeddings")) == (3, EMBEDDING_DIM)
    rig.close()


def test_a_run_computes_what_onnx_runtime_computes(gpu: Machine, model: Path) -> None:
    rig, batch = Rig(model), _batch(5)
    kept = rig.upload(batch)
    assert rig.context.execute_async_v3(rig.handle)
    np.testing.assert_allclose(rig.result(5), _expected(model, batch), atol=1e-6)
    assert [run.shapes["images"][0] for run in gpu.runs] == [5]
    del kept
    rig.close()


def test_a_graph_replays_what_was_captured(gpu: Machine, model: Path) -> None:
    rig, first, second = Rig(model), _batch(4), _batch(4, seed=1)
    kept = rig.upload(first)
    assert rig.context.execute_async_v3(rig.handle)
    rig.stream.synchronize()
    executable = rig.captured_run()
    kept = rig.upload(second)
    assert rig.graphs.cudaGraphLaunch(executable, rig.handle) == (rig.graphs.cudaError_t.cudaSuccess,)
    np.testing.assert_allclose(rig.result(4), _expected(model, second), atol=1e-6)
    assert (gpu.counts["captures"], gpu.counts["launches"], gpu.counts["executions"]) == (1, 1, 1)
    assert [run.by_graph for run in gpu.runs] == [False, True]
    rig.graphs.cudaGraphExecDestroy(executable)
    del kept
    rig.close()


def test_a_shape_that_was_not_run_before_breaks_its_capture(wrong: Machine, model: Path) -> None:
    rig = Rig(model)
    rig.context.set_input_shape("images", (2, *SIDES))
    accepted = []
    error, graph = rig.capture(lambda: accepted.append(rig.context.execute_async_v3(rig.handle)))
    assert (accepted, graph) == ([False], None)
    assert error == rig.graphs.cudaError_t.cudaErrorStreamCaptureInvalidated
    assert "operation not permitted when stream is capturing" in rig.logger.errors[-1]
    assert rig.graphs.cudaGetLastError() == (error,)
    assert rig.graphs.cudaGetLastError() == (rig.graphs.cudaError_t.cudaSuccess,)
    assert rig.context.execute_async_v3(rig.handle)
    rig.result(2)


@pytest.mark.parametrize(
    "act",
    [
        lambda rig: rig.stream.synchronize(),
        lambda rig: rig.drv.mem_alloc(256),
        lambda rig: rig.drv.memset_d8(rig.images, 0, 1),
        lambda rig: rig.drv.Context.synchronize(),
    ],
    ids=["synchronize", "mem_alloc", "memset_d8", "Context.synchronize"],
)
def test_what_is_not_allowed_breaks_a_capture(act: Callable[[Rig], object], wrong: Machine, model: Path) -> None:
    rig = Rig(model)

    def enqueue() -> None:
        with pytest.raises(rig.drv.LogicError, match="operation not permitted when stream is capturing"):
            act(rig)

    error, graph = rig.capture(enqueue)
    assert error == rig.graphs.cudaError_t.cudaErrorStreamCaptureInvalidated
    assert graph is None


@pytest.mark.parametrize("where", ["begin", "enqueue", "end", "instantiate"])
def test_a_capture_fails_where_it_is_told_to(where: str, wrong: Machine, model: Path) -> None:
    rig = Rig(model)
    rig.context.set_input_shape("images", (2, *SIDES))
    assert rig.context.execute_async_v3(rig.handle)
    rig.stream.synchronize()
    wrong.options.capture_fails = where
    mode = rig.graphs.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    good = [rig.graphs.cudaStreamBeginCapture(rig.handle, mode)[0] == 0]
    if good[0]:
        good.append(rig.context.execute_async_v3(rig.handle))
        error, graph = rig.graphs.cudaStreamEndCapture(rig.handle)
        good.append(error == 0)
        if graph is not None:
            good.append(rig.graphs.cudaGraphInstantiate(graph, 0)[0] == 0)
    expected = {"begin": [0], "enqueue": [1, 0, 0], "end": [1, 1, 0], "instantiate": [1, 1, 1, 0]}
    assert good == expected[where]


def test_what_tensorrt_refuses_is_false_and_logged(wrong: Machine, model: Path) -> None:
    rig = Rig(model)
    context = rig.engine.create_execution_context()
    steps: list[tuple[Callable[[], object], str]] = [
        (lambda: context.execute_async_v3(rig.handle), "No optimization profile has been set"),
        (lambda: context.set_optimization_profile_async(1, rig.handle), "profileIndex"),
        (lambda: context.set_input_shape("images", (9, *SIDES)), "does not satisfy any optimization profiles"),
        (lambda: context.set_input_shape("images", SIDES), "nbDims"),
        (lambda: context.set_tensor_address("image", int(rig.images)), "invalid tensor name: image"),
    ]
    for call, words in steps:
        assert call() is False
        assert words in rig.logger.errors[-1]
    context.set_optimization_profile_async(0, rig.handle)
    assert not context.execute_async_v3(rig.handle)
    assert "allInputDimensionsSpecified" in rig.logger.errors[-1]
    context.set_input_shape("images", (1, *SIDES))
    context.set_tensor_address("images", int(rig.images))
    assert not context.execute_async_v3(rig.handle)
    assert "Neither address or allocator is set for output tensor embeddings" in rig.logger.errors[-1]
    wrong.options.plan_error = WRONG_VERSION
    assert rig.trt.Runtime(rig.logger).deserialize_cuda_engine(double_plan(model, PROFILE)) is None
    assert "expecting library version 10.3.0.26 got 10.7.0.23" in rig.logger.errors[-1]
    assert wrong.faults == []


def _two_streams(rig: Rig) -> None:
    other = rig.drv.Stream(1)
    assert rig.context.execute_async_v3(rig.handle)
    rig.context.execute_async_v3(other.handle)


def _changed_after_capture(rig: Rig) -> None:
    rig.context.execute_async_v3(rig.handle)
    rig.stream.synchronize()
    executable = rig.captured_run()
    rig.context.set_input_shape("images", (1, *SIDES))
    rig.graphs.cudaGraphLaunch(executable, rig.handle)


def _context_let_go(rig: Rig) -> None:
    rig.context.execute_async_v3(rig.handle)
    rig.context = None
    rig.stream.synchronize()


def _too_small(rig: Rig) -> None:
    small = rig.drv.mem_alloc(256)
    rig.context.set_tensor_address("images", int(small))
    rig.context.execute_async_v3(rig.handle)


def _shared_scratch(rig: Rig) -> None:
    scratch, others = rig.drv.mem_alloc(rig.engine.device_memory_size_v2), [rig.drv.mem_alloc(48) for _ in range(2)]
    for stream, output in zip((rig.stream, rig.drv.Stream(1)), others, strict=True):
        context = rig.engine.create_execution_context(rig.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        context.set_device_memory(int(scratch), rig.engine.device_memory_size_v2)
        context.set_optimization_profile_async(0, stream.handle)
        context.set_input_shape("images", (1, *SIDES))
        context.set_tensor_address("images", int(rig.images))
        context.set_tensor_address("embeddings", int(output))
        assert context.execute_async_v3(stream.handle)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (_two_streams, "neither waits for the other"),
        (_changed_after_capture, "its execution context was changed since the capture"),
        (_context_let_go, "an execution context was let go before its run was done"),
        (_too_small, "beyond the end of the 256 bytes"),
        (_shared_scratch, "neither waits for the other"),
        (lambda rig: rig.context.execute_async_v3(0), "on the default stream"),
        (lambda rig: rig.context.execute_async_v3(12345), "is the handle of no stream that is alive"),
        (lambda rig: rig.context.set_tensor_address("images", int(rig.images) + 16), "is not a multiple of 256"),
    ],
)
def test_misuse_is_an_error(act: Callable[[Rig], None], words: str, wrong: Machine, model: Path) -> None:
    rig = Rig(model)
    rig.context.set_input_shape("images", (2, *SIDES))
    with pytest.raises(MisuseError, match=words):
        act(rig)
    assert any(words in fault for fault in wrong.faults)


def test_an_engine_and_its_contexts_take_memory(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    plan = double_plan(model, PROFILE)
    with gpu_doubles(monkeypatch, memory_bytes=len(plan) + 5000) as here, CudaDevice() as device:
        trt = import_module("tensorrt")
        logger = collecting_logger(trt)
        logger.errors.clear()
        here.register_plan(b"made by another builder", model, PROFILE)
        assert trt.Runtime(logger).deserialize_cuda_engine(b"made by another builder") is not None
        engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
        assert device.free_bytes() == 5000
        context = engine.create_execution_context()
        assert device.free_bytes() == 5000 - engine.device_memory_size_v2
        assert engine.create_execution_context() is None
        assert trt.Runtime(logger).deserialize_cuda_engine(plan) is None
        assert all("out of memory" in words for words in logger.errors)
        del context, engine
        assert device.free_bytes() == len(plan) + 5000
