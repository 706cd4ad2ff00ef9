from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge import InputError
from hamr_edge.ranking import RetrievalScores, score_retrieval

# Few values and whole numbers: products are exact, and ties are many.
_SIDE = st.integers(-1, 2)


def naive_scores(
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: list[tuple[int, int]],
    gallery_labels: list[tuple[int, int]],
) -> tuple[list[int], list[float]]:
    """First rank and average precision of each query that counts: a sort and a walk, as the benchmark's text says."""
    first_ranks, precisions = [], []
    for row, (identity, camera) in enumerate(query_labels):
        similarity = [float(np.dot(query[row], other)) for other in gallery]
        order = sorted(range(len(gallery)), key=lambda index: -similarity[index])
        rank, found, precision = 0, 0, []
        first = None
        for index in order:
            other_identity, other_camera = gallery_labels[index]
            if other_identity == -1 or (other_identity == identity and other_camera == camera):
                continue
            rank += 1
            if other_identity == identity:
                found += 1
                first = first or rank
                precision.append(found / rank)
        if first is not None:
            first_ranks.append(first)
            precisions.append(sum(precision) / len(precision))
    return first_ranks, precisions


def _score(query: np.ndarray, gallery: np.ndarray, query_labels: list, gallery_labels: list) -> RetrievalScores:
    columns = [np.array(labels, np.int64).reshape(-1, 2).T for labels in (query_labels, gallery_labels)]
    return score_retrieval(query, gallery, columns[0][0], columns[1][0], columns[0][1], columns[1][1])


@st.composite
def _retrievals(draw: st.DrawFn) -> tuple:
    def side(count: int, identities: st.SearchStrategy[int]) -> tuple:
        rows = draw(st.lists(st.lists(_SIDE, min_size=3, max_size=3), min_size=count, max_size=count))
        labels = draw(st.lists(st.tuples(identities, st.integers(1, 3)), min_size=count, max_size=count))
        return np.array(rows, np.float32).reshape(count, 3), labels

    query, query_labels = side(draw(st.integers(1, 6)), st.integers(1, 4))
    gallery, gallery_labels = side(draw(st.integers(1, 25)), st.integers(-1, 4))  # -1 is junk, 0 a distractor
    return query, gallery, query_labels, gallery_labels


@settings(max_examples=300)
@given(_retrievals())
def test_scores_are_those_of_a_slow_reference(retrieval: tuple) -> None:
    first_ranks, precisions = naive_scores(*retrieval)
    if not first_ranks:
        with pytest.raises(InputError, match="nothing can be scored"):
            _score(*retrieval)
        return
    scores = _score(*retrieval)
    assert scores.queries == len(first_ranks)
    assert scores.gallery == sum(identity != -1 for identity, _ in retrieval[3])
    assert scores.map == pytest.approx(np.mean(precisions), abs=1e-12)
    for k, share in ((1, scores.rank1), (5, scores.rank5), (10, scores.rank10)):
        assert share == pytest.approx(np.mean(np.array(first_ranks) <= k), abs=1e-12)


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    query, gallery = (rng.integers(-2, 3, (count, 4)).astype(np.float32) for count in (17, 40))
    labels = [list(zip(rng.integers(0, 5, n).tolist(), rng.integers(1, 4, n).tolist(), strict=True)) for n in (17, 40)]
    whole = _score(query, gallery, *labels)
    monkeypatch.setattr("hamr_edge.ranking._BLOCK_BYTES", 1)
    assert _score(query, gallery, *labels) == whole


def test_equal_similarities_rank_in_gallery_order() -> None:
    query, gallery = np.ones((1, 1), np.float32), np.ones((4, 1), np.float32)
    scores = _score(query, gallery, [(1, 1)], [(2, 2), (1, 1), (3, 2), (1, 2)])
    assert (scores.rank1, scores.rank5) == (0.0, 1.0)
    assert scores.map == pytest.approx(1 / 3)  # the same camera's image is left out, the two before it are not


def test_junk_changes_nothing_and_a_distractor_does() -> None:
    query = np.array([[1, 0]], np.float32)
    gallery = np.array([[0.6, 0.8], [1, 0]], np.float32)
    right = (1, 2)
    assert _score(query, gallery, [(1, 1)], [right, (-1, 2)]).map == 1.0
    assert _score(query, gallery, [(1, 1)], [right, (0, 2)]).map == 0.5


def test_inputs_are_left_as_they_were() -> None:
    query, gallery = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    _score(query, gallery, [(1, 1), (2, 1), (3, 1)], [(1, 2), (2, 1), (3, 2)])
    np.testing.assert_array_equal(query, np.eye(3))
    np.testing.assert_array_equal(gallery, np.eye(3))


def test_what_cannot_be_scored_is_named() -> None:
    one = np.ones((1, 2), np.float32)
    ids, other = np.array([1]), np.array([2])
    with pytest.raises(InputError, match="query: expected"):
        score_retrieval(one, one, np.array([1, 2]), ids, ids, other)
    with pytest.raises(InputError, match=r"gallery: expected .* got \(2,\)"):
        score_retrieval(one, one[0], ids, ids, ids, other)
    with pytest.raises(InputError, match="query embeddings have 2 values, gallery embeddings 3"):
        score_retrieval(one, np.ones((1, 3), np.float32), ids, ids, ids, other)
    with pytest.raises(InputError, match=r"gallery: embedding 0 .* is not finite"):
        score_retrieval(one, one * np.nan, ids, ids, ids, other)
    with pytest.raises(InputError, match="nothing can be scored"):
        score_retrieval(one, np.ones((0, 2), np.float32), ids, ids[:0], ids, ids[:0])
