"""DLPack capsules: reading what another library hands out, and handing out memory of our own.

Structures as in ``dlpack.h`` 1.0 (DMLC, 2024); who owns a capsule as in "Python Specification for DLPack" (DMLC).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from hamr_edge.errors import InputError

CPU = 1
CUDA = 2
CUDA_MANAGED = 13
"""Kinds of device, as ``DLDeviceType`` counts them."""
VERSION = (1, 0)
"""The newest structures read and written here; a newer minor version has the same ones."""

_PLAIN = b"dltensor"
_VERSIONED = b"dltensor_versioned"
_TYPE_LETTERS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}
"""numpy's letters for those of ``DLDataTypeCode`` that it has."""


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _VersionedTensor(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


# Prototypes of our own: argument types set on ctypes.pythonapi would be shared with every other library.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_address_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


@dataclass(frozen=True, slots=True)
class SharedTensor:
    """What a capsule describes. The memory is there as long as the capsule is.

    Attributes:
        pointer: Address of the first element; 0 where there is none.
        shape: Of the array.
        strides: Elements from one to the next in each dimension; None: contiguous in C order.
        dtype: Of an element.
        device: Kind and number.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[Any]
    device: tuple[int, int]


def read_capsule(capsule: Any, name: str) -> SharedTensor:
    """Read what a capsule describes, and leave it as it is.

    The capsule is not renamed to ``used_dltensor``: that would make calling its deleter our duty. As nobody else knows
    of a capsule that ``__dlpack__`` has just given, holding on to it is enough, and the producer's own destructor, in
    its own language and at any time and in any thread, calls the deleter once when the capsule goes.

    Args:
        capsule: As ``__dlpack__`` gives it, of either kind, not yet consumed.
        name: For error messages.

    Raises:
        InputError: It is no such capsule, of another major version, or of a type that numpy does not have.
    """
    tensor = tensor_in(capsule, name)
    shape = tuple(tensor.shape[: tensor.ndim]) if tensor.ndim else ()
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.ndim and tensor.strides else None
    return SharedTensor(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        strides=strides,
        dtype=_numpy_type(tensor.dtype, name),
        device=(tensor.device.kind, tensor.device.index),
    )


def make_capsule(pointer: int, shape: tuple[int, ...], owner: object, device: tuple[int, int], versioned: bool) -> Any:
    """A capsule of contiguous float32 memory.

    numpy makes it, for an array at that address, and only the device is changed: so the deleter is numpy's, in C,
    which may be called by any thread, while the interpreter ends, and after it.

    Args:
        pointer: Address of the first element. It is not read.
        shape: Of the array.
        owner: Kept alive until the capsule, or whoever consumed it, is done.
        device: Kind and number.
        versioned: Use the structures of DLPack 1.0, if this numpy has them (from 2.1 on).
    """
    array = np.asarray(_Described(pointer, shape, owner))
    capsule: Any
    try:
        capsule = array.__dlpack__(max_version=VERSION) if versioned else array.__dlpack__()
    except TypeError:
        capsule = array.__dlpack__()
    tensor = tensor_in(capsule, "array")
    tensor.device.kind, tensor.device.index = device
    if 0 in shape:
        tensor.data = None
    return capsule


class _Described:
    """Memory as numpy wants it described. An array made of it keeps it, and so ``owner``, alive."""

    def __init__(self, pointer: int, shape: tuple[int, ...], owner: object) -> None:
        typestr = np.dtype(np.float32).str
        address = pointer or int(0 in shape)  # numpy takes no address of 0, even of nothing
        self.__array_interface__ = {"data": (address, False), "shape": shape, "typestr": typestr, "version": 3}
        self.owner = owner


def tensor_in(capsule: Any, name: str) -> Any:
    """The ``DLTensor`` inside a capsule, to read or change: valid as long as the capsule is.

    Raises:
        InputError: As :func:`read_capsule`, but for the type.
    """
    if _is_valid(capsule, _VERSIONED):
        managed = _VersionedTensor.from_address(_address_in(capsule, _VERSIONED))
        if managed.major != VERSION[0]:
            raise InputError(
                f"{name} comes as DLPack {managed.major}.{managed.minor}, but 1.x is understood; use an older version "
                "of the library it is from"
            )
        return managed.tensor
    if _is_valid(capsule, _PLAIN):
        return _ManagedTensor.from_address(_address_in(capsule, _PLAIN)).tensor
    raise InputError(
        f"__dlpack__ of {name} must give a new DLPack capsule, got {capsule!r}; pass the array itself, not a capsule "
        "that was consumed"
    )


def _numpy_type(dtype: Any, name: str) -> np.dtype[Any]:
    letter = _TYPE_LETTERS.get(dtype.code)
    if dtype.lanes == 1 and letter is not None and dtype.bits % 8 == 0:
        try:
            return np.dtype(f"{letter}{dtype.bits // 8}")
        except TypeError:
            pass
    raise InputError(
        f"{name} has DLPack's type code {dtype.code} with {dtype.bits} bits and {dtype.lanes} lanes, which numpy does "
        "not have; convert it to uint8 (PyTorch: .to(torch.uint8))"
    )
