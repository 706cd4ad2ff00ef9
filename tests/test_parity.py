from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge import InputError
from hamr_edge.benchmarks.parity import (
    Parity,
    cosine_histogram,
    finite_rows,
    measure_parity,
    nearest_neighbours,
    neighbour_overlap,
    row_cosines,
)
from hamr_edge.benchmarks.retrieval import measure_retrieval
from hamr_edge.dataset import JUNK_IDENTITY, open_dataset
from hamr_edge.scored_crops import ScoredCrops, choose_crops
from tests.tiny_dataset import GALLERY, QUERIES, TEST_IDENTITIES


@pytest.fixture
def crops(tiny_dataset: Path) -> ScoredCrops:
    return choose_crops(open_dataset(tiny_dataset))


def _unit_rows(count: int, seed: int = 0, width: int = 8) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _measure(reference: np.ndarray, embeddings: np.ndarray, crops: ScoredCrops) -> Parity:
    before, after = (measure_retrieval(finite_rows(rows)[1], crops).scores for rows in (reference, embeddings))
    return measure_parity(reference, nearest_neighbours(reference), before, embeddings, after, crops)


def test_a_model_agrees_with_itself(crops: ScoredCrops) -> None:
    rows = _unit_rows(len(crops))
    parity = _measure(rows, rows.copy(), crops)
    assert parity.images == len(crops) == QUERIES + GALLERY
    assert parity.min_cosine == pytest.approx(1)
    assert (parity.top1_agreement, parity.overlap_at_10) == (1.0, 1.0)
    assert (parity.rank1_delta, parity.map_delta, parity.not_finite) == (0.0, 0.0, 0)
    assert parity.max_norm_error < 1e-6
    assert parity.queries == QUERIES


def test_the_worst_crop_is_named(crops: ScoredCrops) -> None:
    rows = _unit_rows(len(crops))
    changed = rows.copy()
    changed[20] = -changed[20]
    parity = _measure(rows, changed, crops)
    assert parity.min_cosine == pytest.approx(-1)
    assert parity.worst_crop == crops.name(20) == f"bounding_box_test/{crops.gallery.paths[20 - QUERIES].name}"
    assert parity.p01_cosine == parity.min_cosine  # fewer than 100 crops: one crop is more than 1 %
    assert parity.mean_cosine == pytest.approx(1 - 2 / len(crops))
    assert parity.overlap_at_10 < 1


def test_the_first_percentile_leaves_the_worst_of_200_out(crops: ScoredCrops) -> None:
    many = ScoredCrops(crops.query, crops.gallery.select(np.arange(200 - QUERIES) % GALLERY))
    rows = _unit_rows(len(many))
    changed = rows.copy()
    changed[7] = -changed[7]
    parity = _measure(rows, changed, many)
    assert parity.min_cosine == pytest.approx(-1)
    assert parity.p01_cosine == pytest.approx(1)


def test_rows_that_are_not_finite_match_nothing(crops: ScoredCrops) -> None:
    rows = _unit_rows(len(crops))
    changed = rows.copy()
    changed[3, 2], changed[5] = np.nan, np.inf
    parity = _measure(rows, changed, crops)
    assert parity.not_finite == 2
    assert parity.min_cosine == 0.0
    assert parity.worst_crop == crops.name(3)
    assert np.isnan(changed[3, 2])  # the caller's array stays as it was


def test_a_norm_that_is_not_one_is_seen(crops: ScoredCrops) -> None:
    rows = _unit_rows(len(crops))
    changed = rows.copy()
    changed[4] *= 3
    parity = _measure(rows, changed, crops)
    assert parity.max_norm_error == pytest.approx(2, abs=1e-5)
    assert parity.min_cosine == pytest.approx(1)


def test_a_loss_of_retrieval_is_negative(crops: ScoredCrops) -> None:
    identities = np.concatenate([crops.query.identities, crops.gallery.identities])
    perfect = np.eye(14, dtype=np.float32)[identities]
    parity = _measure(perfect, _unit_rows(len(crops), width=14), crops)
    assert (parity.rank1 - 1, parity.map - 1) == (parity.rank1_delta, parity.map_delta)
    assert parity.map_delta < 0
    assert parity.map_interval[0] < parity.map_delta < parity.map_interval[1] < 0
    assert parity.rank1_interval[0] < parity.rank1_delta < parity.rank1_interval[1]


def test_models_of_another_width_are_compared_by_their_neighbours(crops: ScoredCrops) -> None:
    rows = _unit_rows(len(crops), width=8)
    wider = np.concatenate([rows, np.zeros_like(rows)], axis=1)
    parity = _measure(rows, wider, crops)
    assert (parity.min_cosine, parity.p01_cosine, parity.mean_cosine, parity.worst_crop) == (None, None, None, None)
    assert (parity.top1_agreement, parity.overlap_at_10, parity.map_delta) == (1.0, 1.0, 0.0)
    scores = measure_retrieval(rows, crops).scores
    with pytest.raises(InputError, match="of the same crops, got 40 and 39"):
        measure_parity(rows, nearest_neighbours(rows), scores, rows[:-1], scores, crops)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_every_crop_is_in_the_histogram_once(cosines: list[float]) -> None:
    histogram = cosine_histogram(np.asarray(cosines))
    assert sum(histogram.counts) == len(cosines)
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert histogram.edges[0] == 0
    assert list(histogram.edges) == sorted(histogram.edges)


def test_cosines_are_summed_exactly_and_bounded() -> None:
    first, second = _unit_rows(50, 0, 1000), _unit_rows(50, 1, 1000)
    pairs = zip(first.astype(np.float64), second.astype(np.float64), strict=True)
    expected = [np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in pairs]
    np.testing.assert_allclose(row_cosines(first, second), expected, atol=1e-12)
    assert (row_cosines(first, first) <= 1).all()
    assert row_cosines(first[:1], first[:1] * 0).tolist() == [0.0]
    with pytest.raises(InputError, match=r"one shape \(N, D\), got \(50, 1000\) and \(50, 999\)"):
        row_cosines(first, second[:, :-1])


@pytest.mark.parametrize("count", [2, 5, 11, 12, 60])
def test_neighbours_are_those_of_a_sort(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _unit_rows(count)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, : min(10, count - 1)]
    np.testing.assert_array_equal(nearest_neighbours(rows), expected)
    monkeypatch.setattr("hamr_edge.benchmarks.parity._BLOCK_BYTES", 1)
    np.testing.assert_array_equal(nearest_neighbours(rows), expected)


def test_a_crop_is_not_its_own_neighbour_and_equals_keep_their_order() -> None:
    assert nearest_neighbours(np.ones((4, 2), np.float32)).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    with pytest.raises(InputError, match="at least 2 crops, got 1"):
        nearest_neighbours(np.ones((1, 2), np.float32))


def test_overlap_counts_what_is_in_both_in_any_order() -> None:
    assert neighbour_overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 5]])) == 0.75


def test_junk_is_left_out_of_the_crops(crops: ScoredCrops) -> None:
    assert JUNK_IDENTITY not in crops.gallery.identities
    assert len(crops.gallery) == GALLERY
    assert crops.name(0) == f"query/{crops.query.paths[0].name}"


@pytest.mark.parametrize("max_crops", [9, 12, 19, 30, 39, 40, 1000])
def test_fewer_crops_are_whole_identities(tiny_dataset: Path, max_crops: int) -> None:
    dataset = open_dataset(tiny_dataset)
    chosen = choose_crops(dataset, max_crops, seed=1)
    assert len(chosen) == min(max_crops, QUERIES + GALLERY) if max_crops >= 40 else len(chosen) <= max_crops
    for identity in TEST_IDENTITIES:
        count = np.sum(chosen.query.identities == identity), np.sum(chosen.gallery.identities == identity)
        assert count in ((0, 0), (3, 6))
    again = choose_crops(dataset, max_crops, seed=1)
    assert again.paths == chosen.paths


def test_too_few_crops_are_refused(tiny_dataset: Path) -> None:
    with pytest.raises(InputError, match="raise --max-crops 8"):
        choose_crops(open_dataset(tiny_dataset), 8)
