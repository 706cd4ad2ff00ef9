"""CUDA graphs: the work that a stream got once, launched again by one call. PyCUDA has none; cuda-bindings has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

_log = logging.getLogger(__name__)


class CudaGraph:
    """A captured piece of work; it reads and writes the addresses that it was captured with."""

    def __init__(self, runtime: Any, executable: Any) -> None:
        self._runtime = runtime
        self._executable = executable

    def launch(self, stream_handle: int) -> bool:
        """Put the work on a stream; False where CUDA refuses it."""
        (error,) = self._runtime.cudaGraphLaunch(self._executable, stream_handle)
        return bool(error == self._runtime.cudaError_t.cudaSuccess)

    def close(self) -> None:
        """Give the graph back."""
        self._runtime.cudaGraphExecDestroy(self._executable)


class CudaGraphs:
    """Captures work on streams of the current context.

    Args:
        runtime: ``cuda.bindings.runtime``.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    @classmethod
    def load(cls) -> CudaGraphs | None:
        """Capture through cuda-bindings; None, with a line in the debug log, where they are not installed."""
        try:
            return cls(import_module("cuda.bindings.runtime"))
        except (ImportError, OSError, RuntimeError) as error:
            _log.debug("no CUDA graphs: cuda-bindings cannot be had (%s)", str(error))
            return None

    def capture(self, stream_handle: int, enqueue: Callable[[], bool]) -> CudaGraph | None:
        """Capture what ``enqueue`` puts on a stream; nothing is run.

        Args:
            stream_handle: Not the default stream; nothing else may use it meanwhile.
            enqueue: Gives False where the work is refused.

        Returns:
            The graph; None, with a line in the debug log, where the work cannot be captured. The stream is usable
            afterwards either way.
        """
        runtime = self._runtime
        # In this mode, other threads may allocate and wait meanwhile.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        (error,) = runtime.cudaStreamBeginCapture(stream_handle, mode)
        if not self._good(error, "begin the capture"):
            return None
        accepted = False
        try:
            accepted = enqueue()
        finally:
            error, graph = runtime.cudaStreamEndCapture(stream_handle)
            captured = self._good(error, "end the capture") and accepted
            if not captured and error == runtime.cudaError_t.cudaSuccess:
                runtime.cudaGraphDestroy(graph)
        if not captured:
            _log.debug("no CUDA graph: the work was %s", "lost in the capture" if accepted else "refused")
            # A failed capture leaves its error for whoever asks next.
            runtime.cudaGetLastError()
            return None
        error, executable = runtime.cudaGraphInstantiate(graph, 0)
        runtime.cudaGraphDestroy(graph)
        return CudaGraph(runtime, executable) if self._good(error, "instantiate the graph") else None

    def wait_for(self, stream_handle: int, other_handle: int) -> bool:
        """Let a stream wait, on the device, for what another one holds by now; False where CUDA refuses it."""
        runtime = self._runtime
        error, event = runtime.cudaEventCreateWithFlags(runtime.cudaEventDisableTiming)
        if not self._good(error, "make an event"):
            return False
        try:
            (error,) = runtime.cudaEventRecord(event, other_handle)
            if not self._good(error, "record an event on the producer's stream"):
                return False
            (error,) = runtime.cudaStreamWaitEvent(stream_handle, event, 0)
            return self._good(error, "wait for an event")
        finally:
            runtime.cudaEventDestroy(event)

    def _good(self, error: Any, action: str) -> bool:
        good = bool(error == self._runtime.cudaError_t.cudaSuccess)
        if not good:
            _log.debug("CUDA cannot %s: %s", action, error)
            self._runtime.cudaGetLastError()
        return good
