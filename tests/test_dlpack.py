"""Capsules that numpy and PyTorch make, read by us; capsules that we make, read by numpy and PyTorch."""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from hamr_edge.dlpack import CPU, CUDA, make_capsule, read_capsule, tensor_in
from hamr_edge.errors import InputError
from tests.new_garbage import only_new_garbage
from tests.shared_arrays import Watched, any_layout

VERSIONED = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
EITHER = pytest.mark.parametrize("versioned", [False, True] if VERSIONED else [False])


@pytest.fixture(autouse=True)
def only_this_tests_garbage() -> Iterator[None]:
    with only_new_garbage():
        yield


def _capsule(array: Any, versioned: bool) -> Any:
    return array.__dlpack__(max_version=(1, 0)) if versioned else array.__dlpack__()


class _Handing:
    """What ``from_dlpack`` takes: hands out one capsule that is there already."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0


@EITHER
@given(array=any_layout())
def test_what_numpy_hands_out_is_read(versioned: bool, array: np.ndarray) -> None:
    capsule = _capsule(array, versioned)
    read = read_capsule(capsule, "array")
    assert read.shape == array.shape
    assert read.dtype == array.dtype
    assert read.device == (CPU, 0)
    assert read.pointer == array.ctypes.data
    if read.strides is None:  # some versions of numpy leave them out where they say nothing
        assert array.flags.c_contiguous
    else:
        assert read.strides == tuple(stride // array.itemsize for stride in array.strides)


@EITHER
def test_what_pytorch_hands_out_is_read(versioned: bool) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.int32).reshape(2, 3, 4)[:, 1:].transpose(0, 2)
    capsule = _capsule(tensor, versioned)
    read = read_capsule(capsule, "tensor")
    assert (read.shape, read.strides) == ((4, 2, 2), (1, 4, 12))
    assert read.dtype == np.int32
    assert read.pointer == tensor.data_ptr()
    assert read_capsule(_capsule(torch.ones(2, dtype=torch.bool), versioned), "flags").dtype == np.bool_
    assert read_capsule(_capsule(torch.ones(()), versioned), "one").shape == ()


@EITHER
def test_the_producer_lives_as_long_as_its_capsule(versioned: bool) -> None:
    array = np.arange(6.0).view(Watched)
    alive = weakref.ref(array)
    capsule = _capsule(array, versioned)
    read_capsule(capsule, "array")
    del array
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(np.from_dlpack(_Handing(capsule)), np.arange(6.0))  # reading did not consume it
    del capsule
    gc.collect()
    assert alive() is None


@EITHER
def test_an_offset_belongs_to_the_address(versioned: bool) -> None:
    array = np.arange(6, dtype=np.uint8)
    capsule = _capsule(array, versioned)
    tensor_in(capsule, "array").byte_offset = 2
    assert read_capsule(capsule, "array").pointer == array.ctypes.data + 2


@EITHER
def test_strides_may_be_left_out(versioned: bool) -> None:
    capsule = _capsule(np.zeros((2, 3)), versioned)
    ctypes.c_void_p.from_buffer(tensor_in(capsule, "array").strides).value = None
    assert read_capsule(capsule, "array").strides is None


@pytest.mark.parametrize(("field", "value"), [("lanes", 4), ("code", 4), ("bits", 4), ("bits", 24), ("code", 17)])
def test_a_type_that_numpy_lacks_is_refused(field: str, value: int) -> None:
    capsule = np.zeros(2, np.uint8).__dlpack__()
    setattr(tensor_in(capsule, "frame").dtype, field, value)
    with pytest.raises(InputError, match=r"frame has DLPack's type code \d+ with \d+ bits and \d lanes, which numpy"):
        read_capsule(capsule, "frame")


def test_bfloat16_is_refused_and_given_back() -> None:
    torch = pytest.importorskip("torch")
    capsule = _capsule(torch.zeros(2, dtype=torch.bfloat16), True)
    with pytest.raises(InputError, match=r"type code 4 with 16 bits .* convert it to uint8"):
        read_capsule(capsule, "frame")


@pytest.mark.skipif(not VERSIONED, reason="numpy before 2.1 makes no versioned capsules")
def test_another_major_version_is_refused_and_given_back() -> None:
    array = np.zeros(2, np.uint8).view(Watched)
    alive = weakref.ref(array)
    capsule = _capsule(array, True)
    del array
    before_tensor = 32  # bytes of DLManagedTensorVersioned that stay as they are in every version
    major = ctypes.c_uint32.from_address(ctypes.addressof(tensor_in(capsule, "frame")) - before_tensor)
    assert major.value == 1
    major.value = 2
    with pytest.raises(InputError, match=r"frame comes as DLPack 2\.0, but 1\.x is understood"):
        read_capsule(capsule, "frame")
    del capsule, major
    gc.collect()
    assert alive() is None


@EITHER
def test_a_consumed_capsule_is_refused(versioned: bool) -> None:
    capsule = _capsule(np.zeros(2), versioned)
    taken = np.from_dlpack(_Handing(capsule))
    with pytest.raises(InputError, match=r"frame must give a new DLPack capsule, got <capsule object \"used_dltensor"):
        read_capsule(capsule, "frame")
    assert taken.shape == (2,)


@pytest.mark.parametrize("value", [None, 3, "dltensor", np.zeros(2)])
def test_what_is_no_capsule_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="must give a new DLPack capsule"):
        read_capsule(value, "frame")


def _by_numpy(capsule: Any) -> Any:
    return np.from_dlpack(_Handing(capsule))


def _by_torch(capsule: Any) -> Any:
    return pytest.importorskip("torch").from_dlpack(capsule)


@EITHER
@pytest.mark.parametrize("consume", [_by_numpy, _by_torch])
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (0, 3), (5,), ()])
def test_what_we_hand_out_is_read(shape: tuple[int, ...], consume: Callable[[Any], Any], versioned: bool) -> None:
    memory = np.arange(6, dtype=np.float32)[: int(np.prod(shape))].view(Watched)
    alive = weakref.ref(memory)
    expected = np.array(memory).reshape(shape)
    taken = consume(make_capsule(memory.ctypes.data, shape, memory, (CPU, 0), versioned))
    assert tuple(taken.shape) == shape
    np.testing.assert_array_equal(np.asarray(taken), expected)
    if expected.size:
        memory[0] = 42
        assert np.asarray(taken).flat[0] == 42  # the same memory
    del memory
    gc.collect()
    assert alive() is not None
    del taken
    gc.collect()
    assert alive() is None


@EITHER
def test_memory_on_a_gpu_is_described_and_never_read(versioned: bool) -> None:
    unmapped = 0x7F00_0000_0000_0000
    read = read_capsule(make_capsule(unmapped, (2, 3), None, (CUDA, 5), versioned), "array")
    assert (read.pointer, read.shape, read.dtype, read.device) == (unmapped, (2, 3), np.float32, (CUDA, 5))
    assert read_capsule(make_capsule(0, (0, 3), None, (CUDA, 0), versioned), "array").pointer == 0


@EITHER
def test_a_consumer_without_that_device_leaves_the_memory_to_us(versioned: bool) -> None:
    memory = np.zeros(6, np.float32).view(Watched)
    alive = weakref.ref(memory)
    capsule = make_capsule(memory.ctypes.data, (6,), memory, (CUDA, 0), versioned)
    del memory
    with pytest.raises((RuntimeError, BufferError), match="device"):
        _by_numpy(capsule)
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None
