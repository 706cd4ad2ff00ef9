from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.drawn_text import to_ascii
from hamr_edge.mosaic import fit_inside, make_mosaic


@given(height=st.integers(1, 700), width=st.integers(1, 700), room=st.tuples(st.integers(8, 400), st.integers(8, 400)))
def test_a_picture_fits_and_touches_two_sides(height: int, width: int, room: tuple[int, int]) -> None:
    fitted = fit_inside(np.zeros((height, width, 3), np.uint8), room)
    assert fitted.shape[0] <= room[1]
    assert fitted.shape[1] <= room[0]
    assert fitted.shape[0] == room[1] or fitted.shape[1] == room[0]


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2), (8, 3, 3)]
)
def test_cameras_stand_in_order(count: int, columns: int, rows: int) -> None:
    names = [f"c{number}" for number in range(count)]
    pictures = {name: np.full((20, 40, 3), 60 + 20 * number, np.uint8) for number, name in enumerate(names)}
    mosaic = make_mosaic(pictures, {}, cell_wh=(80, 40))
    assert mosaic.shape == (rows * 62, columns * 80, 3)
    for number in range(count):
        y, x = number // columns * 62 + 20, number % columns * 80 + 40
        assert mosaic[y, x].tolist() == [60 + 20 * number] * 3


def test_a_camera_without_a_picture_has_its_place_and_its_caption() -> None:
    whole = make_mosaic({"a": None, "b": np.full((10, 10, 3), 200, np.uint8)}, {"a": "waiting"}, cell_wh=(80, 40))
    assert whole[:40, :80].max() < 40
    assert whole[40:62, :80].max() > 100  # words
    assert whole[:40, 80:].max() == 200


def test_captions_are_drawn_without_accents() -> None:
    same = [make_mosaic({"a": None}, {"a": caption}, cell_wh=(160, 40)) for caption in ("büro", "buro")]
    np.testing.assert_array_equal(*same)
    assert (same[0] != make_mosaic({"a": None}, {"a": "b??ro"}, cell_wh=(160, 40))).any()


@pytest.mark.parametrize(
    ("text", "drawn"), [("büro", "buro"), ("Zoë 0.91", "Zoe 0.91"), ("ﬁ", "fi"), ("кухня", "?????"), ("", "")]
)
def test_words_as_a_font_has_them(text: str, drawn: str) -> None:
    assert to_ascii(text) == drawn
