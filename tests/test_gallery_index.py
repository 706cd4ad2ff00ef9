from __future__ import annotations

import sys

import numpy as np
import pytest

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_index import GalleryIndex, IndexKind
from tests.gallery_cases import DIM, SPACE, crowd, unit_rows

FAISS_KINDS: tuple[IndexKind, ...] = ("flat", "codes", "hnsw")
MANY = 4000


@pytest.fixture
def with_faiss() -> None:
    pytest.importorskip("faiss", reason="faiss-cpu is not installed; make integrations installs it")


def _people(count: int, dim: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings in clusters of 20, and a new view of every cluster."""
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(count // 20, dim))

    def views(repeats: int) -> np.ndarray:
        rows = np.repeat(centres, repeats, axis=0) + 0.5 * rng.normal(size=(len(centres) * repeats, dim))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return views(20), views(1)


def _expected(vectors: np.ndarray, queries: np.ndarray, count: int, allowed: np.ndarray) -> np.ndarray:
    products = np.where(allowed, queries @ vectors.T, -np.inf)
    return -np.sort(-products, axis=1)[:, :count]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("queries", [1, 9])
def test_the_exact_search_is_that_of_the_whole_matrix(share: float, queries: int) -> None:
    vectors = unit_rows(50_000, 1, 128)  # two blocks
    asked, allowed = unit_rows(queries, 2, 128), np.random.default_rng(0).random(50_000) < share
    rows, values = GalleryIndex("exact", 128).search(vectors, asked, 7, None if share == 1 else allowed)
    np.testing.assert_allclose(values, _expected(vectors, asked, 7, allowed | (share == 1)), atol=1e-5)
    np.testing.assert_allclose(values, np.take_along_axis(asked @ vectors.T, rows, 1), atol=1e-5)
    assert allowed[rows].all() or share == 1


@pytest.mark.usefixtures("with_faiss")
@pytest.mark.parametrize("kind", FAISS_KINDS)
def test_faiss_finds_what_the_exact_search_finds(kind: IndexKind) -> None:
    vectors, queries = _people(MANY)
    index = GalleryIndex(kind, 64)
    index.add(vectors)
    assert index.is_built == (kind != "hnsw")
    index.build(vectors)
    assert index.is_built
    for share in (1.0, 0.6, 0.05):
        allowed = np.random.default_rng(0).random(MANY) < share
        rows, values = index.search(vectors, queries, 3, None if share == 1 else allowed)
        expected = _expected(vectors, queries, 3, allowed | (share == 1))
        assert np.mean(np.abs(values - expected) < 1e-5) >= 0.98
        np.testing.assert_allclose(values, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-5)
        assert allowed[rows].all() or share == 1
    more = unit_rows(2000, 7, 64)
    index.add(more)
    rows, values = index.search(np.vstack([vectors, more]), more[::100], 1)
    assert rows[:, 0].tolist() == list(range(MANY, MANY + 2000, 100))


@pytest.mark.usefixtures("with_faiss")
@pytest.mark.parametrize("kind", FAISS_KINDS)
def test_a_forgotten_person_is_found_by_no_index(kind: IndexKind) -> None:
    vectors, _ = _people(MANY, DIM)
    gallery = Gallery(SPACE, kind)
    for person in range(MANY // 20):
        gallery.enrol(f"p{person}", vectors[20 * person : 20 * person + 20])
    gallery.build_index()
    index = gallery._index
    for name in ("p0", "p77", "p199"):
        assert gallery.search(vectors[20 * int(name[1:])][None]).names[0, 0] == name
        gallery.forget(name)
        assert name not in gallery.search_views(vectors[20 * int(name[1:])][None], 50).names
    assert len(index._codes) == (MANY - 60 if kind == "codes" else 0)
    assert index._graph is None
    own = gallery.search(vectors[[20, 2000, 3960]])
    assert own.names[:, 0].tolist() == ["p1", "p100", "p198"]
    gallery.build_index()
    assert gallery.search(vectors[[20, 2000, 3960]]).ids.tolist() == own.ids.tolist()


@pytest.mark.usefixtures("with_faiss")
def test_a_graph_that_loses_its_way_is_not_the_last_word() -> None:
    gallery, rows = Gallery(SPACE, "hnsw"), unit_rows(20)
    for person, row in enumerate(rows):
        gallery.enrol(f"p{person}", np.repeat(row[None], 300, axis=0), "ns"[person % 2])
    gallery.build_index()
    assert (gallery.search(rows[::2], cameras=["s"]).names != "").all()
    assert (gallery.search_views(rows[::2], 400).names != "").all()
    found = gallery.search(rows, 5)
    assert (found.names != "").all()
    best = -np.sort(-(rows @ rows.T), axis=1)[:, :5]
    np.testing.assert_allclose(found.similarity, best, atol=1e-5)


@pytest.mark.usefixtures("with_faiss")
def test_codes_and_graph_follow_an_enrolment_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = _people(MANY, DIM)
    for kind in ("codes", "hnsw"):
        gallery = Gallery(SPACE, kind)  # type: ignore[arg-type]
        gallery.enrol("a", vectors[:2000])
        gallery.build_index()
        with monkeypatch.context() as patch:
            patch.setattr(gallery._index, "add", lambda rows: (_ for _ in ()).throw(MemoryError))
            with pytest.raises(MemoryError):
                gallery.enrol("b", vectors[2000:2100])
        gallery.enrol("c", vectors[2100:])
        found = gallery.search(vectors[::100]).names[:, 0]
        assert found.tolist() == ["a"] * 20 + [found[20]] + ["c"] * 19
        assert gallery.forget("a") == 2000
        assert set(gallery.search(vectors[::100]).names[:, 0].tolist()) == {"c"}


@pytest.mark.usefixtures("with_faiss")
def test_a_graph_does_not_go_with_a_retention_time() -> None:
    with pytest.raises(InputError, match="'hnsw' cannot let go of an embedding"):
        Gallery(SPACE, "hnsw", retention_s=10)


@pytest.mark.usefixtures("with_faiss")
def test_a_large_index_that_is_not_built_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamr_edge.gallery._LARGE", 4)
    gallery, rows = crowd(2, 2, "hnsw")
    assert gallery.search(rows).names[:, 0].tolist() == ["p0", "p0", "p1", "p1"]
    assert "4 embeddings is not built" in caplog.text
    caplog.clear()
    gallery.build_index()
    gallery.search(rows)
    assert not caplog.text


@pytest.mark.parametrize("kind", FAISS_KINDS)
def test_without_faiss_the_message_names_the_extra(kind: IndexKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UnavailableError, match=r"pip install 'hamr-edge\[faiss\]', or take the index 'exact'"):
        Gallery(SPACE, kind)
    assert Gallery(SPACE).search(unit_rows(1)).names.tolist() == [[""]]
