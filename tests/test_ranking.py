from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge import InputError
from hamr_edge.ranking import RetrievalScores, rank_queries, score_blocks, score_retrieval

# Few values and whole numbers: products are exact, and ties are many.
_SIDE = st.integers(-1, 2)


def naive_scores(
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: list[tuple[int, int]],
    gallery_labels: list[tuple[int, int]],
) -> tuple[list[int], list[float], list[float]]:
    """First rank, average precision and inverse negative penalty of each query that counts: a sort and a walk."""
    first_ranks, precisions, penalties = [], [], []
    for row, (identity, camera) in enumerate(query_labels):
        similarity = [float(np.dot(query[row], other)) for other in gallery]
        order = sorted(range(len(gallery)), key=lambda index: -similarity[index])
        rank, found, precision = 0, 0, []
        first = last = None
        for index in order:
            other_identity, other_camera = gallery_labels[index]
            if other_identity == -1 or (other_identity == identity and other_camera == camera):
                continue
            rank += 1
            if other_identity == identity:
                found += 1
                first, last = first or rank, rank
                precision.append(found / rank)
        if first is not None:
            first_ranks.append(first)
            precisions.append(sum(precision) / len(precision))
            penalties.append(found / last)
    return first_ranks, precisions, penalties


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
    first_ranks, precisions, penalties = naive_scores(*retrieval)
    if not first_ranks:
        with pytest.raises(InputError, match="nothing can be scored"):
            _score(*retrieval)
        return
    scores = _score(*retrieval)
    assert scores.queries == len(first_ranks)
    assert scores.gallery == sum(identity != -1 for identity, _ in retrieval[3])
    assert scores.map == pytest.approx(np.mean(precisions), abs=1e-12)
    assert scores.minp == pytest.approx(np.mean(penalties), abs=1e-12)
    for k, share in ((1, scores.rank1), (5, scores.rank5), (10, scores.rank10)):
        assert share == pytest.approx(np.mean(np.array(first_ranks) <= k), abs=1e-12)


def test_each_query_that_counts_has_its_own_scores() -> None:
    rng = np.random.default_rng(4)
    query, gallery = (rng.integers(-2, 3, (count, 4)).astype(np.float32) for count in (30, 50))
    people, others = rng.integers(0, 12, 30), rng.integers(0, 9, 50)  # three people are in no gallery image
    cameras, other_cameras = rng.integers(1, 4, 30), rng.integers(1, 4, 50)
    blocks = [(start, query[start : start + 8] @ gallery.T) for start in range(0, 30, 8)]
    found = rank_queries(blocks, people, others, cameras, other_cameras)
    labels = [list(zip(*pair, strict=True)) for pair in ((people, cameras), (others, other_cameras))]
    for place, row in enumerate(found.rows):
        (first,), (precision,), (penalty,) = naive_scores(query[[row]], gallery, [labels[0][row]], labels[1])
        assert found.first_ranks[place] == first
        assert found.average_precisions[place] == pytest.approx(precision, abs=1e-12)
        assert found.inverse_penalties[place] == pytest.approx(penalty, abs=1e-12)
    uncounted = sorted(set(range(30)) - set(found.rows.tolist()))
    assert uncounted
    assert found.rows.tolist() == sorted(found.rows.tolist())
    assert all(naive_scores(query[[row]], gallery, [labels[0][row]], labels[1]) == ([], [], []) for row in uncounted)
    assert found.gallery == 50
    assert found.summary() == score_retrieval(query, gallery, people, others, cameras, other_cameras)


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    query, gallery = (rng.integers(-2, 3, (count, 4)).astype(np.float32) for count in (17, 40))
    labels = [list(zip(rng.integers(0, 5, n).tolist(), rng.integers(1, 4, n).tolist(), strict=True)) for n in (17, 40)]
    whole = _score(query, gallery, *labels)
    monkeypatch.setattr("hamr_edge.similarity._BLOCK_BYTES", 1)
    monkeypatch.setattr("hamr_edge.similarity._MIN_ROWS", 3)
    assert _score(query, gallery, *labels) == whole


def test_equal_similarities_rank_in_gallery_order() -> None:
    query, gallery = np.ones((1, 1), np.float32), np.ones((4, 1), np.float32)
    scores = _score(query, gallery, [(1, 1)], [(2, 2), (1, 1), (3, 2), (1, 2)])
    assert (scores.rank1, scores.rank5) == (0.0, 1.0)
    assert scores.map == pytest.approx(1 / 3)  # the same camera's image is left out, the two before it are not


def test_the_last_match_decides_the_inverse_negative_penalty() -> None:
    query = np.array([[1, 0]], np.float32)
    gallery = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    # Matches at ranks 1 and 3 for the first query, at rank 4 for the second.
    scores = _score(query[[0, 0]], gallery, [(1, 1), (2, 1)], [(1, 2), (3, 2), (1, 3), (2, 2)])
    assert scores.minp == pytest.approx((2 / 3 + 1 / 4) / 2)


def test_distances_are_scored_by_their_negatives() -> None:
    distances = np.array([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]], np.float32)
    ids, cameras = np.array([1, 2]), np.array([1, 1])
    gallery_ids, gallery_cameras = np.array([2, 1, 1]), np.array([2, 2, 1])
    scores = score_blocks([(0, -distances)], ids, gallery_ids, cameras, gallery_cameras)
    # The third image is the first query's own camera's; the second query's match is the furthest of all.
    assert (scores.rank1, scores.rank5) == (0, 1)
    assert scores.map == pytest.approx((1 / 2 + 1 / 3) / 2)


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
        score_retrieval(one, one, ids, np.array([-1]), ids, other)  # all junk
    with pytest.raises(InputError, match="nothing can be scored"):
        score_retrieval(one, np.ones((0, 2), np.float32), ids, ids[:0], ids, ids[:0])


def test_large_values_are_finite_though_their_sum_is_not() -> None:
    query, gallery = np.zeros((1, 2), np.float32), np.full((1, 2), 3e38, np.float32)
    assert _score(query, gallery, [(1, 1)], [(1, 2)]).rank1 == 1


@pytest.mark.parametrize("rerank", [False, True])
def test_doubles_and_junk_are_taken_as_they_come(rerank: bool) -> None:
    rng = np.random.default_rng(5)
    query, gallery = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.standard_normal((2, 30, 8)))
    labels = [rng.integers(low, 6, 30) for low in (0, -1)]
    cameras = [rng.integers(1, 3, 30) for _ in range(2)]
    keep = labels[1] != -1
    given = score_retrieval(query, gallery, *labels, *cameras, rerank=rerank)
    clean = score_retrieval(
        query.astype(np.float32), gallery[keep].astype(np.float32), labels[0], labels[1][keep], cameras[0],
        cameras[1][keep], rerank=rerank,
    )  # fmt: skip
    assert given == clean
