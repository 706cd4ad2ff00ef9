from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge.dataset import LabelledCrops, open_dataset
from hamr_edge.errors import InputError
from hamr_edge.ranked_list import RankedList, cumulative_matches, rank_blocks, rank_gallery
from hamr_edge.ranking import score_retrieval
from hamr_edge.trainer.figure_queries import draw_queries, find_queries


def labelled(identities: list[int], cameras: list[int]) -> LabelledCrops:
    paths = tuple(Path(f"{row}.png") for row in range(len(identities)))
    return LabelledCrops(paths, np.asarray(identities, np.int64), np.asarray(cameras, np.int64))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 2), st.integers(1, 2), st.sampled_from([0.1, 0.2, 0.3])), max_size=12),
    st.integers(-1, 2),
    st.integers(1, 2),
    st.integers(1, 14),
)
def test_a_ranking_is_the_gallery_sorted_without_what_does_not_count(
    rows: list[tuple[int, int, float]], identity: int, camera: int, top: int
) -> None:
    gallery = labelled([row[0] for row in rows], [row[1] for row in rows])
    similarity = np.asarray([row[2] for row in rows], np.float32)
    ranked = rank_gallery(similarity, identity, camera, gallery, top)

    counting = [k for k, row in enumerate(rows) if row[0] != -1 and row[:2] != (identity, camera)]
    order = sorted(counting, key=lambda k: (-rows[k][2], k))
    right = [rows[k][0] == identity for k in order]
    precisions = [sum(right[: rank + 1]) / (rank + 1) for rank, is_right in enumerate(right) if is_right]
    assert ranked.gallery.tolist() == order[:top]
    assert ranked.right.tolist() == right[:top]
    np.testing.assert_array_equal(ranked.similarity, similarity[order[:top]])
    assert ranked.right_count == len(precisions)
    assert ranked.left_out == (sum(row[:2] == (identity, camera) for row in rows) if identity != -1 else 0)
    assert ranked.is_scored == bool(precisions)
    if precisions:
        assert ranked.average_precision == pytest.approx(np.mean(precisions))
        assert ranked.first_right == right.index(True) + 1
        assert ranked.first_right_row == order[right.index(True)]
    else:
        assert math.isnan(ranked.average_precision)


def test_rankings_give_the_scores_that_eval_gives() -> None:
    rng = np.random.default_rng(3)
    gallery = labelled(rng.integers(-1, 9, 80).tolist(), rng.integers(1, 4, 80).tolist())
    query = labelled([*range(9), 77], [1] * 10)  # nobody else is 77
    looks = rng.normal(size=(90, 6)).astype(np.float32)
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    blocks = [(0, looks[:4] @ looks[10:].T), (4, looks[4:10] @ looks[10:].T)]
    lists = list(rank_blocks(blocks, query, gallery, 5))
    scores = score_retrieval(
        looks[:10], looks[10:], query.identities, gallery.identities, query.cameras, gallery.cameras
    )
    cmc = cumulative_matches(lists, 10)
    assert (cmc[0], cmc[4], cmc[9]) == pytest.approx((scores.rank1, scores.rank5, scores.rank10))
    assert np.nanmean([ranked.average_precision for ranked in lists]) == pytest.approx(scores.map)
    assert sum(ranked.is_scored for ranked in lists) == scores.queries == 9
    assert all(len(ranked.gallery) == 5 for ranked in lists)


def _list_of(precision: float) -> RankedList:
    none = np.empty(0)
    scored = not math.isnan(precision)
    return RankedList(none, none, none, precision, int(scored), int(scored) - 1, int(scored), 0)


def test_drawn_queries_are_of_different_people_and_a_third_are_the_worst() -> None:
    query = labelled([row // 3 for row in range(36)], [1] * 36)
    lists = [_list_of(row / 36) for row in range(36)]
    lists[0] = _list_of(math.nan)  # cannot be scored
    chosen = draw_queries(query, lists, 6, seed=4)
    assert [picked.reason for picked in chosen] == ["random"] * 4 + ["low AP"] * 2
    identities = query.identities[[picked.row for picked in chosen]]
    assert len(set(identities.tolist())) == 6
    others = [row for row in range(1, 36) if query.identities[row] not in identities[:4]]
    assert chosen[4].row == others[0]
    assert 0 not in {picked.row for picked in draw_queries(query, lists, 40, seed=4)}
    assert len({picked.row for picked in draw_queries(query, lists, 40, seed=4)}) == 35
    assert chosen == draw_queries(query, lists, 6, seed=4)
    assert chosen != draw_queries(query, lists, 6, seed=5)


def test_named_queries_come_in_their_order_and_once(tiny_dataset: Path) -> None:
    query = open_dataset(tiny_dataset).query
    names = [query.paths[5].name, str(query.paths[2]), query.paths[5].name]
    assert [picked.row for picked in find_queries(query, names)] == [5, 2]


def test_a_file_name_that_stands_twice_wants_more_of_its_path(tmp_path: Path) -> None:
    query = LabelledCrops((tmp_path / "1" / "a.png", tmp_path / "2" / "a.png"), np.arange(2), np.ones(2, np.int64))
    assert [picked.row for picked in find_queries(query, ["2/a.png", str(tmp_path / "1" / ".." / "1" / "a.png")])] == [
        1,
        0,
    ]
    with pytest.raises(InputError, match="names 2 files; write more of the path"):
        find_queries(query, ["a.png"])
