"""The doubles of PyCUDA and cuda-bindings: right code runs, and wrong code, which a GPU may let pass, does not."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.errors import UnavailableError
from tests.double_memory import MisuseError
from tests.gpu_double import Machine, machine
from tests.gpu_install import gpu_doubles

SIZE = 1024


@pytest.fixture(params=[None, 0, 1, 2], ids=["late", "odd 0", "odd 1", "odd 2"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine whose context is current; the end is checked."""
    with gpu_doubles(monkeypatch, seed=request.param) as here, CudaDevice():
        yield here


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The same for tests that do wrong: work runs late, and the end is not checked."""
    with gpu_doubles(monkeypatch, check=False) as here, CudaDevice():
        yield here


@pytest.fixture
def drv(request: pytest.FixtureRequest) -> Any:
    request.getfixturevalue("gpu" if "gpu" in request.fixturenames else "wrong")
    return import_module("pycuda.driver")


def pinned_array(drv: Any, value: int) -> np.ndarray:
    array = drv.pagelocked_empty((SIZE,), np.uint8)
    array[:] = value
    return array


def test_bytes_travel_in_the_order_of_their_stream(gpu: Machine, drv: Any) -> None:
    memory, other, stream = drv.mem_alloc(SIZE), drv.mem_alloc(SIZE), drv.Stream(1)
    source, target = pinned_array(drv, 7), pinned_array(drv, 0)
    assert int(memory) % 256 == int(other) % 256 == 0
    drv.memcpy_htod_async(memory, source, stream)
    drv.memcpy_dtod_async(other, memory, SIZE, stream)
    drv.memcpy_dtoh_async(target, other, stream)
    stream.synchronize()
    assert (target == 7).all()
    assert [label for _, label in gpu.history] == [f"htod {SIZE}", f"dtod {SIZE}", f"dtoh {SIZE}"]
    memory.free(), other.free()


def test_new_memory_holds_no_zeros(gpu: Machine, drv: Any) -> None:
    memory, target = drv.mem_alloc(SIZE), np.zeros(SIZE, np.uint8)
    drv.memcpy_dtoh(target, memory)
    assert (target == 0xA5).all()
    assert (drv.pagelocked_empty(SIZE, np.uint8) == 0xA5).all()
    memory.free()


def test_copies_that_wait_take_any_memory(gpu: Machine, drv: Any) -> None:
    memory, source, target = drv.mem_alloc(24), np.arange(6.0, dtype=np.float32).reshape(2, 3), np.empty((3, 2), "f4")
    drv.memcpy_htod(memory, source)
    drv.memcpy_dtoh(target.T, memory)
    np.testing.assert_array_equal(target.T.ravel("F"), source.ravel())
    with pytest.raises(BufferError, match="not contiguous"):
        drv.memcpy_htod(memory, source[:, ::2])
    memory.free()


def test_an_event_orders_two_streams(gpu: Machine, drv: Any) -> None:
    memory, one, two, event = drv.mem_alloc(SIZE), drv.Stream(1), drv.Stream(1), drv.Event(2)
    source, target = pinned_array(drv, 9), pinned_array(drv, 0)
    drv.memcpy_htod_async(memory, source, one)
    event.record(one)
    two.wait_for_event(event)
    drv.memcpy_dtoh_async(target, memory, two)
    two.synchronize()
    assert (target == 9).all()
    assert event.query()
    memory.free()


def test_the_default_stream_and_blocking_streams_wait_for_each_other(gpu: Machine, drv: Any) -> None:
    memory, blocking, target = drv.mem_alloc(SIZE), drv.Stream(), pinned_array(drv, 0)
    drv.memset_d8(memory, 3, SIZE)
    drv.memcpy_dtoh_async(target, memory, blocking)
    drv.memset_d8(memory, 4, SIZE)
    drv.Context.synchronize()
    assert (target == 3).all()
    memory.free()


def test_memory_is_set_on_the_stream_that_is_asked_for(gpu: Machine, drv: Any) -> None:
    memory, stream, target = drv.mem_alloc(SIZE), drv.Stream(1), pinned_array(drv, 0)
    drv.memset_d8_async(memory, 6, SIZE, stream)
    drv.memcpy_dtoh_async(target, memory, stream)
    stream.synchronize()
    assert (target == 6).all()
    memory.free()


def test_host_memory_is_read_and_written_when_the_work_runs(wrong: Machine, drv: Any) -> None:
    memory, stream, source, target = drv.mem_alloc(SIZE), drv.Stream(1), pinned_array(drv, 1), pinned_array(drv, 0)
    drv.memcpy_htod_async(memory, source, stream)
    source[:] = 2
    drv.memcpy_dtoh_async(target, memory, stream)
    assert (target == 0).all()
    stream.synchronize()
    assert (target == 2).all()


def test_free_memory_is_counted_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_doubles(monkeypatch, memory_bytes=1 << 20), CudaDevice() as device:
        assert device.free_bytes() == 1 << 20
        memory = device.driver.mem_alloc(1 << 19)
        assert device.driver.mem_get_info() == (1 << 19, 1 << 20)
        with pytest.raises(device.driver.MemoryError, match="cuMemAlloc failed: out of memory"):
            device.driver.mem_alloc((1 << 19) + 1)
        memory.free()
        with pytest.raises(device.driver.LogicError, match="device_allocation::free failed: invalid resource handle"):
            memory.free()


def _beyond(drv: Any) -> None:
    drv.memset_d8(drv.mem_alloc(SIZE), 0, SIZE + 1)


def _freed(drv: Any) -> None:
    memory = drv.mem_alloc(SIZE)
    memory.free()
    drv.memset_d8(memory, 0, SIZE)


def _freed_before_it_ran(drv: Any) -> None:
    memory = drv.mem_alloc(SIZE)
    drv.memset_d8(memory, 0, SIZE)
    memory.free()
    drv.Context.synchronize()


def _not_pinned(drv: Any) -> None:
    drv.memcpy_htod_async(drv.mem_alloc(SIZE), np.zeros(SIZE, np.uint8), drv.Stream(1))


def _pinned_and_gone(drv: Any) -> None:
    memory, stream = drv.mem_alloc(SIZE), drv.Stream(1)
    drv.memcpy_htod_async(memory, pinned_array(drv, 0), stream)
    stream.synchronize()


def _no_order(drv: Any) -> None:
    memory = drv.mem_alloc(SIZE)
    drv.memset_d8(memory, 0, SIZE)
    drv.memcpy_dtoh_async(pinned_array(drv, 0), memory, drv.Stream(1))


def _no_order_on_the_host(drv: Any) -> None:
    one, two, target = drv.mem_alloc(SIZE), drv.mem_alloc(SIZE), pinned_array(drv, 0)
    drv.memcpy_dtoh_async(target, one, drv.Stream(1))
    drv.memcpy_dtoh_async(target, two, drv.Stream(1))


def _no_context(drv: Any) -> None:
    drv.Context.pop()
    try:
        drv.mem_alloc(SIZE)
    finally:
        drv.Device(0).retain_primary_context().push()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (_beyond, "beyond the end of the 1024 bytes"),
        (_freed, "freed memory, once the 1024 bytes"),
        (_freed_before_it_ran, "freed memory, once the 1024 bytes"),
        (_not_pinned, "not page-locked host memory"),
        (_pinned_and_gone, "not page-locked host memory, or not any more"),
        (_no_order, "neither waits for the other"),
        (_no_order_on_the_host, "neither waits for the other"),
        (_no_context, "cuMemAlloc: no context is current in MainThread"),
    ],
)
def test_misuse_is_an_error_and_kept(act: Callable[[Any], None], words: str, wrong: Machine, drv: Any) -> None:
    with pytest.raises(MisuseError, match=words):
        act(drv)
    assert any(words in fault for fault in wrong.faults)


def test_a_context_is_current_in_its_thread_alone(wrong: Machine, drv: Any) -> None:
    stream, caught = drv.Stream(1), []

    def work() -> None:
        try:
            stream.synchronize()
        except MisuseError as error:
            caught.append(str(error))

    thread = threading.Thread(target=work, name="other")
    thread.start()
    thread.join()
    assert caught == ["cuStreamSynchronize: no context is current in other"]
    drv.Context.pop()
    with pytest.raises(drv.LogicError, match="context::pop failed: invalid device context - cannot pop"):
        drv.Context.pop()
    drv.Device(0).retain_primary_context().push()


def test_what_is_let_go_without_a_context_is_told(wrong: Machine, drv: Any) -> None:
    things = [drv.mem_alloc(SIZE), drv.Stream(1), drv.Event(2), pinned_array(drv, 0)]
    drv.Context.pop()
    things.clear()
    gc.collect()
    drv.Device(0).retain_primary_context().push()
    assert len(wrong.faults) == 4
    assert all("context is" in words for words in wrong.faults)


def _leave(act: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_doubles(monkeypatch), CudaDevice() as device:
        kept = act(device.driver)
    del kept


def test_what_is_not_given_back_fails_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError) as caught:
        _leave(lambda drv: [drv.mem_alloc(SIZE), pinned_array(drv, 0), drv.Stream(1), drv.Event()], monkeypatch)
    for words in ("1 allocations of device memory", "1 arrays of page-locked memory", "1 streams", "1 events"):
        assert words in str(caught.value)
    with pytest.raises(AssertionError, match="1 pieces of work that nobody waited for"):
        _leave(lambda drv: drv.memset_d8(drv.mem_alloc(SIZE), 0, SIZE), monkeypatch)
    with pytest.raises(AssertionError, match="1 contexts on a thread's stack"):
        _leave(lambda drv: drv.Device(0).retain_primary_context().push(), monkeypatch)


def test_what_is_not_faked_is_not_there(wrong: Machine, drv: Any) -> None:
    runtime = import_module("cuda.bindings.runtime")
    stream = drv.Stream(1)
    for owner, name in ((drv, "memcpy_peer"), (drv.Context, "get_current"), (stream, "is_done"), (runtime, "cudaFree")):
        assert not hasattr(owner, name)
    with pytest.raises(AttributeError):
        stream.priority = 1


def test_the_machine_is_as_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"gpus": 2, "compute_capability": (10, 1), "integrated": True, "name": "Thor"}
    with gpu_doubles(monkeypatch, cuda_bindings=False, flavour="tensorrt-rtx", tensorrt_version="1.7.1", **options):
        device = CudaDevice(1)
        assert (device.name, device.compute_capability, device.integrated) == ("Thor", "10.1", True)
        assert import_module("tensorrt_rtx").__version__ == "1.7.1"
        for name in ("tensorrt", "cuda.bindings.runtime"):
            with pytest.raises(ModuleNotFoundError):
                import_module(name)
        with pytest.raises(UnavailableError, match="the driver sees 2 GPUs"):
            CudaDevice(2)
        with device:
            memory = device.driver.mem_alloc(SIZE)
        with CudaDevice(0), pytest.raises(MisuseError, match="memory of GPU 1 under the context of GPU 0"):
            memory.free()
        machine().faults.clear()
        with device:
            memory.free()
    with gpu_doubles(monkeypatch, init_error="no CUDA-capable device is detected"), pytest.raises(UnavailableError):
        CudaDevice()
    with gpu_doubles(monkeypatch, pycuda=False), pytest.raises(UnavailableError, match="PyCUDA is not installed"):
        CudaDevice()
    with pytest.raises(RuntimeError, match="no double is installed"):
        machine()
