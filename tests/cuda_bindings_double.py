"""A double of ``cuda.bindings.runtime``: capture, graphs and events, as our runtime uses them, and nothing else."""
# ruff: noqa: N801, N802, N803, N815, N816  # the names are NVIDIA's

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from tests.double_memory import MisuseError
from tests.double_streams import Capture, Step, Stream, Work
from tests.gpu_double import Machine, machine

cudaEventDisableTiming = 2


class cudaError_t(IntEnum):  # NVIDIA's name
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorInvalidResourceHandle = 400
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaStreamCaptureMode(IntEnum):  # NVIDIA's name
    cudaStreamCaptureModeThreadLocal = 1


_OK = cudaError_t.cudaSuccess


class _Handle:
    """An object of CUDA; it is gone once it was destroyed."""

    def __init__(self, here: Machine) -> None:
        self.machine = here
        self.alive = True

    def use(self, here: Machine) -> None:
        if not self.alive or here is not self.machine:
            raise here.fault(f"{type(self).__name__.strip('_')} is used after it was destroyed")


class _Event(_Handle):
    work: Work | None = None


class _Graph(_Handle):
    steps: tuple[Step, ...] = ()


class _GraphExec(_Graph):
    last: Work | None = None


@contextmanager
def _call(name: str) -> Iterator[tuple[Machine, int]]:
    here = machine()
    with here.call(name) as gpu:
        yield here, gpu


def cudaStreamBeginCapture(stream: int, mode: cudaStreamCaptureMode) -> tuple[cudaError_t]:
    with _call("cudaStreamBeginCapture") as (here, gpu):
        if not isinstance(mode, cudaStreamCaptureMode):
            raise here.fault(f"cudaStreamBeginCapture: {mode!r} is no cudaStreamCaptureMode")
        captured = here.streams.find(stream, gpu)
        if captured.handle == 0 or captured.capture is not None or here.options.capture_fails == "begin":
            return (_failed(cudaError_t.cudaErrorStreamCaptureUnsupported),)
        captured.capture = Capture(threading.get_ident())
        return (_OK,)


def cudaStreamEndCapture(stream: int) -> tuple[cudaError_t, _Graph | None]:
    with _call("cudaStreamEndCapture") as (here, gpu):
        captured = here.streams.find(stream, gpu)
        capture, captured.capture = captured.capture, None
        if capture is None:
            return _failed(cudaError_t.cudaErrorInvalidValue), None
        if capture.thread != threading.get_ident():
            raise here.fault("cudaStreamEndCapture: another thread began the capture")
        if capture.broken or here.options.capture_fails == "end":
            return _failed(cudaError_t.cudaErrorStreamCaptureInvalidated), None
        graph = _Graph(here)
        graph.steps = tuple(capture.steps)
        here.graphs += 1
        here.counts["captures"] += 1
        return _OK, graph


def cudaGraphInstantiate(graph: _Graph, flags: int) -> tuple[cudaError_t, _GraphExec | None]:
    with _call("cudaGraphInstantiate") as (here, _):
        graph.use(here)
        if here.options.capture_fails == "instantiate":
            return _failed(cudaError_t.cudaErrorInvalidValue), None
        executable = _GraphExec(here)
        executable.steps = graph.steps
        here.graphs += 1
        return _OK, executable


def cudaGraphLaunch(graphExec: _GraphExec, stream: int) -> tuple[cudaError_t]:
    with _call("cudaGraphLaunch") as (here, gpu):
        _check_kind(here, graphExec, _GraphExec)
        graphExec.use(here)
        if faults := [words for step in graphExec.steps if (words := step.fault())]:
            raise here.fault(f"cudaGraphLaunch: {faults[0]}")

        def run() -> None:
            for step in graphExec.steps:
                step.run()

        touches = tuple(touch for step in graphExec.steps for touch in step.touches)
        label = ", ".join(step.label for step in graphExec.steps)
        # A launch waits for the launch of the same graph before it, on whatever stream that was.
        launched = here.streams.find(stream, gpu)
        for step in graphExec.steps:
            step.on_launch()
        graphExec.last = here.put(launched, Step(f"graph of {label}", run, touches), graphExec.last)
        here.counts["launches"] += 1
        return (_OK,)


def cudaGraphDestroy(graph: _Graph) -> tuple[cudaError_t]:
    return _destroy("cudaGraphDestroy", graph, _Graph, _forget_graph)


def cudaGraphExecDestroy(graphExec: _GraphExec) -> tuple[cudaError_t]:
    return _destroy("cudaGraphExecDestroy", graphExec, _GraphExec, _forget_graph)


def cudaGetLastError() -> tuple[cudaError_t]:
    with _call("cudaGetLastError"):
        error, _last.error = getattr(_last, "error", _OK), _OK
        return (error,)


def cudaEventCreateWithFlags(flags: int) -> tuple[cudaError_t, _Event]:
    with _call("cudaEventCreateWithFlags") as (here, _):
        here.events += 1
        return _OK, _Event(here)


def cudaEventRecord(event: _Event, stream: int) -> tuple[cudaError_t]:
    with _call("cudaEventRecord") as (here, gpu):
        event.use(here)
        event.work = here.put(_uncaptured(here, stream, gpu), Step("record an event", _nothing))
        return (_OK,)


def cudaStreamWaitEvent(stream: int, event: _Event, flags: int) -> tuple[cudaError_t]:
    with _call("cudaStreamWaitEvent") as (here, gpu):
        event.use(here)
        here.put(_uncaptured(here, stream, gpu), Step("wait for an event", _nothing), event.work)
        return (_OK,)


def cudaEventDestroy(event: _Event) -> tuple[cudaError_t]:
    return _destroy("cudaEventDestroy", event, _Event, _forget_event)


_last = threading.local()


def _failed(error: cudaError_t) -> cudaError_t:
    _last.error = error
    return error


def _destroy(name: str, handle: Any, kind: type[_Handle], forget: Callable[[Machine], None]) -> tuple[cudaError_t]:
    with _call(name) as (here, _):
        _check_kind(here, handle, kind)
        handle.use(here)
        handle.alive = False
        forget(here)
        return (_OK,)


def _check_kind(here: Machine, handle: Any, kind: type[_Handle]) -> None:
    if type(handle) is not kind:
        raise here.fault(f"{handle!r} is no {kind.__name__.strip('_')}")


def _forget_graph(here: Machine) -> None:
    here.graphs -= 1


def _forget_event(here: Machine) -> None:
    here.events -= 1


def _uncaptured(here: Machine, handle: int, gpu: int) -> Stream:
    stream = here.streams.find(handle, gpu)
    if stream.capture is not None:
        raise MisuseError("events in captures are not doubled")
    return stream


def _nothing() -> None:
    pass


RUNTIME = {name: value for name, value in list(globals().items()) if name.startswith("cuda")}
"""The names of ``cuda.bindings.runtime``."""
