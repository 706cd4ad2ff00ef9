from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge import InputError
from hamr_edge.benchmarks import retrieval as module
from hamr_edge.benchmarks.bootstrap import mean_interval
from hamr_edge.benchmarks.cross_gallery import measure_cross_gallery
from hamr_edge.benchmarks.match_threshold import compare_thresholds
from hamr_edge.benchmarks.retrieval import measure_retrieval
from hamr_edge.benchmarks.worst_crops import find_worst_crops
from hamr_edge.dataset import open_dataset
from hamr_edge.labelled_crops import LabelledCrops
from hamr_edge.scored_crops import ScoredCrops, choose_crops, score_crops


def _crops(rng: np.random.Generator, people: int, queries: int, gallery: int) -> ScoredCrops:
    def draw(folder: str, count: int) -> LabelledCrops:
        paths = tuple(Path("set", folder, f"{row:03d}.jpg") for row in range(count))
        return LabelledCrops(paths, rng.integers(0, people, count), rng.integers(1, 4, count))

    query, others = draw("query", queries), draw("gallery", gallery)
    identities, cameras = others.identities.copy(), others.cameras.copy()
    identities[0], cameras[0] = query.identities[0], query.cameras[0] + 1  # one query can be scored
    return ScoredCrops(query, LabelledCrops(others.paths, identities, cameras))


def _unit_rows(rng: np.random.Generator, count: int, width: int = 6) -> np.ndarray:
    rows = rng.normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _pairs(embeddings: np.ndarray, crops: ScoredCrops) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of genuine and of impostor pairs, by the definition."""
    similarity = embeddings[: len(crops.query)] @ embeddings[len(crops.query) :].T
    same = crops.query.identities[:, None] == crops.gallery.identities
    other_camera = crops.query.cameras[:, None] != crops.gallery.cameras
    return similarity[same & other_camera], similarity[~same]


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 40), st.integers(1, 60))
def test_one_pass_finds_what_all_pairs_at_once_give(seed: int, people: int, queries: int, gallery: int) -> None:
    rng = np.random.default_rng(seed)
    crops = _crops(rng, people, queries, gallery)
    embeddings = _unit_rows(rng, len(crops))
    found = measure_retrieval(embeddings, crops, kept_threshold=0.3)
    genuine, impostor = _pairs(embeddings, crops)
    assert found.scores.summary() == score_crops(embeddings, crops)
    assert found.impostor_pairs == len(impostor)
    np.testing.assert_allclose(found.genuine, np.sort(genuine), atol=1e-6)
    assert found.separation.same == pytest.approx(genuine.mean(dtype=np.float64), abs=1e-6)
    if len(impostor):
        assert found.separation.different == pytest.approx(impostor.mean(dtype=np.float64), abs=1e-6)
        assert found.kept_false_accept_rate == pytest.approx(
            np.mean(impostor >= np.float32(0.3)), abs=1.1 / len(impostor)
        )
        accepted = np.sum(impostor >= found.threshold - 1e-6)
        assert accepted / len(impostor) <= found.false_accept_rate + 1e-9 + np.sum(
            np.isclose(impostor, found.threshold, atol=2e-6)
        ) / len(impostor)
        assert accepted >= 1
    spread = np.sqrt((genuine.var(dtype=np.float64) + (impostor.var(dtype=np.float64) if len(impostor) else 0)) / 2)
    if spread > 1e-3 and len(impostor):
        distance = genuine.mean(dtype=np.float64) - impostor.mean(dtype=np.float64)
        assert found.separation.d_prime == pytest.approx(distance / spread, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3])
def test_the_threshold_lets_in_what_was_asked_whatever_the_blocks(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    crops = _crops(rng, 20, 700, 90)
    embeddings = _unit_rows(rng, len(crops))
    monkeypatch.setattr(module, "FALSE_ACCEPT_RATE", rate)
    whole = measure_retrieval(embeddings, crops)
    _, impostor = _pairs(embeddings, crops)
    share = np.mean(impostor >= np.float32(whole.threshold) - 1e-6)
    assert share == pytest.approx(rate, abs=2 / len(impostor))
    monkeypatch.setattr("hamr_edge.similarity._BLOCK_BYTES", 1)  # blocks of 256 queries
    parts = measure_retrieval(embeddings, crops)
    assert parts.threshold == pytest.approx(whole.threshold, abs=1e-6)
    assert parts.separation.d_prime == pytest.approx(whole.separation.d_prime, rel=1e-5)


def test_a_shifted_model_keeps_its_people_and_moves_its_threshold() -> None:
    rng = np.random.default_rng(0)
    crops = _crops(rng, 30, 100, 300)
    centres = _unit_rows(rng, 30, 32)
    people = np.concatenate([crops.query.identities, crops.gallery.identities])
    rows = centres[people] + 0.1 * rng.normal(size=(len(crops), 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    alike = rows + 2 * rows.mean(axis=0) + np.float32(0.2)  # everybody gets a common part
    alike /= np.linalg.norm(alike, axis=1, keepdims=True)
    reference = measure_retrieval(rows, crops)
    changed = measure_retrieval(alike, crops, reference.threshold)
    threshold = compare_thresholds(reference, changed)
    assert threshold.shift > 0
    assert threshold.kept_false_accept_rate > threshold.false_accept_rate
    assert threshold.reference_true_accept_rate > 0.9
    assert changed.separation.different > reference.separation.different
    own = compare_thresholds(reference, measure_retrieval(rows, crops, reference.threshold))
    assert (own.shift, own.kept_true_accept_rate) == (0, own.true_accept_rate)
    assert own.kept_false_accept_rate == pytest.approx(own.false_accept_rate, abs=1 / own.impostor_pairs)


def test_another_gallery_is_scored_against_these_queries() -> None:
    rng = np.random.default_rng(1)
    crops = _crops(rng, 6, 30, 60)
    rows = _unit_rows(rng, len(crops))
    scores = score_crops(rows, crops)
    same = measure_cross_gallery(rows, rows.copy(), scores, crops)
    assert (same.map, same.map_delta, same.rank1_delta) == (scores.map, 0, 0)
    mixed = np.concatenate([-rows[:30], rows[30:]])
    assert measure_cross_gallery(-rows, rows, scores, crops).map == score_crops(mixed, crops).map


def test_an_interval_covers_the_mean_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        low, high = mean_interval(rng.normal(size=60), seed)
        hits += low <= 0 <= high
    assert 180 <= hits <= 198
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25)
    with pytest.raises(InputError, match="at least one"):
        mean_interval(np.empty(0))


def test_the_worst_crops_come_with_their_neighbours(tiny_dataset: Path) -> None:
    crops = choose_crops(open_dataset(tiny_dataset))
    rng = np.random.default_rng(0)
    rows = _unit_rows(rng, len(crops))
    changed = rows.copy()
    changed[2], changed[20] = -rows[2], _unit_rows(rng, 1)
    cosines = np.sum(rows * changed, axis=1).astype(np.float64)
    first, second, *rest = find_worst_crops(rows, changed, cosines, crops, tiny_dataset)
    assert first.crop == f"query/{crops.query.paths[2].name}"
    assert first.cosine == pytest.approx(-1)
    assert second.crop == f"bounding_box_test/{crops.paths[20].name}"
    assert len(rest) == 6
    for worst, row in ((first, 2), (second, 20)):
        for neighbours, embeddings in ((worst.before, rows), (worst.after, changed)):
            assert [near.cosine for near in neighbours] == sorted((n.cosine for n in neighbours), reverse=True)
            assert len(neighbours) == 5
            for near in neighbours:
                index = [f"bounding_box_test/{path.name}" for path in crops.gallery.paths].index(near.crop)
                assert near.crop != worst.crop
                assert near.cosine == pytest.approx(
                    float(embeddings[len(crops.query) + index] @ embeddings[row]), abs=1e-5
                )


@pytest.mark.parametrize("row", [3, 12, 30])
def test_a_crop_is_no_neighbour_of_its_own_nor_of_its_person_under_its_camera(tiny_dataset: Path, row: int) -> None:
    crops = choose_crops(open_dataset(tiny_dataset))
    people, cameras = (
        np.concatenate([getattr(part, name) for part in (crops.query, crops.gallery)])
        for name in ("identities", "cameras")
    )
    rng = np.random.default_rng(2)
    # What must be left out lies nearest.
    rows = _unit_rows(rng, 100)[4 * people + cameras] + 0.01 * _unit_rows(rng, len(crops))
    cosines = np.ones(len(crops))
    cosines[row] = 0.5
    worst = find_worst_crops(rows, rows, cosines, crops, tiny_dataset / "elsewhere")[0]
    same = (people == people[row]) & (people != 0)  # rows 12 to 15 are distractors: nobody knows who is who
    left = [
        other
        for other in range(len(crops.query), len(crops))
        if other != row and not (same[other] and cameras[other] == cameras[row])
    ]
    nearest = sorted(left, key=lambda other: -float(rows[other] @ rows[row]))[:5]
    assert worst.crop == crops.name(row)  # outside the folder: its own folder and its name
    assert [near.crop for near in worst.before] == [crops.name(other) for other in nearest]
    assert [near.same_person for near in worst.after] == [bool(same[other]) for other in nearest]
