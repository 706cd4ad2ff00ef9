"""A double of ``pycuda.driver``: what our runtime uses of it, and nothing else. :mod:`tests.gpu_install` installs it.

It is stricter than PyCUDA: what PyCUDA does slowly or leaks in silence is a :class:`tests.double_memory.MisuseError`.
Words of errors are as PyCUDA's: the call of the driver that failed, and CUDA's words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from tests.double_memory import Block
from tests.double_streams import Step, Work
from tests.gpu_double import Machine, machine


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


@contextmanager
def driver_call(name: str, unsafe: bool = False, everywhere: bool = False) -> Iterator[tuple[Machine, int]]:
    """A call of the driver: gives the machine and the current GPU.

    Args:
        name: As the driver has it.
        unsafe: The thread must not be capturing.
        everywhere: No thread must be capturing.
    """
    here = machine()
    with here.call(name) as gpu:
        if (unsafe or everywhere) and (captures := here.captures(everywhere)):
            for capture in captures:
                capture.broken = name
            raise LogicError(f"{name} failed: operation not permitted when stream is capturing")
        yield here, gpu


class Device:
    __slots__ = ("_index",)

    def __init__(self, index: int, /) -> None:
        _check_initialised("cuDeviceGet")
        if not 0 <= index < machine().options.gpus:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")
        self._index = index

    @staticmethod
    def count() -> int:
        _check_initialised("cuDeviceGetCount")
        return machine().options.gpus

    def name(self) -> str:
        return machine().options.name

    def compute_capability(self) -> tuple[int, int]:
        return machine().options.compute_capability

    def get_attribute(self, attr: int, /) -> int:
        assert attr == device_attribute.INTEGRATED
        return int(machine().options.integrated)

    def retain_primary_context(self) -> Context:
        context = Context.__new__(Context)
        context._gpu = self._index
        return context


class device_attribute:  # noqa: N801  # PyCUDA's name
    INTEGRATED = 18


class event_flags:  # noqa: N801  # PyCUDA's name
    DISABLE_TIMING = 2


class Context:
    __slots__ = ("__weakref__", "_gpu")
    _gpu: int

    def __init__(self) -> NoReturn:
        raise RuntimeError("This class cannot be instantiated from Python")

    def push(self) -> None:
        machine().counts["push"] += 1
        machine().stack.append(self._gpu)

    @staticmethod
    def pop() -> None:
        if not machine().stack:
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        machine().stack.pop()

    @staticmethod
    def synchronize() -> None:
        with driver_call("cuCtxSynchronize", everywhere=True) as (here, gpu):
            for work in list(here.streams.unknown):
                if work.stream.gpu == gpu:
                    here.streams.wait(work)


class DeviceAllocation:
    __slots__ = ("__weakref__", "_block", "_gpu", "_live", "_machine")
    _machine: Machine
    _gpu: int
    _block: Block
    _live: bool

    def __init__(self) -> NoReturn:
        raise RuntimeError("This class cannot be instantiated from Python")

    def __int__(self) -> int:
        return self._block.address

    def __index__(self) -> int:
        return self._block.address

    def free(self) -> None:
        with driver_call("cuMemFree", unsafe=True) as (here, gpu):
            if not self._live:
                raise LogicError("device_allocation::free failed: invalid resource handle")
            if gpu != self._gpu:
                raise here.fault(f"cuMemFree: memory of GPU {self._gpu} under the context of GPU {gpu}")
            self._live = False
            here.release_device(gpu, self._block)

    def __del__(self) -> None:
        if getattr(self, "_live", False) and not self._machine.closed:
            _finalise(self._machine, self._gpu, "device memory", self.free)


class Stream:
    __slots__ = ("__weakref__", "_machine", "_stream")

    def __init__(self, flags: int = 0) -> None:
        with driver_call("cuStreamCreate", unsafe=True) as (here, gpu):
            self._machine = here
            self._stream = here.streams.create(gpu, blocking=not flags & 1)

    @property
    def handle(self) -> int:
        return self._stream.handle

    def synchronize(self) -> None:
        with driver_call("cuStreamSynchronize") as (here, gpu):
            stream = here.streams.find(self._stream.handle, gpu)
            if stream.capture is not None:
                stream.capture.broken = "cuStreamSynchronize"
                raise LogicError("cuStreamSynchronize failed: operation not permitted when stream is capturing")
            here.streams.wait(stream.tail)

    def wait_for_event(self, evt: Event, /) -> None:
        with driver_call("cuStreamWaitEvent") as (here, gpu):
            stream = here.streams.find(self._stream.handle, gpu)
            if stream.capture is not None:
                raise here.fault("cuStreamWaitEvent: events in captures are not doubled")
            here.put(stream, Step("wait for an event", _nothing), evt._work)

    def __del__(self) -> None:
        if hasattr(self, "_stream") and not self._machine.closed:
            _finalise(self._machine, self._stream.gpu, "a stream", lambda: self._machine.streams.destroy(self._stream))


class Event:
    __slots__ = ("__weakref__", "_gpu", "_machine", "_timed", "_times_s", "_work")
    _work: Work | None

    def __init__(self, flags: int = 0) -> None:
        with driver_call("cuEventCreate") as (here, gpu):
            self._machine, self._gpu, self._work = here, gpu, None
            self._timed = not flags & event_flags.DISABLE_TIMING
            self._times_s: list[float] = []
            here.events += 1

    def record(self, stream: Stream | None = None) -> Event:
        with driver_call("cuEventRecord") as (here, gpu):
            recorded = here.streams.find(0 if stream is None else stream.handle, gpu)
            if recorded.capture is not None:
                raise here.fault("cuEventRecord: events in captures are not doubled")
            times_s = self._times_s = []
            self._work = here.put(recorded, Step("record an event", lambda: times_s.append(time.perf_counter())))
        return self

    def synchronize(self) -> Event:
        with driver_call("cuEventSynchronize") as (here, _):
            here.streams.wait(self._work)
        return self

    def query(self) -> bool:
        with driver_call("cuEventQuery", unsafe=True) as (here, _):
            done = self._work is None or self._work.done
            # Who asks again and again gets there.
            here.streams.wait(self._work)
            return done

    def time_since(self, event: Event, /) -> float:
        with driver_call("cuEventElapsedTime") as (here, _):
            for one in (event, self):
                if not one._timed or one._work is None:
                    raise LogicError("cuEventElapsedTime failed: invalid resource handle")
                if not one._work.done:
                    raise here.fault("cuEventElapsedTime: device not ready")
                if not one._work.known:
                    raise here.fault("cuEventElapsedTime: the host has not waited for the event")
            return (self._times_s[0] - event._times_s[0]) * 1000.0

    def time_till(self, event: Event, /) -> float:
        return event.time_since(self)

    def __del__(self) -> None:
        if hasattr(self, "_gpu") and not self._machine.closed:

            def destroy() -> None:
                self._machine.events -= 1

            _finalise(self._machine, self._gpu, "an event", destroy)


def init(flags: int = 0) -> None:
    if machine().options.init_error:
        raise LogicError(f"cuInit failed: {machine().options.init_error}")
    machine().initialised = True


def _nothing() -> None:
    pass


def _check_initialised(name: str) -> None:
    if not machine().initialised:
        raise LogicError(f"{name} failed: initialization error")


def _finalise(here: Machine, gpu: int, what: str, destroy: Any) -> None:
    """What PyCUDA does when an object goes: nothing but a leak where the context is not current."""
    with here.lock:
        if here.stack[-1:] == [gpu]:
            destroy()
        else:
            here.fault(f"{what} is let go where its context is not current")
