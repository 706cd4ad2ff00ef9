"""One TensorRT execution at a time: a stream, its buffers, and a captured run for each shape that comes again."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.cuda_graphs import CudaGraph, CudaGraphs
from hamr_edge.errors import HamrEdgeError, UnavailableError
from hamr_edge.tensorrt_engine import LoadedEngine
from hamr_edge.tensorrt_library import words_of

_log = logging.getLogger(__name__)
_creating = threading.Lock()
"""Lanes of one engine make their contexts one after another."""
_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING, for which PyCUDA has no name: work on the default stream, PyTorch's, does not hold it up."""
ALIGNMENT = 256
"""Tensors must begin at a multiple of this many bytes."""
_MOST_CAPTURED = 24
"""Captured runs of a lane: every bucket of the crops form, or a few cameras' frame sizes."""
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _CapturedRun:
    context: Any
    """Must stay as it was captured: changing its shapes would make the graph undefined. So each graph has its own."""
    graph: CudaGraph


class ExecutionLane:
    """Buffers of one engine for its largest shapes, and the stream they are used on.

    To be made, used and closed inside ``with device:``, by one thread at a time. Device memory is taken here and not
    again. A run is: :meth:`upload` each input, :meth:`execute`, then :meth:`download` or :meth:`copy_to`, and
    :meth:`wait` before anything is read.

    Args:
        device: The GPU.
        trt: The bindings of TensorRT.
        loaded: The engine.
        input_bytes: Size of each input at its largest.
        output_bytes: Size of ``embeddings`` at its largest.
        graphs: Captures runs; None runs without CUDA graphs.

    Raises:
        UnavailableError: TensorRT or the device gives no context or memory.
    """

    def __init__(
        self,
        device: CudaDevice,
        trt: Any,
        loaded: LoadedEngine,
        input_bytes: dict[str, int],
        output_bytes: int,
        graphs: CudaGraphs | None,
    ) -> None:
        self._device = device
        self._trt = trt
        self._logger = loaded.logger
        self._engine = loaded.cuda_engine
        self._graphs = graphs
        self._captures = graphs is not None
        driver = device.driver
        self._stream = driver.Stream(_NON_BLOCKING)
        self._allocations: list[Any] = []
        try:
            self._scratch_bytes = max(int(loaded.cuda_engine.device_memory_size_v2), ALIGNMENT)
            self._scratch = self._allocate(self._scratch_bytes)
            self._inputs = {name: self._allocate(size) for name, size in input_bytes.items()}
            self._output = self._allocate(output_bytes)
            for name, size in input_bytes.items():
                # Rows that pad a batch are computed as well; what is in them must be the same on every run.
                driver.memset_d8_async(self._inputs[name], 0, size, self._stream)
            # Never the whole device: that would break a capture in another thread.
            self._stream.synchronize()
            self._context = self._make_context()
        except driver.MemoryError as error:
            self.close()
            raise UnavailableError(
                f"{device.name} has no memory left for this engine: {error}; close other programs, or build it with "
                "a smaller --batch"
            ) from error
        except BaseException:
            self.close()
            raise
        self._pinned: dict[str, NDArray[np.uint8]] = {}
        self._marks: dict[int, Any] = {}
        self._seen: set[tuple[Any, ...]] = set()
        self._captured: OrderedDict[tuple[Any, ...], _CapturedRun] = OrderedDict()

    @property
    def stream_handle(self) -> int:
        """The stream, as other libraries take it."""
        return int(self._stream.handle)

    def pinned(self, name: str, size: int) -> NDArray[np.uint8]:
        """Page-locked host memory for a tensor, of at least ``size`` bytes: (size,) uint8; the lane owns it."""
        buffer = self._pinned.get(name)
        if buffer is None or buffer.nbytes < size:
            buffer = self._pinned[name] = self._device.driver.pagelocked_empty((size,), np.uint8)
        return buffer[:size]

    def upload(self, name: str, size: int) -> None:
        """Send the first ``size`` bytes of :meth:`pinned` to the device."""
        self._device.driver.memcpy_htod_async(self._inputs[name], self.pinned(name, size), self._stream)

    def fetch(self, name: str, pointer: int, size: int) -> None:
        """Copy ``size`` bytes of device memory into an input."""
        self._device.driver.memcpy_dtod_async(self._inputs[name], pointer, size, self._stream)

    def execute(self, shapes: Shapes, addresses: dict[str, int] | None = None) -> None:
        """Put a run on the stream.

        Args:
            shapes: Of every input.
            addresses: Inputs that are read from elsewhere on the device, at multiples of 256; such runs are not
                captured.

        Raises:
            HamrEdgeError: TensorRT refuses the run; its words are in the message.
        """
        key = tuple(shapes.values())
        captured = None if addresses else self._captured_run(key, shapes)
        if captured is not None:
            self._check(captured.graph.launch(self.stream_handle), "the CUDA graph is not launched", shapes)
            return
        self._prepare(self._context, shapes, addresses or {})
        self._enqueue(self._context, shapes)

    def download(self, size: int) -> NDArray[np.uint8]:
        """Bring the first ``size`` bytes of the embeddings to the host: filled after :meth:`wait`, the lane's own."""
        host = self.pinned("embeddings", size)
        self._device.driver.memcpy_dtoh_async(host, self._output, self._stream)
        return host

    def copy_to(self, pointer: int, size: int) -> None:
        """Copy the first ``size`` bytes of the embeddings to another place on the device."""
        self._device.driver.memcpy_dtod_async(pointer, self._output, size, self._stream)

    def mark(self, number: int) -> None:
        """Note when the stream gets here; its event is made the first time, and kept."""
        if number not in self._marks:
            self._marks[number] = self._device.driver.Event()
        self._marks[number].record(self._stream)

    def elapsed_ms(self, first: int, second: int) -> float:
        """Milliseconds of the device from a mark to a later one, after :meth:`wait`."""
        return float(self._marks[first].time_till(self._marks[second]))

    def wait_for_stream(self, other_handle: int) -> None:
        """Start what follows only when all that another stream holds by now is done."""
        if self._graphs is None or not self._graphs.wait_for(self.stream_handle, other_handle):
            self._device.driver.Context.synchronize()

    def wait(self) -> None:
        """Return when the stream is empty."""
        self._stream.synchronize()

    def close(self) -> None:
        """Give everything back; the lane is of no use afterwards."""
        if self._stream is None:
            return
        with suppress(self._device.driver.Error):  # after a fault of the GPU nothing can be waited for
            self._stream.synchronize()
        for run in getattr(self, "_captured", {}).values():
            run.graph.close()
        self._captured = OrderedDict()
        self._context = None
        self._pinned = {}
        self._marks = {}
        while self._allocations:
            self._allocations.pop().free()
        self._stream = None

    def _allocate(self, size: int) -> Any:
        allocation = self._device.driver.mem_alloc(size)
        self._allocations.append(allocation)
        return allocation

    def _make_context(self) -> Any:
        """A context that works in the lane's scratch memory: its runs never overlap."""
        with _creating:
            self._logger.errors.clear()
            context = self._engine.create_execution_context(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise UnavailableError(f"TensorRT makes no execution context: {words_of(self._logger)}")
        context.set_device_memory(int(self._scratch), self._scratch_bytes)
        if not context.set_optimization_profile_async(0, self.stream_handle):
            raise UnavailableError(f"TensorRT takes no optimization profile: {words_of(self._logger)}")
        return context

    def _prepare(self, context: Any, shapes: Shapes, addresses: dict[str, int]) -> None:
        self._logger.errors.clear()
        for name, shape in shapes.items():
            self._check(context.set_input_shape(name, shape), f"the shape of {name} is refused", shapes)
            address = addresses.get(name, int(self._inputs[name]))
            self._check(context.set_tensor_address(name, address), f"the address of {name} is refused", shapes)
        address = int(self._output)
        self._check(context.set_tensor_address("embeddings", address), "the output's address is refused", shapes)
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise HamrEdgeError(
                f"TensorRT finds no shapes for {shapes}: {words_of(self._logger, str(error))}"
            ) from error
        self._check(not missing, f"the inputs {', '.join(missing)} are not known", shapes)

    def _enqueue(self, context: Any, shapes: Shapes) -> None:
        self._check(context.execute_async_v3(self.stream_handle), "the run is refused", shapes)

    def _captured_run(self, key: tuple[Any, ...], shapes: Shapes) -> _CapturedRun | None:
        """The captured run of these shapes, made the second time they come: a shape may come once and never again."""
        if key in self._captured:
            self._captured.move_to_end(key)
            return self._captured[key]
        if self._graphs is None or not self._captures:
            return None
        if key not in self._seen:
            self._seen.add(key)
            return None
        try:
            context = self._make_context()
        except UnavailableError as error:
            _log.debug("no CUDA graph for %s: %s", shapes, str(error))
            self._captures = False
            return None
        self._prepare(context, shapes, {})
        # TensorRT finishes its own preparations in a first run, which cannot be captured.
        self._enqueue(context, shapes)
        self.wait()
        graph = self._graphs.capture(self.stream_handle, lambda: bool(context.execute_async_v3(self.stream_handle)))
        if graph is None:
            self._captures = False
            return None
        if len(self._captured) >= _MOST_CAPTURED:
            _, oldest = self._captured.popitem(last=False)
            oldest.graph.close()
        self._captured[key] = _CapturedRun(context, graph)
        return self._captured[key]

    def _check(self, good: bool, problem: str, shapes: Shapes) -> None:
        if not good:
            words = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise HamrEdgeError(f"TensorRT does not run {words}: {problem}: {words_of(self._logger)}")
