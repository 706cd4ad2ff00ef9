"""Arrays of other libraries that are on the GPU already, taken as they are: no copy, and no library imported.

Protocols: DLPack as the Python array API standard (2023.12) has it in ``__dlpack__``, and "CUDA Array Interface
(Version 3)" in the Numba documentation.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hamr_edge.dlpack import CUDA, CUDA_MANAGED, VERSION, read_capsule
from hamr_edge.errors import InputError

_LEGACY_DEFAULT_STREAM = 1
"""The default stream by both protocols, and by CUDA itself, where 0 could mean two different streams."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """An array in device memory, contiguous in C order. It may be read, not written.

    Attributes:
        pointer: Address of the first element; 0 is possible where there is none.
        shape: Of the array.
        dtype: Of an element.
        owner: Keeps the memory there: hold on to it until the last read is done.
        ready_stream: What this stream holds by now must be done before the first read: a handle, or 1 for the default
            stream. None: the stream that was named to :func:`read_device_array` waits already.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any
    ready_stream: int | None


def is_device_array(value: object) -> bool:
    """True if a value says that it is an array in a GPU's memory; never raises.

    Where a library says by DLPack which device an array is on, that decides: PyTorch built for AMD's GPUs has a
    ``__cuda_array_interface__`` too.
    """
    if isinstance(value, np.ndarray):
        return False
    device = _device_of(value)
    if device is not None:
        return device[0] in (CUDA, CUDA_MANAGED)
    try:
        return hasattr(value, "__cuda_array_interface__")
    except Exception:  # it has one and says why it cannot be read now; read_device_array passes that on
        return True


def read_device_array(value: Any, name: str, stream_handle: int, device_index: int) -> DeviceArray:
    """Take an array that is on a GPU.

    DLPack comes first where a library offers both: there the producer itself makes our stream wait for its work.
    PyTorch's ``__cuda_array_interface__`` (version 2) names no stream, though a kernel may be writing still.

    PyTorch and CuPy count as writing what their current stream of this thread holds. Of an array without DLPack that
    names no stream, the default stream is waited for; what other streams write, if they are made to ignore the default
    one, must be done before the call.

    Args:
        value: For which :func:`is_device_array` is true.
        name: For error messages.
        stream_handle: The stream that will read; 0 is the default stream.
        device_index: The number behind ``cuda:`` of the GPU in use, whose context is current.

    Raises:
        InputError: It is not contiguous, masked, on another device, of a type that numpy does not have, or its
            library does not hand it out.
    """
    if _device_of(value) is not None:
        return take_shared(value, name, stream_handle or _LEGACY_DEFAULT_STREAM, (CUDA, device_index))
    return _take_described(value, name)


def take_shared(value: Any, name: str, stream: int | None, device: tuple[int, int]) -> DeviceArray:
    """Take an array by DLPack.

    Args:
        value: Has ``__dlpack__`` and ``__dlpack_device__``.
        name: For error messages.
        stream: As ``__dlpack__`` takes it: None where the device has no streams.
        device: Kind and number of the device in use. Managed memory is welcome on every GPU.

    Raises:
        InputError: As :func:`read_device_array`.
    """
    found = _device_of(value)
    _check_device(found, device, name)
    try:
        try:
            capsule = value.__dlpack__(stream=stream, max_version=VERSION)
        except TypeError:  # an older library, which knows no max_version
            capsule = value.__dlpack__(stream=stream)
    except Exception as error:  # its library's own types
        raise InputError(f"{name} is on the GPU, but is not handed out by {type(value).__module__}: {error}") from error
    tensor = read_capsule(capsule, name)
    _check_device(tensor.device, device, name)
    _check_layout(name, tensor.pointer, tensor.shape, tensor.strides, 1)
    return DeviceArray(tensor.pointer, tensor.shape, tensor.dtype, owner=capsule, ready_stream=None)


def _take_described(value: Any, name: str) -> DeviceArray:
    """Take an array by its ``__cuda_array_interface__``."""
    try:
        interface = value.__cuda_array_interface__
    except Exception as error:  # PyTorch: RuntimeError for a tensor that wants a gradient
        raise InputError(f"{name} is not an array on a GPU that can be read: {error}") from error
    try:
        pointer = operator.index(interface["data"][0] or 0)
        shape = _whole_numbers(interface["shape"])
        dtype = np.dtype(interface["typestr"])
        strides = interface.get("strides")
        strides = None if strides is None else _whole_numbers(strides)
        stream = interface.get("stream")
        # None means ready by version 3, but PyCUDA says so of arrays that kernels on the default stream still write;
        # before version 3 there was no word for it.
        stream = _LEGACY_DEFAULT_STREAM if stream is None else operator.index(stream)
        mask = interface.get("mask")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"the __cuda_array_interface__ of {name} must be a dict as version 3 defines it, got {interface!r}: {error}"
        ) from error
    if mask is not None:
        raise InputError(f"{name} is masked, and masks are not understood; fill the masked places first")
    if stream <= 0:
        raise InputError(
            f"the __cuda_array_interface__ of {name} names stream {stream}, which says no stream; 1 is the default one"
        )
    _check_layout(name, pointer, shape, strides, dtype.itemsize)
    return DeviceArray(pointer, shape, dtype, owner=value, ready_stream=stream)


def _device_of(value: Any) -> tuple[int, int] | None:
    """Kind and number of the device that a value names by DLPack; None where it names none."""
    try:
        if not hasattr(value, "__dlpack__") or not hasattr(value, "__dlpack_device__"):
            return None
        kind, index = value.__dlpack_device__()
        return int(kind), int(index)
    except Exception:  # PyTorch: ValueError for a tensor on no real device
        return None


def _check_device(found: tuple[int, int] | None, wanted: tuple[int, int], name: str) -> None:
    if found == wanted or (found is not None and found[0] == CUDA_MANAGED and wanted[0] == CUDA):
        return
    words = "no device" if found is None else f"cuda:{found[1]}" if found[0] == CUDA else f"DLPack's device {found}"
    raise InputError(
        f"{name} must be on the GPU in use, cuda:{wanted[1]}, but is on {words}; move it there, or open the engine "
        "with the device it is on"
    )


def _check_layout(name: str, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...] | None, step: int) -> None:
    """Hold strides against those of C order, where the last dimension advances by ``step``."""
    if min(shape, default=1) < 0 or (strides is not None and len(strides) != len(shape)):
        raise InputError(f"{name} says that it has shape {shape} and strides {strides}, which is no array")
    if 0 in shape:
        return
    if pointer <= 0:
        raise InputError(f"{name} has shape {shape}, but its address is {pointer}: its memory was given back")
    for size, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if size != 1 and stride != step:
            raise InputError(
                f"{name} must be contiguous in C order, got shape {shape} with strides {strides}; call .contiguous() "
                "on it (PyTorch) or cupy.ascontiguousarray (CuPy)"
            )
        step *= size


def _whole_numbers(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(operator.index(value) for value in values)
