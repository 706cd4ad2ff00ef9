from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge.letterbox import lay_out_frame, short_side_size

_FITS = ("top-left", "centred", "stretch", "stretch-smooth", "warp", "warp-centred")
_side = st.integers(1, 700)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), fit=st.sampled_from(_FITS), height=_side, width=_side, rows=_side, columns=_side)
def test_boxes_come_back_from_the_canvas(
    data: st.DataObject, fit: str, height: int, width: int, rows: int, columns: int
) -> None:
    canvas, placement = lay_out_frame(np.zeros((height, width, 3), np.uint8), (rows, columns), fit)
    assert canvas.shape == (rows, columns, 3)
    x, y = st.floats(-width, 2 * width, width=32), st.floats(-height, 2 * height, width=32)
    boxes = np.array(data.draw(st.lists(st.tuples(x, y, x, y), max_size=5)), np.float32).reshape(-1, 4)
    on_canvas = placement.to_canvas(boxes)
    assert on_canvas.dtype == np.float32
    # float32 on the canvas is so fine, seen from the frame
    coarse = np.spacing(np.float32(max(1, np.abs(on_canvas).max(initial=0)))) / min(placement.factors_xy)
    np.testing.assert_allclose(placement.to_frame(on_canvas), boxes, rtol=1e-6, atol=2 * coarse)
    corners = placement.to_canvas(np.array([[0, 0, width, height]], np.float32))[0]
    assert (corners[:2] >= -1e-3).all()
    assert (corners[2:] <= np.array([columns, rows]) * (1 + 1e-6) + 1).all()


@settings(max_examples=80, deadline=None)
@given(data=st.data(), fit=st.sampled_from(_FITS), height=st.integers(40, 300), width=st.integers(40, 300))
def test_a_bright_box_lies_where_the_placement_says(data: st.DataObject, fit: str, height: int, width: int) -> None:
    x1, y1 = data.draw(st.integers(0, width - 20)), data.draw(st.integers(0, height - 20))
    x2, y2 = data.draw(st.integers(x1 + 20, width)), data.draw(st.integers(y1 + 20, height))
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    canvas, placement = lay_out_frame(image, (128, 160), fit)
    rows, columns = np.nonzero(canvas[..., 0] > 127)
    expected = placement.to_canvas(np.array([[x1, y1, x2, y2]], np.float32))[0].clip(0, [160, 128, 160, 128])
    # NanoDet's map is of pixel centres: half a pixel beside the others', before it is scaled.
    coarse = 1 + (max(placement.factors_xy) if fit.startswith("warp") else 0)
    found = [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
    assert found == pytest.approx(expected.tolist(), abs=coarse)


@pytest.mark.parametrize(("fit", "place", "grey"), [("top-left", (0, 0), 114), ("centred", (24, 0), 114)])
def test_what_the_frame_leaves_is_grey(fit: str, place: tuple[int, int], grey: int) -> None:
    canvas, placement = lay_out_frame(np.full((50, 100, 3), 255, np.uint8), (80, 64), fit)
    whole = canvas[place[0] : place[0] + 32, place[1] : place[1] + 64]
    assert (whole == 255).all()
    assert canvas[..., 0].sum() == 255 * 32 * 64 + grey * 48 * 64
    assert (placement.factors_xy, placement.offset_xy) == ((0.64, 0.64), (place[1], place[0]))


def test_yolox_cuts_fractions_off_and_ultralytics_rounds() -> None:
    image = np.zeros((30, 101, 3), np.uint8)  # the height becomes 19.01 or 18.8
    for fit, width, rows in (("top-left", 64, 19), ("centred", 64, 19), ("top-left", 63, 18), ("centred", 63, 19)):
        assert lay_out_frame(image, (64, width), fit)[1].factors_xy[1] * 30 == pytest.approx(rows)


def test_a_smooth_stretch_counts_every_pixel() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 252
    smooth, _ = lay_out_frame(stripes, (16, 16), "stretch-smooth")
    assert (smooth == 63).all()
    plain, _ = lay_out_frame(stripes, (16, 16), "stretch")
    assert (plain == cv2.resize(stripes, (16, 16))).all()
    assert (plain != smooth).any()


@pytest.mark.parametrize(
    ("frame_hw", "expected"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((1080, 1920), (750, 1333)),
        ((1920, 1080), (1333, 750)),
        ((800, 900), (800, 900)),
        ((1, 4000), (1, 4000)),
    ],
)
def test_the_canvas_of_detr(frame_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert short_side_size(frame_hw) == expected
