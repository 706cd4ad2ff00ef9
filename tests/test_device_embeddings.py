"""Embeddings that stay where they are, read by numpy and PyTorch, with the host's memory as the device."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hamr_edge.device_array import read_device_array
from hamr_edge.dlpack import CPU, CUDA, read_capsule
from hamr_edge.errors import HamrEdgeError
from tests.new_garbage import only_new_garbage
from tests.shared_arrays import host_embeddings


@pytest.fixture(autouse=True)
def only_this_tests_garbage() -> Iterator[None]:
    with only_new_garbage():
        yield


def _from_torch(value: Any) -> Any:
    return pytest.importorskip("torch").from_dlpack(value)


CONSUMERS = pytest.mark.parametrize("consume", [np.from_dlpack, _from_torch])


def test_what_they_say_of_themselves() -> None:
    source = host_embeddings(kind=CUDA)
    embeddings = source.hand_out()
    assert (embeddings.shape, embeddings.dtype, len(embeddings)) == ((3, 4), np.float32, 3)
    assert embeddings.__dlpack_device__() == (CUDA, 0)
    assert repr(embeddings) == "DeviceEmbeddings(shape=(3, 4), device='cuda:0')"
    assert embeddings.__cuda_array_interface__ == {
        "shape": (3, 4),
        "typestr": "<f4",
        "data": (source.rows.ctypes.data, False),
        "strides": None,
        "stream": None,
        "version": 3,
    }
    assert host_embeddings(rows=0).hand_out().__cuda_array_interface__["data"] == (0, False)


@pytest.mark.parametrize("method", ["numpy", "to_host"])
def test_a_copy_on_the_host_is_the_callers(method: str) -> None:
    source = host_embeddings()
    embeddings = source.hand_out()
    on_host = getattr(embeddings, method)()
    np.testing.assert_array_equal(on_host, source.rows)
    on_host[:] = 0
    assert source.rows.all()


@CONSUMERS
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_another_library_shares_the_memory_and_keeps_it(rows: int, consume: Callable[[Any], Any]) -> None:
    source = host_embeddings(rows)
    embeddings = source.hand_out()
    first, second = consume(embeddings), consume(embeddings)
    del embeddings
    gc.collect()
    assert not source.freed
    assert tuple(first.shape) == (rows, 4)
    np.testing.assert_array_equal(np.asarray(first), source.rows)
    if rows:
        source.rows[0, 0] = 42
        assert first[0, 0] == second[0, 0] == 42
    view = first[:1]
    del first
    gc.collect()
    del second
    gc.collect()
    assert not source.freed
    del view
    gc.collect()
    assert source.freed == ["freed"]


def test_a_capsule_that_nobody_takes_gives_the_memory_back() -> None:
    source = host_embeddings()
    embeddings = source.hand_out()
    capsules = [embeddings.__dlpack__(), embeddings.__dlpack__(max_version=(1, 3)), embeddings.__dlpack__(stream=9)]
    embeddings.release()
    while capsules:
        assert not source.freed
        capsules.pop()
    assert source.freed == ["freed"]


@CONSUMERS
def test_what_was_shared_outlives_the_release(consume: Callable[[Any], Any]) -> None:
    source = host_embeddings()
    embeddings = source.hand_out()
    taken = consume(embeddings)
    embeddings.release()
    embeddings.release()
    assert not source.freed
    np.testing.assert_array_equal(np.asarray(taken), source.rows)
    del taken
    gc.collect()
    assert source.freed == ["freed"]
    del embeddings
    gc.collect()
    assert source.freed == ["freed"]


def test_after_the_release_each_use_is_refused() -> None:
    source = host_embeddings()
    embeddings = source.hand_out()
    embeddings.release()
    assert source.freed == ["freed"]
    assert repr(embeddings).endswith(", released)")
    for use in (
        embeddings.numpy,
        embeddings.to_host,
        embeddings.__dlpack__,
        lambda: embeddings.__cuda_array_interface__,
        lambda: np.from_dlpack(embeddings),
    ):
        with pytest.raises(HamrEdgeError, match=r"these embeddings were released; use them before release\(\)"):
            use()


@pytest.mark.parametrize("wish", [{"copy": True}, {"dl_device": (CPU, 0)}, {"dl_device": (CUDA, 1)}])
def test_a_copy_or_another_device_is_refused_as_the_protocol_has_it(wish: dict[str, Any]) -> None:
    embeddings = host_embeddings(kind=CUDA).hand_out()
    with pytest.raises(BufferError, match=r"on cuda:0 are shared as they are, without a copy; numpy\(\) copies"):
        embeddings.__dlpack__(**wish)
    assert read_capsule(embeddings.__dlpack__(dl_device=(CUDA, 0), copy=False), "array").device == (CUDA, 0)


def test_numpy_does_not_take_them_for_memory_of_its_own() -> None:
    embeddings = host_embeddings(kind=CUDA).hand_out()
    with pytest.raises(HamrEdgeError, match=r"embeddings on cuda:0 are no numpy array; numpy\(\) copies them"):
        np.asarray(embeddings)
    with pytest.raises((RuntimeError, BufferError), match="device"):
        np.from_dlpack(embeddings)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_no_second_object_holds_the_address_alone(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(HamrEdgeError, match=r"neither copied nor pickled; numpy\(\) copies them to the host"):
        duplicate(host_embeddings().hand_out())


def test_a_pytorch_without_a_gpu_refuses_them_and_gives_them_back_once() -> None:
    torch = pytest.importorskip("torch")
    source = host_embeddings(kind=CUDA)
    embeddings = source.hand_out()
    capsule = embeddings.__dlpack__(max_version=(1, 0))
    embeddings.release()
    assert not source.freed
    if not torch.cuda.is_available():
        with pytest.raises((RuntimeError, AssertionError, BufferError)):
            torch.from_dlpack(capsule)
    del capsule
    gc.collect()
    assert source.freed == ["freed"]


def test_they_go_back_in_as_they_came() -> None:
    source = host_embeddings(kind=CUDA)
    taken = read_device_array(source.hand_out(), "batch", 7, 0)
    assert (taken.pointer, taken.shape) == (source.rows.ctypes.data, (3, 4))
    assert not source.freed
    del taken
    assert source.freed == ["freed"]


def test_the_last_user_may_be_another_thread() -> None:
    source = host_embeddings()
    taken = [np.from_dlpack(source.hand_out())]
    thread = threading.Thread(target=taken.clear)
    thread.start()
    thread.join()
    assert source.freed == ["freed"]


def test_threads_that_share_and_release_give_back_once() -> None:
    source = host_embeddings()
    for _ in range(20):
        embeddings = source.hand_out()

        def use(embeddings: Any = embeddings) -> None:
            for _ in range(20):
                try:
                    assert np.from_dlpack(embeddings).shape == (3, 4)
                except HamrEdgeError:
                    return
            embeddings.release()

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        del use, embeddings, threads, thread
    gc.collect()
    assert source.freed == ["freed"] * 20


def test_nothing_is_left_behind() -> None:
    source = host_embeddings(kind=CUDA)

    def use() -> None:
        embeddings = source.hand_out()
        read_device_array(embeddings, "batch", 7, 0)
        embeddings.__dlpack__(max_version=(1, 0))

    for _ in range(100):
        use()
    gc.collect()
    blocks = sys.getallocatedblocks()
    for _ in range(1000):
        use()
    source.freed.clear()
    gc.collect()
    assert sys.getallocatedblocks() - blocks < 500


_HELD_TO_THE_END = """
import numpy as np
from hamr_edge.device_array import take_shared
from tests.shared_arrays import host_embeddings
source = host_embeddings()
embeddings = source.hand_out()
taken = np.from_dlpack(embeddings)
capsule = embeddings.__dlpack__()
read = take_shared(np.zeros((2, 3)), "array", None, (1, 0))
try:
    import torch
except ImportError:
    pass
else:
    tensor = torch.from_dlpack(embeddings)
    borrowed = take_shared(torch.zeros(2), "tensor", None, (1, 0))
    torch.kept = [tensor, embeddings, capsule, borrowed]
    cycle = [tensor, capsule]
    cycle.append(cycle)
print("end")
"""


def test_what_is_held_when_the_interpreter_ends_does_no_harm() -> None:
    command = [sys.executable, "-X", "dev", "-c", _HELD_TO_THE_END]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert (run.returncode, run.stdout.strip(), run.stderr.strip()) == (0, "end", "")
