from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from hamr_edge.growing_array import GrowingArray
from tests.gallery_cases import DIM, SPACE, crowd, unit_rows


def test_a_person_is_found_by_any_view() -> None:
    gallery, rows = crowd(people=5, views=4)
    found = gallery.search(rows)
    assert found.names[:, 0].tolist() == [f"p{row // 4}" for row in range(20)]
    np.testing.assert_allclose(found.similarity[:, 0], 1, atol=1e-5)
    assert found.ids[:, 0].tolist() == list(range(20))
    assert found.cameras[:2, 0].tolist() == ["north", "south"]
    assert found.times_s[3, 0] == 1003
    assert (found.similarity.dtype, found.names.shape) == (np.float32, (20, 1))


@settings(max_examples=40, deadline=None)
@given(people=st.integers(1, 6), views=st.integers(1, 30), k=st.integers(1, 8), seed=st.integers(0, 99))
def test_the_k_nearest_people_are_those_of_the_whole_matrix(people: int, views: int, k: int, seed: int) -> None:
    gallery, rows = crowd(people, views, seed=seed)
    queries = unit_rows(3, seed + 1000)
    found = gallery.search(queries, k)
    best = (queries @ rows.T).reshape(3, people, views).max(axis=2)
    order = np.argsort(-best, axis=1)[:, :k]
    kept = min(k, people)
    assert found.names[:, :kept].tolist() == [[f"p{person}" for person in line] for line in order]
    np.testing.assert_allclose(found.similarity[:, :kept], np.take_along_axis(best, order, 1), atol=1e-5)
    assert (found.names[:, kept:] == "").all()
    assert (found.similarity[:, kept:] == -np.inf).all()
    assert (found.ids[:, kept:] == -1).all()


def test_somebody_with_many_views_does_not_hide_the_next() -> None:
    gallery = Gallery(SPACE)
    query = unit_rows(1)
    gallery.enrol("twin", np.repeat(query, 5000, axis=0))
    gallery.enrol("other", unit_rows(1, 1))
    assert gallery.search(query, 2).names.tolist() == [["twin", "other"]]
    assert gallery.search_views(query, 3).names.tolist() == [["twin", "twin", "twin"]]


def test_filters_leave_whom_they_say() -> None:
    gallery, rows = crowd(people=4, views=4)
    assert set(gallery.search_views(rows[:1], 16, cameras=["south"]).ids[0].tolist()) == {-1, 1, 3, 5, 7, 9, 11, 13, 15}
    assert set(gallery.search_views(rows[:1], 16, since=1014).ids[0].tolist()) == {-1, 14, 15}
    assert set(gallery.search_views(rows[:1], 16, until=1002).ids[0].tolist()) == {-1, 0, 1}
    both = gallery.search_views(rows[:1], 16, cameras={"north"}, since=1002, until=1006)
    assert set(both.ids[0].tolist()) == {-1, 2, 4}
    assert set(gallery.search_views(rows[:1], 16, cameras=iter(["south", "north"])).ids[0].tolist()) == set(range(16))
    for nobody in (
        gallery.search(rows[:2], 2, cameras=["east"]),
        gallery.search(rows[:2], 2, cameras=[]),
        gallery.search(rows[:2], 2, since=5000),
    ):
        assert nobody.names.tolist() == [["", ""], ["", ""]]
        assert (nobody.similarity == -np.inf).all()
        assert np.isnan(nobody.times_s).all()


def test_an_empty_gallery_and_an_empty_question_are_answered() -> None:
    gallery = Gallery(SPACE)
    assert gallery.search(unit_rows(2), 3).names.tolist() == [[""] * 3] * 2
    assert (len(gallery), gallery.people(), "p0" in gallery) == (0, [], False)
    gallery, _ = crowd(2, 2)
    assert gallery.search(np.empty((0, DIM), np.float32), 2).names.shape == (0, 2)
    assert gallery.enrol("nobody", np.empty((0, DIM), np.float32)).shape == (0,)
    assert "nobody" not in gallery


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_floats_of_any_width_are_taken(dtype: object) -> None:
    gallery, rows = Gallery(SPACE), unit_rows(3)
    gallery.enrol("ada", rows.astype(dtype))  # type: ignore[call-overload]
    assert gallery.search(rows).similarity.min() > 0.999


def test_a_name_gets_more_views_or_others_instead() -> None:
    gallery, rows = crowd(2, 2)
    more = unit_rows(3, 9)
    assert gallery.enrol("p0", more[:1]).tolist() == [4]
    assert {person.name: person.views for person in gallery.people()} == {"p0": 3, "p1": 2}
    assert gallery.enrol("p0", more[1:], "roof", time_s=2000, replace=True).tolist() == [5, 6]
    person = gallery.people()[0]
    assert (person.name, person.views, person.cameras) == ("p0", 2, ("roof",))
    assert (person.first_time_s, person.last_time_s) == (2000, 2000)
    assert gallery.search(rows[:1]).similarity[0, 0] < 0.99


def test_a_name_is_changed_but_two_people_are_not_made_one() -> None:
    gallery, rows = crowd(2, 2)
    gallery.rename("p0", "ada")
    assert gallery.search(rows).names[:, 0].tolist() == ["ada", "ada", "p1", "p1"]
    gallery.rename("ada", "ada")
    with pytest.raises(InputError, match="'p1' is in the gallery already"):
        gallery.rename("ada", "p1")
    with pytest.raises(InputError, match="'p0' is not in the gallery"):
        gallery.rename("p0", "new")


@settings(max_examples=30, deadline=None)
@given(people=st.integers(1, 9), views=st.integers(1, 9), order=st.randoms(use_true_random=False))
def test_who_is_forgotten_is_gone_and_the_others_stay(people: int, views: int, order: object) -> None:
    gallery, rows = crowd(people, views)
    left = [f"p{person}" for person in range(people)]
    order.shuffle(left)  # type: ignore[attr-defined]
    while left:
        name = left.pop()
        assert gallery.forget(name) == views
        found = gallery.search_views(rows, len(rows))
        assert set(found.names.ravel().tolist()) - {""} == set(left)
        expected = [name if name in left else None for name in (f"p{row // views}" for row in range(len(rows)))]
        for row, name_or_none in enumerate(expected):
            if name_or_none is not None:
                assert (found.names[row, 0], found.ids[row, 0]) == (name_or_none, row)
        assert len(gallery) == views * len(left)


def test_forgetting_overwrites_the_memory() -> None:
    gallery, _ = crowd(6, 30)
    room, rows = gallery._rows._embeddings._room, gallery._rows.embeddings.copy()
    assert all(row.tobytes() in room.tobytes() for row in rows)
    gallery.forget("p2")
    gallery.forget("p5")  # the last one's rows are moved over by nobody
    assert gallery._rows._embeddings._room is room
    gone = np.r_[60:90, 150:180]
    assert not any(row.tobytes() in room.tobytes() for row in rows[gone])
    assert all(row.tobytes() in room.tobytes() for row in np.delete(rows, gone, 0))
    gallery.forget_views([0, 999])
    assert rows[0].tobytes() not in room.tobytes()
    with pytest.raises(InputError, match="'p2' is not in the gallery"):
        gallery.forget("p2")


def test_memory_that_became_too_small_is_overwritten() -> None:
    gallery, rows = crowd(1, 4)
    room = gallery._rows._embeddings._room
    assert room.any()
    gallery.enrol("p1", unit_rows(500, 8))
    assert not room.any()
    assert gallery.search(rows).ids[:, 0].tolist() == [0, 1, 2, 3]


def test_old_views_are_forgotten_and_people_with_none_left() -> None:
    gallery, _ = crowd(3, 2)
    assert gallery.forget_before(1003) == 3
    assert {person.name: person.views for person in gallery.people()} == {"p1": 1, "p2": 2}
    assert gallery.forget_before(1003) == 0


def test_two_spellings_that_look_the_same_are_one_name() -> None:
    gallery, rows = Gallery(SPACE), unit_rows(3)
    composed, apart = "Zo\u00eb", "Zoe\u0308"
    gallery.enrol(apart, rows[:1], "Cafe\u0301")
    gallery.enrol(composed, rows[1:2])
    assert [(person.name, person.views) for person in gallery.people()] == [(composed, 2)]
    assert composed in gallery
    assert apart in gallery
    assert gallery.search(rows[:1], cameras=["Caf\u00e9"]).names.tolist() == [[composed]]
    assert gallery.search(rows[:1], cameras=["Cafe\u0301"]).cameras.tolist() == [["Caf\u00e9"]]
    gallery.enrol("other", rows[2:])
    with pytest.raises(InputError, match="is in the gallery already"):
        gallery.rename("other", apart)
    gallery.rename(apart, apart)
    assert gallery.forget(apart) == 2


def test_an_enrolment_that_fails_half_way_leaves_the_gallery_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, rows = crowd(3, 40)
    room = gallery._rows._embeddings._room
    for error in (MemoryError, KeyboardInterrupt):

        def fail(vectors: np.ndarray, error: type[BaseException] = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(gallery._index, "add", fail)
            with pytest.raises(error):
                gallery.enrol("new", unit_rows(3, 7), "roof")
            with pytest.raises(error):
                gallery.enrol("p0", unit_rows(3, 7), replace=True)
        assert [(person.name, person.views) for person in gallery.people()] == [("p0", 40), ("p1", 40), ("p2", 40)]
        assert not room[120:].any()
        assert "new" not in gallery
    gallery.enrol("new", unit_rows(3, 7))
    assert gallery.search(rows).names[:, 0].tolist() == [f"p{row // 40}" for row in range(120)]


@pytest.mark.parametrize("at", range(5))
def test_a_deletion_that_is_interrupted_comes_to_its_end(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, rows = crowd(5, 10)
    remove, calls = GrowingArray.remove, []

    def stop_once(self: GrowingArray, places: np.ndarray, left: int) -> None:
        calls.append(1)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        remove(self, places, left)

    monkeypatch.setattr(GrowingArray, "remove", stop_once)
    with pytest.raises(KeyboardInterrupt):
        gallery.forget("p1")
    assert [(person.name, person.views) for person in gallery.people()] == [(f"p{n}", 10) for n in (0, 2, 3, 4)]
    found = gallery.search(rows)
    assert "p1" not in gallery
    for row in (*range(10), *range(20, 50)):
        assert (found.names[row, 0], found.ids[row, 0]) == (f"p{row // 10}", row)


def test_deleting_costs_what_is_deleted_and_not_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, rows = crowd(20, 20)
    moved = []
    remove = GrowingArray.remove

    def count(self: GrowingArray, places: np.ndarray, left: int) -> None:
        before = self.rows.copy()
        remove(self, places, left)
        moved.append(int((before[: len(self)] != self.rows).reshape(len(self), -1).any(axis=1).sum()))

    monkeypatch.setattr(GrowingArray, "remove", count)
    gallery.forget("p3")
    assert max(moved) <= 20
    found = gallery.search(rows)
    np.testing.assert_array_equal(found.ids[:60, 0], np.arange(60))
    np.testing.assert_array_equal(found.ids[80:, 0], np.arange(80, 400))
    assert "p3" not in found.names


def test_few_people_with_many_views_cost_one_look_at_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(SPACE)
    query = unit_rows(1)
    gallery.enrol("twin", np.repeat(query, 30_000, axis=0), "north")
    gallery.enrol("other", unit_rows(2, 1), "south")
    asked = []
    search = gallery._index.search

    def count(vectors: np.ndarray, queries: np.ndarray, views: int, allowed: np.ndarray | None) -> object:
        asked.append(views)
        return search(vectors, queries, views, allowed)

    monkeypatch.setattr(gallery._index, "search", count)
    assert gallery.search(query, 2).names.tolist() == [["twin", "other"]]
    assert max(asked) <= 4096
    asked.clear()
    found = gallery.search(query, 10_000)
    assert found.names.shape == (1, 10_000)
    assert found.names[0, :3].tolist() == ["twin", "other", ""]
    assert len(asked) == 1
    asked.clear()
    assert gallery.search(query, 3, cameras=["north"]).names.tolist() == [["twin", "", ""]]
    assert len(asked) == 1  # there is nobody more to look for
    monkeypatch.setattr("hamr_edge.people_search._PRODUCT_BYTES", 1 << 18)  # two queries at once
    assert gallery.search(np.repeat(query, 5, axis=0), 2).names.tolist() == [["twin", "other"]] * 5


def test_what_outlives_its_retention_time_is_deleted_unasked() -> None:
    now = time.time()
    gallery = Gallery(SPACE, retention_s=0.2)
    rows = unit_rows(2)
    gallery.enrol("old", rows[:1], time_s=now - 0.1)
    gallery.enrol("new", rows[1:], time_s=now + 100)
    room = gallery._rows._embeddings._room
    old = gallery._rows.embeddings[0].tobytes()
    assert old in room.tobytes()
    while time.time() < now + 0.15:
        time.sleep(0.02)
    assert gallery.search(rows, 2).names.tolist() == [["new", ""], ["new", ""]]
    assert old not in room.tobytes()
    assert (gallery.expired, len(gallery), "old" in gallery) == (1, 1, False)
    with pytest.raises(InputError, match="older than the gallery's retention time"):
        gallery.enrol("old", rows[:1], time_s=now - 100)
    gallery.retention_s = None
    gallery.enrol("old", rows[:1], time_s=now - 100)
    gallery.retention_s = 50
    assert "old" not in gallery


def test_a_search_sees_an_enrolment_whole_while_others_enrol_and_forget() -> None:
    gallery, rows = Gallery(SPACE), unit_rows(8, 5)
    gallery.enrol("stays", rows[:1])
    done, wrong = threading.Event(), []

    def change() -> None:
        for turn in range(150):
            gallery.enrol(f"guest {turn}", rows[1:])
            gallery.forget(f"guest {turn}")
        done.set()

    def look() -> None:
        while not done.is_set():
            found = gallery.search_views(rows, 8)
            guests = {name for name in found.names.ravel() if name.startswith("guest")}
            views = int((found.names[0] != "").sum())
            if found.names[0, 0] != "stays" or len(guests) > 1 or views not in (1, 8):
                wrong.append((guests, views))

    threads = [threading.Thread(target=work) for work in (change, look, look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(gallery) == 1
