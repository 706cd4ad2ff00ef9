from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hamr_edge import InputError
from hamr_edge.ranking import score_retrieval
from hamr_edge.reranking import reranked_blocks
from tests.test_similarity import DEVICES


def plain_reranking(distances: np.ndarray, queries: int, k1: int, k2: int, weight: float) -> np.ndarray:
    """Zhong et al., CVPR 2017, on (N, N) squared distances: dense, in sets and loops."""
    total = len(distances)
    distances = distances / distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1).tolist()

    def reciprocal(row: int, k: int) -> set[int]:
        return {other for other in order[row][: k + 1] if row in order[other][: k + 1]}

    encoding = np.zeros((total, total))
    for row in range(total):
        expanded = near = reciprocal(row, k1)
        for candidate in near:
            further = reciprocal(candidate, round(k1 / 2))
            if len(further & near) > 2 / 3 * len(further):
                expanded = expanded | further
        members = sorted(expanded)
        weights = np.exp(-distances[row, members])
        encoding[row, members] = weights / weights.sum()
    encoding = np.stack([encoding[order[row][:k2]].mean(axis=0) for row in range(total)])
    jaccard = np.empty((queries, total - queries))
    for row in range(queries):
        shared = np.minimum(encoding[row], encoding[queries:]).sum(axis=1)
        jaccard[row] = 1 - shared / (2 - shared)
    return jaccard * (1 - weight) + distances[:queries, queries:] * weight


def _clusters(seed: int, queries: int, images: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((6, 12))
    rows = centres[rng.integers(0, 6, queries + images)] + spread * rng.standard_normal((queries + images, 12))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows[:queries], rows[queries:]


def _final_distances(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float, device: str = "cpu"):
    blocks = [block.copy() for _, block in reranked_blocks(query, gallery, k1, k2, weight, device)]
    return 1 - weight - np.concatenate(blocks)


def _squared_distances(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    rows = np.concatenate([query, gallery]).astype(np.float64)
    return np.maximum(2 - 2 * rows @ rows.T, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(1, 60), st.sampled_from([0.1, 0.5, 2.0]),
    st.integers(1, 25), st.integers(1, 8), st.sampled_from([0.0, 0.3, 1.0]),
)  # fmt: skip
def test_distances_are_those_of_a_plain_reference(
    seed: int, queries: int, images: int, spread: float, k1: int, k2: int, weight: float
) -> None:
    query, gallery = _clusters(seed, queries, images, spread)
    distances = _squared_distances(query, gallery)
    # Where rounding could change who is among the nearest, there is no one answer.
    gaps = np.diff(np.sort(distances, axis=1), axis=1)
    assume(all((gaps[:, k - 1 : k] > 1e-5).all() for k in (k1 + 1, round(k1 / 2) + 1, k2)))
    expected = plain_reranking(distances, queries, k1, k2, weight)
    np.testing.assert_allclose(_final_distances(query, gallery, k1, k2, weight), expected, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_blocks_and_what_is_kept_change_nothing(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cuda:0" and not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("no CUDA device")
    query, gallery = _clusters(3, 40, 300, 0.4)
    expected = plain_reranking(_squared_distances(query, gallery), 40, 20, 6, 0.3)
    np.testing.assert_allclose(_final_distances(query, gallery, 20, 6, 0.3, device), expected, atol=1e-5)
    for name, value in (("similarity._BLOCK_BYTES", 1), ("similarity._MIN_ROWS", 9), ("similarity._SQUARE_ROWS", 50),
                        ("reranking._ROWS", 7), ("reranking._PAIRS", 11), ("reranking._NEAREST_KEPT", 2)):  # fmt: skip
        monkeypatch.setattr(f"hamr_edge.{name}", value)
    np.testing.assert_allclose(_final_distances(query, gallery, 20, 6, 0.3, device), expected, atol=1e-5)


def test_members_that_are_not_near_are_multiplied_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = _clusters(3, 40, 300, 0.4)
    expected = _final_distances(query, gallery, 10, 6, 0.3)
    singly = []
    from hamr_edge import reranking

    multiply = reranking._dot_products
    monkeypatch.setattr(reranking, "_dot_products", lambda *pairs: singly.append(len(pairs[2])) or multiply(*pairs))
    monkeypatch.setattr(reranking, "_NEAREST_KEPT", 1)
    monkeypatch.setattr(reranking, "_PAIRS", 4)
    np.testing.assert_allclose(_final_distances(query, gallery, 10, 6, 0.3), expected, atol=1e-6)
    assert singly[0] > 4


def test_reranking_lifts_what_shares_its_neighbours() -> None:
    query, gallery = _clusters(1, 30, 400, 0.6)
    rng = np.random.default_rng(0)
    similarity = np.concatenate([query, gallery]) @ np.random.default_rng(1).standard_normal((6, 12)).T
    identities = similarity.argmax(axis=1)  # the cluster, or nearly
    labels = (identities[:30], identities[30:], rng.integers(1, 4, 30), rng.integers(4, 7, 400))
    plain, reranked = (score_retrieval(query, gallery, *labels, rerank=rerank) for rerank in (False, True))
    assert reranked.map > plain.map + 0.02
    assert (reranked.queries, reranked.gallery) == (plain.queries, plain.gallery)


def test_images_all_alike_give_numbers() -> None:
    one = np.full((40, 4), 0.5, np.float32)
    for block in _final_distances(one[:3], one, 5, 3, 0.3):
        assert np.isfinite(block).all()


def test_without_a_gallery_nothing_can_be_scored() -> None:
    one = np.eye(2, dtype=np.float32)
    ids = np.array([1, 2])
    with pytest.raises(InputError, match="nothing can be scored"):
        score_retrieval(one, one[:0], ids, ids[:0], ids, ids[:0], rerank=True)


@pytest.mark.parametrize("wrong", [{"k1": 0}, {"k2": 0}, {"original_weight": 1.1}, {"original_weight": float("nan")}])
def test_a_wrong_setting_is_named(wrong: dict) -> None:
    one = np.eye(2, dtype=np.float32)
    with pytest.raises(InputError, match=r"k1 >= 1, k2 >= 1, lambda in 0\.\.1, got"):
        next(reranked_blocks(one, one, **wrong))


def test_rows_must_be_of_unit_norm() -> None:
    one = np.eye(2, dtype=np.float32)
    with pytest.raises(InputError, match=r"gallery: .*embedding 1 has 3\.000; divide"):
        next(reranked_blocks(one, np.diag([1, 3]).astype(np.float32)))
