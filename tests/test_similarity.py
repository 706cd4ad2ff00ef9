from __future__ import annotations

import sys

import numpy as np
import pytest

from hamr_edge.errors import UnavailableError
from hamr_edge.similarity import nearest_rows, similarity_blocks, usable_device

TORCH_ON_CPU = "cpu:0"
"""A name of the CPU that only torch knows: the code for CUDA devices runs on it."""
DEVICES = ["cpu", TORCH_ON_CPU, pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamr_edge.similarity._BLOCK_BYTES", 1)
    monkeypatch.setattr("hamr_edge.similarity._MIN_ROWS", 5)
    monkeypatch.setattr("hamr_edge.similarity._SQUARE_ROWS", 7)


def _need(device: str) -> None:
    if device.startswith("cuda"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


def _embeddings(*counts: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((count, 300)) for count in counts]
    return [(one / np.linalg.norm(one, axis=1, keepdims=True)).astype(np.float32) for one in rows]


@pytest.mark.parametrize("device", DEVICES)
def test_blocks_are_the_whole_product_in_order(device: str) -> None:
    _need(device)
    query, gallery = _embeddings(13, 17)
    starts, blocks = zip(
        *((start, block.copy()) for start, block in similarity_blocks(query, gallery, device)), strict=True
    )
    assert starts == (0, 5, 10)
    expected = query.astype(np.float64) @ gallery.astype(np.float64).T
    # TensorFloat-32 would be 1e-4 away.
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)
    assert all(block.dtype == np.float32 for block in blocks)


@pytest.mark.parametrize("device", DEVICES)
def test_the_caller_may_overwrite_a_block(device: str) -> None:
    _need(device)
    query, gallery = _embeddings(13, 17)
    for start, block in similarity_blocks(query, gallery, device):
        np.testing.assert_allclose(block, query[start : start + 5] @ gallery.T, atol=1e-6)
        block[:] = np.nan


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("queries", "images", "count"), [(13, 17, 4), (3, 0, 3), (0, 20, 20), (1, 29, 11)])
def test_nearest_rows_are_those_of_a_full_sort(device: str, queries: int, images: int, count: int) -> None:
    _need(device)
    query, gallery = _embeddings(queries, images)
    nearest = nearest_rows(query, gallery, count, device)
    everything = np.concatenate([query, gallery]).astype(np.float64)
    similarity = everything @ everything.T
    order = np.argsort(-similarity, axis=1)[:, :count]
    np.testing.assert_array_equal(nearest.indices, order)
    np.testing.assert_allclose(nearest.similarities, np.take_along_axis(similarity, order, axis=1), atol=1e-6)
    np.testing.assert_allclose(nearest.least, similarity.min(axis=1), atol=1e-6)
    np.testing.assert_array_equal(nearest.indices[:, 0], np.arange(queries + images))


def test_torch_keeps_its_precision_setting() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        list(similarity_blocks(*_embeddings(3, 4), TORCH_ON_CPU))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UnavailableError, match=r"distances on cuda:99.* cannot use it"):
        list(similarity_blocks(*_embeddings(3, 4), "cuda:99"))
    assert usable_device("cuda:99") == "cpu"
    assert usable_device("cpu") == "cpu"
    assert usable_device(TORCH_ON_CPU) == TORCH_ON_CPU


def test_without_torch_the_cpu_still_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnavailableError, match=r"need torch.*hamr-edge\[train\]"):
        list(similarity_blocks(*_embeddings(3, 4), "cuda:0"))
    assert usable_device("cuda:0") == "cpu"
    assert len(list(similarity_blocks(*_embeddings(3, 4)))) == 1
