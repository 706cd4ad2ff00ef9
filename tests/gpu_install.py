"""Puts the doubles of PyCUDA, cuda-bindings and TensorRT where our code imports the real ones."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hamr_edge import cuda_device
from hamr_edge.dlpack import CUDA, tensor_in
from hamr_edge.engine_record import TENSORRT as ENTERPRISE
from tests.cuda_bindings_double import RUNTIME
from tests.cuda_double import DeviceAllocation
from tests.cuda_memory_double import DRIVER, mem_alloc
from tests.double_streams import Step
from tests.gpu_double import Machine, Options, activate, machine
from tests.new_garbage import only_new_garbage
from tests.tensorrt_double import TENSORRT

_REAL = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda", "cuda")


@contextmanager
def gpu_doubles(
    monkeypatch: pytest.MonkeyPatch,
    flavour: str = ENTERPRISE,
    cuda_bindings: bool = True,
    pycuda: bool = True,
    check: bool = True,
    **options: Any,
) -> Iterator[Machine]:
    """Install the doubles for the length of a ``with`` statement, in a new machine.

    Args:
        monkeypatch: Of the test.
        flavour: Which TensorRT is there, as in :mod:`hamr_edge.engine_record`.
        cuda_bindings: Whether ``cuda.bindings`` is there.
        pycuda: Whether PyCUDA is there.
        check: At a clean end, raise AssertionError for faults and for what was not given back.
        **options: Fields of :class:`tests.gpu_double.Options`.
    """
    new = Machine(Options(**options))
    with monkeypatch.context() as patch, only_new_garbage():
        for name in [name for name in sys.modules if name.split(".")[0] in _REAL]:
            patch.delitem(sys.modules, name)
        for name in _REAL:
            patch.setitem(sys.modules, name, None)
        flavoured = "tensorrt" if flavour == ENTERPRISE else "tensorrt_rtx"
        modules = {flavoured: {**TENSORRT, "__version__": new.options.tensorrt_version}}
        if pycuda:
            modules |= {"pycuda": {}, "pycuda.driver": DRIVER}
        if cuda_bindings:
            modules |= {"cuda": {}, "cuda.bindings": {}, "cuda.bindings.runtime": RUNTIME}
        for name, names in modules.items():
            patch.setitem(sys.modules, name, _module(name, names))
        patch.setattr(cuda_device, "_contexts", {})
        activate(new)
        try:
            yield new
            gc.collect()
            problems = [*new.faults, *new.leaks()] if check else []
            assert problems == [], problems
        finally:
            activate(None)


class DeviceFrame:
    """An array in the double's device memory that says so by the CUDA array interface.

    Args:
        array: What it holds.
        stream: Handle of the stream on which the producer works; None says that the data is ready.
        offset: Bytes between the beginning of the allocation and the array.
    """

    def __init__(self, array: NDArray[Any], stream: int | None, offset: int) -> None:
        contiguous = np.ascontiguousarray(array)
        self.allocation: DeviceAllocation = mem_alloc(offset + max(contiguous.nbytes, 1))
        self.pointer = int(self.allocation) + offset
        self._gpu, self._stream = machine().stack[-1], stream
        held = machine().device_bytes(self._gpu, self.pointer, contiguous.nbytes)
        self._view = held.view(contiguous.dtype).reshape(contiguous.shape)
        self._view[...] = contiguous
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": contiguous.shape,
            "typestr": contiguous.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "stream": stream,
        }

    def numpy(self) -> NDArray[Any]:
        """What it holds now, without waiting for anything."""
        return self._view.copy()


class SharedFrame(DeviceFrame):
    """The same by DLPack too, as PyTorch offers it: the consumer's stream is made to wait for the producer's."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._gpu

    def __dlpack__(self, *, stream: int, max_version: tuple[int, int] | None = None) -> Any:
        with machine().call("__dlpack__"):
            if self._stream is not None:
                streams = machine().streams
                recorded = machine().put(streams.find(self._stream, self._gpu), Step("record an event", _nothing))
                machine().put(streams.find(stream, self._gpu), Step("wait for an event", _nothing), recorded)
        # numpy's capsule, of which only the device is changed.
        capsule = self._view.__dlpack__()
        device = tensor_in(capsule, "the double").device
        device.kind, device.index = self.__dlpack_device__()
        return capsule


def device_array(
    array: NDArray[Any], stream: int | None = None, offset: int = 0, dlpack: bool = False
) -> DeviceFrame | SharedFrame:
    """Put a numpy array on the current GPU; free it with ``.allocation.free()``, or let it go inside the context."""
    return (SharedFrame if dlpack else DeviceFrame)(array, stream, offset)


def _nothing() -> None:
    pass


def _module(name: str, names: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(names)
    return module
