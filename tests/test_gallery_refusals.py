from __future__ import annotations

import time

import numpy as np
import pytest

from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from tests.gallery_cases import DIM, SPACE, crowd, unit_rows

_ROW = unit_rows(1)


def test_what_would_delete_others_is_refused() -> None:
    gallery, _ = crowd(3, 2)
    with pytest.raises(InputError, match="the time must be a number, Unix seconds, got None"):
        gallery.forget_before(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"ids must be integers.*got bool.*a mask chooses among them as ids\[mask\]"):
        gallery.forget_views(np.array([False, False, True]))
    with pytest.raises(InputError, match="ids must be integers"):
        gallery.forget_views([1.9])
    with pytest.raises(InputError, match="no embeddings to replace those of 'p0' by"):
        gallery.enrol("p0", np.empty((0, DIM), np.float32), replace=True)
    assert len(gallery) == 6
    assert gallery.forget_views([]) == 0
    assert gallery.forget_views(3) == 1


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (_ROW[0], r"shape \(N, 16\).*got float32 \(16,\); pass a single embedding as embedding\[None\]"),
        (_ROW[:, :8], r"got float32 \(1, 8\)"),
        (np.ones((1, DIM), np.int64), "got int64"),
        (np.vstack([_ROW, np.zeros((1, DIM))]), "row 1 has norm 0"),
        (np.vstack([_ROW, _ROW * 1.01]), "row 1 has norm 1.01"),
        (np.full((1, DIM), np.nan), "row 0 has norm nan"),
        (np.full((1, DIM), np.inf), "row 0 has norm inf"),
    ],
)
def test_embeddings_that_are_none_are_refused(embeddings: np.ndarray, message: str) -> None:
    gallery, _ = crowd(1, 1)
    with pytest.raises(InputError, match=message):
        gallery.enrol("p0", embeddings, replace=True)
    with pytest.raises(InputError, match=message):
        gallery.search(embeddings)
    assert len(gallery) == 1


@pytest.mark.parametrize("name", ["", " ada", "a\nb", "\x1b[31m", "x" * 201, None])
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    gallery, _ = crowd(1, 1)
    with pytest.raises(InputError, match="name must be 1 to 200 printable characters"):
        gallery.enrol(name, _ROW)
    with pytest.raises(InputError, match="name must be 1 to 200 printable characters"):
        gallery.rename("p0", name)


def test_arguments_that_make_no_sense_are_refused() -> None:
    gallery, _ = crowd(1, 1)
    with pytest.raises(InputError, match=r"Unix seconds.*divide milliseconds by 1000"):
        gallery.enrol("p0", _ROW, time_s=time.time() * 1000)
    with pytest.raises(InputError, match="Unix seconds"):
        gallery.enrol("p0", _ROW, time_s=float("nan"))
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        gallery.search(_ROW, 0)
    for k in (1.5, "2", None):
        with pytest.raises(InputError, match="k must be an integer from 1 to 10000, got"):
            gallery.search(_ROW, k)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="k must be at most 10000, got 1000000000"):
        gallery.search_views(_ROW, 10**9)
    for since in (float("nan"), time.time() * 1000, 10**400, True):
        with pytest.raises(InputError, match="since must be in Unix seconds"):
            gallery.search(_ROW, since=since)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="until must be in Unix seconds"):
        gallery.search(_ROW, until=-1)
    with pytest.raises(InputError, match="since must not be later than until, got 2 and 1; swap them"):
        gallery.search(_ROW, since=2, until=1)
    with pytest.raises(InputError, match="got None among them"):
        gallery.search(_ROW, cameras=[None])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"a time must be a number, Unix seconds, got 'now'; a datetime gives it"):
        gallery.enrol("p0", _ROW, time_s="now")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rows of several lengths"):
        gallery.enrol("p0", [[1.0], [1.0, 2.0]])
    with pytest.raises(InputError, match="must not be like #2"):
        gallery.enrol("#2", _ROW)
    with pytest.raises(InputError, match="more than 0 seconds"):
        Gallery(SPACE, retention_s="30d")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"pass \['north'\]"):
        gallery.search(_ROW, cameras="north")
    with pytest.raises(InputError, match="more than 0 seconds"):
        Gallery(SPACE, retention_s=0)
    with pytest.raises(InputError, match="index must be one of exact, flat, codes, hnsw"):
        Gallery(SPACE, index="ivf")  # type: ignore[arg-type]
