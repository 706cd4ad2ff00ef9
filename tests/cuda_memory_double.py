"""The functions of the double of ``pycuda.driver``: memory and copies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests import cuda_double
from tests.cuda_double import DeviceAllocation, LogicError, MemoryError, Stream, driver_call
from tests.double_memory import OutOfMemoryError, span_of
from tests.double_streams import Step
from tests.gpu_double import Machine, reads, writes


class _HasAddress(Protocol):
    def __int__(self) -> int: ...


def mem_get_info() -> tuple[int, int]:
    with driver_call("cuMemGetInfo") as (here, gpu):
        return here.memory[gpu].free_bytes, here.memory[gpu].total


def mem_alloc(size: int, /) -> DeviceAllocation:
    with driver_call("cuMemAlloc", unsafe=True) as (here, gpu):
        if size <= 0:
            raise LogicError("cuMemAlloc failed: invalid argument")
        allocation = DeviceAllocation.__new__(DeviceAllocation)
        try:
            allocation._block = here.memory[gpu].allocate(int(size))
        except OutOfMemoryError as error:
            raise MemoryError("cuMemAlloc failed: out of memory") from error
        allocation._machine, allocation._gpu, allocation._live = here, gpu, True
        return allocation


def pagelocked_empty(shape: int | Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    with driver_call("cuMemHostAlloc", unsafe=True) as (here, _):
        sides = (shape,) if isinstance(shape, int) else tuple(shape)
        size = math.prod(sides) * np.dtype(dtype).itemsize
        return here.host.allocate(size, here.release_host).view(dtype).reshape(sides)


def memset_d8(dest: int | _HasAddress, data: int, size: int) -> None:
    with driver_call("cuMemsetD8", unsafe=True) as (here, gpu):
        _memset(here, gpu, None, dest, data, size)


def memset_d8_async(dest: int | _HasAddress, data: int, size: int, stream: Stream | None = None) -> None:
    with driver_call("cuMemsetD8Async") as (here, gpu):
        _memset(here, gpu, stream, dest, data, size)


def memcpy_htod_async(dest: int | _HasAddress, src: NDArray[Any], stream: Stream | None = None) -> None:
    with driver_call("cuMemcpyHtoDAsync") as (here, gpu):
        address, (host, size) = int(dest), span_of(src)
        here.host.view(host, size)
        here.memory[gpu].view(address, size)

        def run() -> None:
            here.memory[gpu].view(address, size)[:] = here.host.view(host, size)

        _put(here, gpu, stream, Step(f"htod {size}", run, (writes(address, size), reads(host, size))))


def memcpy_dtoh_async(dest: NDArray[Any], src: int | _HasAddress, stream: Stream | None = None) -> None:
    with driver_call("cuMemcpyDtoHAsync") as (here, gpu):
        address, (host, size) = int(src), span_of(dest, writable=True)
        here.host.view(host, size)
        here.memory[gpu].view(address, size)

        def run() -> None:
            here.host.view(host, size)[:] = here.memory[gpu].view(address, size)

        _put(here, gpu, stream, Step(f"dtoh {size}", run, (reads(address, size), writes(host, size))))


def memcpy_htod(dest: int | _HasAddress, src: NDArray[Any]) -> None:
    with driver_call("cuMemcpyHtoD", unsafe=True) as (here, gpu):
        address, (_, size) = int(dest), span_of(src)

        def run() -> None:
            here.memory[gpu].view(address, size)[:] = _bytes_of(src)

        here.streams.wait(here.put(here.streams.find(0, gpu), Step(f"htod {size}", run, (writes(address, size),))))


def memcpy_dtoh(dest: NDArray[Any], src: int | _HasAddress) -> None:
    with driver_call("cuMemcpyDtoH", unsafe=True) as (here, gpu):
        address, (_, size) = int(src), span_of(dest, writable=True)

        def run() -> None:
            _bytes_of(dest)[:] = here.memory[gpu].view(address, size)

        here.streams.wait(here.put(here.streams.find(0, gpu), Step(f"dtoh {size}", run, (reads(address, size),))))


def memcpy_dtod_async(dest: int | _HasAddress, src: int | _HasAddress, size: int, stream: Stream | None = None) -> None:
    with driver_call("cuMemcpyDtoDAsync") as (here, gpu):
        target, source = int(dest), int(src)
        memory = here.memory[gpu]
        memory.view(target, size), memory.view(source, size)

        def run() -> None:
            memory.view(target, size)[:] = memory.view(source, size)

        _put(here, gpu, stream, Step(f"dtod {size}", run, (writes(target, size), reads(source, size))))


def _put(here: Machine, gpu: int, stream: Stream | None, step: Step) -> None:
    here.put(here.streams.find(0 if stream is None else stream.handle, gpu), step)


def _memset(here: Machine, gpu: int, stream: Stream | None, dest: int | _HasAddress, data: int, size: int) -> None:
    address, memory = int(dest), here.memory[gpu]
    memory.view(address, size)

    def run() -> None:
        memory.view(address, size)[:] = data

    _put(here, gpu, stream, Step(f"memset {size}", run, (writes(address, size),)))


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a contiguous array, in the order in which they lie."""
    return array.reshape(-1, order="C" if array.flags.c_contiguous else "F").view(np.uint8)


DRIVER = {
    value.__name__: value
    for value in (
        *(cuda_double.Context, cuda_double.Device, DeviceAllocation, cuda_double.Event, Stream),
        *(cuda_double.Error, LogicError, MemoryError, cuda_double.device_attribute, cuda_double.event_flags),
        *(cuda_double.init, mem_alloc, mem_get_info, pagelocked_empty, memset_d8, memset_d8_async),
        *(memcpy_dtod_async, memcpy_dtoh, memcpy_dtoh_async, memcpy_htod, memcpy_htod_async),
    )
}
"""The names of ``pycuda.driver``."""
