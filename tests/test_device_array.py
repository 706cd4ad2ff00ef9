"""Taking arrays as they are: numpy's and PyTorch's own on the host, and embeddings that say they are on a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from hamr_edge.device_array import DeviceArray, is_device_array, read_device_array, take_shared
from hamr_edge.device_embeddings import DeviceEmbeddings
from hamr_edge.dlpack import CPU, CUDA, CUDA_MANAGED
from hamr_edge.errors import InputError
from tests.new_garbage import only_new_garbage
from tests.shared_arrays import Watched, any_layout, host_embeddings

ON_HOST = (CPU, 0)


@pytest.fixture(autouse=True)
def only_this_tests_garbage() -> Iterator[None]:
    with only_new_garbage():
        yield


class Described:
    """An array as Numba or PyCUDA describe theirs; its memory is numpy's, and is not read."""

    def __init__(self, array: np.ndarray, **entries: Any) -> None:
        interface = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data if array.size else 0, False),
            "strides": array.strides,
            "version": 3,
        }
        self.array = array
        self.__cuda_array_interface__ = interface | entries


class Refusing:
    """An array whose library does not describe it now, as PyTorch with a tensor that wants a gradient."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise RuntimeError("use var.detach()")


class OnDevice:
    """Shares nothing, but names a device."""

    def __init__(self, *device: Any) -> None:
        self.device = device

    def __dlpack__(self, **_: Any) -> None:
        raise BufferError("not shared")

    def __dlpack_device__(self) -> Any:
        return self.device


class Listening(DeviceEmbeddings):
    """Embeddings that keep what their consumer asks for."""

    asked: tuple[Any, ...] = ()

    def __dlpack__(self, *, stream: int | None = None, **others: Any) -> Any:
        self.asked = (stream, others.get("max_version"))
        return super().__dlpack__(stream=stream, **others)


class Elsewhere(DeviceEmbeddings):
    """Embeddings that say they are on cuda:0, in a capsule that says otherwise."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, 0


class Older(DeviceEmbeddings):
    """Embeddings as a library from before DLPack 1.0 would share them."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:  # type: ignore[override]
        return super().__dlpack__(stream=stream)


def _is_read_in_place(read: DeviceArray, array: np.ndarray) -> bool:
    return (read.shape, read.dtype) == (array.shape, array.dtype) and (
        not array.size or read.pointer == array.ctypes.data
    )


def test_arrays_on_a_gpu_are_told_from_others() -> None:
    on_gpu = [Described(np.zeros(2)), Refusing(), OnDevice(CUDA, 1), OnDevice(CUDA_MANAGED, 0)]
    assert all(map(is_device_array, on_gpu))
    assert is_device_array(host_embeddings(kind=CUDA).hand_out())
    elsewhere = [np.zeros(2), [1, 2], None, "x", np.float32(1), host_embeddings().hand_out(), OnDevice(10, 0)]
    assert not any(map(is_device_array, elsewhere))
    pinned, no_device, words = OnDevice(3, 0), OnDevice(), OnDevice("cuda", 0)
    assert not any(map(is_device_array, [pinned, no_device, words]))


def test_tensors_of_pytorch_that_are_not_on_a_gpu_are_told() -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.zeros(2), torch.zeros(2, requires_grad=True), torch.zeros(2, device="meta")]
    assert not any(map(is_device_array, tensors))


def test_a_device_named_by_dlpack_counts_more() -> None:
    array = OnDevice(10, 0)  # an AMD GPU, for which PyTorch has a __cuda_array_interface__ as well
    array.__cuda_array_interface__ = {}  # type: ignore[attr-defined]
    assert not is_device_array(array)


@given(array=any_layout())
def test_what_is_contiguous_is_read_in_place_and_nothing_else(array: np.ndarray) -> None:
    if array.flags.c_contiguous:
        assert _is_read_in_place(take_shared(array, "frame", None, ON_HOST), array)
        assert _is_read_in_place(read_device_array(Described(array), "frame", 7, 0), array)
        return
    for read in (
        lambda: take_shared(array, "frame", None, ON_HOST),
        lambda: read_device_array(Described(array), "frame", 7, 0),
    ):
        with pytest.raises(InputError, match=r"frame must be contiguous in C order, .* \.contiguous\(\) .* cupy"):
            read()


def test_a_refused_array_is_given_back() -> None:
    array = np.zeros((4, 4)).view(Watched)
    alive = weakref.ref(array)
    with pytest.raises(InputError, match="contiguous"):
        take_shared(array.T[1:], "frame", None, ON_HOST)
    del array
    gc.collect()
    assert alive() is None


def test_an_array_lives_as_long_as_what_was_read() -> None:
    for read in (lambda array: take_shared(array, "frame", None, ON_HOST), lambda array: _described(array)):
        array = np.zeros((4, 4)).view(Watched)
        alive = weakref.ref(array)
        taken = read(array)
        del array
        gc.collect()
        assert alive() is not None
        del taken
        gc.collect()
        assert alive() is None


def _described(array: np.ndarray) -> DeviceArray:
    return read_device_array(Described(array), "frame", 7, 0)


def test_tensors_of_pytorch_are_taken() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)
    taken = take_shared(tensor[1:], "frame", None, ON_HOST)
    assert (taken.pointer, taken.shape, taken.dtype) == (tensor.data_ptr() + 12, (1, 4, 3), np.uint8)
    with pytest.raises(InputError, match="contiguous"):
        take_shared(tensor.permute(2, 0, 1), "frame", None, ON_HOST)
    with pytest.raises(InputError, match=r"frame is on the GPU, but is not handed out by torch: .*use tensor\.detach"):
        take_shared(torch.zeros(2, requires_grad=True), "frame", None, ON_HOST)


def test_a_producer_hears_of_our_stream() -> None:
    given_back = host_embeddings(kind=CUDA)
    rows = given_back.rows
    array = Listening(rows.ctypes.data, (3, 4), 0, lambda: given_back.freed.append("freed"), rows.copy)
    taken = read_device_array(array, "batch", 94_000, 0)
    assert array.asked == (94_000, (1, 0))
    assert (taken.pointer, taken.shape, taken.dtype) == (rows.ctypes.data, (3, 4), np.float32)
    assert taken.ready_stream is None  # the producer has seen to it
    read_device_array(array, "batch", 0, 0)
    assert array.asked[0] == 1  # by the protocol, the default stream is never 0
    array.release()
    assert not given_back.freed
    del taken
    assert given_back.freed == ["freed"]


def test_an_older_producer_is_understood() -> None:
    rows = host_embeddings().rows
    array = Older(rows.ctypes.data, (3, 4), 0, lambda: None, rows.copy)
    assert read_device_array(array, "batch", 7, 0).pointer == rows.ctypes.data


@pytest.mark.parametrize("kind", [CUDA, CUDA_MANAGED])
def test_another_gpu_is_refused(kind: int) -> None:
    embeddings = host_embeddings(kind=kind).hand_out()
    if kind == CUDA_MANAGED:  # every GPU reads it
        assert read_device_array(embeddings, "batch", 7, 1).shape == (3, 4)
        return
    with pytest.raises(InputError, match=r"batch must be on the GPU in use, cuda:1, but is on cuda:0; move it there"):
        read_device_array(embeddings, "batch", 7, 1)


def test_the_capsule_has_the_last_word_on_its_device() -> None:
    rows = host_embeddings().rows
    array = Elsewhere(rows.ctypes.data, (3, 4), 1, lambda: None, rows.copy)
    with pytest.raises(InputError, match=r"batch must be on the GPU in use, cuda:0, but is on cuda:1"):
        read_device_array(array, "batch", 7, 0)


def test_memory_of_another_kind_of_device_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"batch must be on the GPU in use, cuda:0, but is on DLPack's device \(1, 0\)"
    ):
        read_device_array(np.zeros(2), "batch", 7, 0)


def test_the_words_of_the_library_are_passed_on() -> None:
    with pytest.raises(InputError, match=r"batch is on the GPU, but is not handed out by .*: not shared"):
        read_device_array(OnDevice(CUDA, 0), "batch", 7, 0)
    with pytest.raises(InputError, match=r"batch is not an array on a GPU that can be read: use var\.detach\(\)"):
        read_device_array(Refusing(), "batch", 7, 0)
    with pytest.raises(InputError, match="batch is not an array on a GPU that can be read"):
        read_device_array([1, 2], "batch", 7, 0)


@pytest.mark.parametrize(
    ("entries", "stream"),
    [({"stream": 5}, 5), ({"stream": 1}, 1), ({"stream": 2}, 2), ({"stream": None}, 1), ({}, 1), ({"version": 2}, 1)],
)
def test_a_stream_is_waited_for(entries: dict[str, Any], stream: int) -> None:
    array = Described(np.zeros((2, 3), np.uint8), **entries)
    assert read_device_array(array, "frame", 7, 0).ready_stream == stream


def test_read_only_and_left_out_strides_are_fine() -> None:
    array = np.zeros((2, 3), np.uint8)
    entries = {"strides": None, "data": (array.ctypes.data, True), "mask": None}
    assert _is_read_in_place(read_device_array(Described(array, **entries), "frame", 7, 0), array)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"mask": np.zeros(2)}, r"frame is masked, and masks are not understood"),
        ({"stream": 0}, r"of frame names stream 0, which says no stream; 1 is the default one"),
        ({"data": (0, False)}, r"frame has shape \(2, 3\), but its address is 0: its memory was given back"),
        ({"data": (None, False)}, r"its address is 0"),
        ({"shape": (-1, 3)}, r"frame says that it has shape \(-1, 3\) and strides \(3, 1\), which is no array"),
        ({"strides": (1,)}, r"strides \(1,\), which is no array"),
        ({"shape": 3}, r"the __cuda_array_interface__ of frame must be a dict as version 3 defines it"),
        ({"shape": (2.5, 3)}, r"must be a dict as version 3 defines it"),
        ({"typestr": "no type"}, r"must be a dict as version 3 defines it"),
        ({"data": 5}, r"must be a dict as version 3 defines it"),
        ({"stream": "default"}, r"must be a dict as version 3 defines it"),
    ],
)
def test_a_wrong_description_is_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_device_array(Described(np.zeros((2, 3), np.uint8), **entries), "frame", 7, 0)


@pytest.mark.parametrize("interface", [None, {}, [], {"shape": (2,)}])
def test_what_is_no_description_is_refused(interface: object) -> None:
    array = Described(np.zeros(2))
    array.__cuda_array_interface__ = interface  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"must be a dict as version 3 defines it"):
        read_device_array(array, "frame", 7, 0)
