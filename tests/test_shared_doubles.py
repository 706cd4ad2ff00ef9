"""The doubles between threads, and arrays on their device that another library has made."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.device_array import read_device_array
from tests.gpu_double import Machine
from tests.gpu_install import device_array
from tests.test_doubles import SIZE, pinned_array
from tests.test_doubles import drv as drv  # fixtures
from tests.test_doubles import gpu as gpu


def test_an_array_on_the_device_says_what_it_is(gpu: Machine, drv: Any) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    array = device_array(pixels, stream=1, offset=64)
    interface = array.__cuda_array_interface__
    assert (interface["shape"], interface["typestr"], interface["version"]) == ((4, 5, 3), "|u1", 3)
    target = np.zeros_like(pixels)
    drv.memcpy_dtoh(target, interface["data"][0])
    np.testing.assert_array_equal(target, pixels)
    np.testing.assert_array_equal(array.numpy(), pixels)
    array.allocation.free()


@pytest.mark.parametrize("producer", [None, 1, 2, 0x77])
def test_dlpack_makes_the_reader_wait_for_the_writer(producer: int | None, gpu: Machine, drv: Any) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    writer, reader = drv.Stream(1), drv.Stream(1)
    stream = writer.handle if producer == 0x77 else producer
    array, source = device_array(pixels, stream, dlpack=True), drv.pagelocked_empty(pixels.shape, np.uint8)
    source[:] = 200
    if producer == 0x77:
        drv.memcpy_htod_async(array.pointer, source, writer)
    read = read_device_array(array, "frame", reader.handle, 0)
    assert (read.pointer, read.shape, read.dtype, read.ready_stream) == (array.pointer, (4, 5, 3), np.uint8, None)
    target = drv.pagelocked_empty(pixels.shape, np.uint8)
    drv.memcpy_dtoh_async(target, read.pointer, reader)
    drv.Context.synchronize()
    np.testing.assert_array_equal(target, source if producer == 0x77 else pixels)
    array.allocation.free()


def test_threads_share_the_machine(gpu: Machine, drv: Any) -> None:
    def work(value: int) -> int:
        with CudaDevice() as device:
            for _ in range(5):
                memory, stream, pinned = drv.mem_alloc(SIZE), drv.Stream(1), pinned_array(drv, value)
                drv.memcpy_htod_async(memory, pinned, stream)
                stream.synchronize()
                drv.memcpy_dtoh(pinned, memory)
                memory.free()
            assert device.free_bytes() > 0
            result = int(pinned[-1])
            del pinned, stream
        return result

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(12))) == list(range(12))


def test_another_thread_may_allocate_during_a_capture_but_not_wait_for_all(gpu: Machine, drv: Any) -> None:
    runtime, stream = import_module("cuda.bindings.runtime"), drv.Stream(1)
    mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal

    def in_another_thread(act: Callable[[], object]) -> object:
        def work() -> object:
            with CudaDevice():
                return act()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()

    for act, broken in ((lambda: drv.mem_alloc(SIZE).free(), False), (drv.Context.synchronize, True)):
        assert runtime.cudaStreamBeginCapture(stream.handle, mode) == (0,)
        if broken:
            with pytest.raises(drv.LogicError, match="cuCtxSynchronize failed: operation not permitted"):
                in_another_thread(act)
        else:
            in_another_thread(act)
        error, graph = runtime.cudaStreamEndCapture(stream.handle)
        assert (error == 0) is not broken
        if graph is not None:
            runtime.cudaGraphDestroy(graph)
