from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge import InputError
from hamr_edge.boxes import check_boxes
from hamr_edge.preprocess import pixel_windows

SIZE_HW = (120, 160)
_sides = st.tuples(st.floats(-500, 500, width=32), st.floats(-500, 500, width=32)).filter(
    lambda pair: pair[0] < pair[1]
)
_boxes = st.lists(st.tuples(_sides, _sides), max_size=6).map(
    lambda rows: np.array([[x[0], y[0], x[1], y[1]] for x, y in rows], np.float32).reshape(-1, 4)
)


@given(_boxes)
def test_boxes_end_inside_the_frame_or_are_refused(boxes: np.ndarray) -> None:
    height, width = SIZE_HW
    outside = (boxes[:, 2] <= 0) | (boxes[:, 3] <= 0) | (boxes[:, 0] >= width) | (boxes[:, 1] >= height)
    if outside.any():
        with pytest.raises(InputError, match=rf"boxes\[{np.flatnonzero(outside)[0]}\].*wholly outside"):
            check_boxes(boxes, SIZE_HW)
        return
    before = boxes.copy()
    clipped = check_boxes(boxes, SIZE_HW)
    np.testing.assert_array_equal(boxes, before)
    assert clipped.dtype == np.float32
    assert clipped.shape == boxes.shape
    assert (clipped >= 0).all()
    assert (clipped[:, 0::2] <= width).all()
    assert (clipped[:, 1::2] <= height).all()
    assert (clipped[:, :2] < clipped[:, 2:]).all()
    inside = (boxes >= 0).all(axis=1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    np.testing.assert_array_equal(clipped[inside], boxes[inside])
    windows = pixel_windows(clipped, SIZE_HW)
    assert (windows[:, :2] >= 0).all()
    assert (windows[:, 2] <= width).all()
    assert (windows[:, 3] <= height).all()
    assert (windows[:, :2] < windows[:, 2:]).all()


@pytest.mark.parametrize("empty", [[], [[]], (), np.zeros((0, 4)), np.zeros(0, np.float32)])
def test_nothing_is_no_boxes(empty: object) -> None:
    boxes = check_boxes(empty, SIZE_HW)  # type: ignore[arg-type]
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float32


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.array([0, 0, 10, 10]), r"got \(4,\); wrap a single box as boxes\[None\]"),
        (np.zeros((2, 5)), r"got \(2, 5\); pass x1, y1, x2, y2 only"),
        (np.zeros((1, 2, 4)), r"got \(1, 2, 4\)"),
        (np.zeros((0, 4, 2)), r"got \(0, 4, 2\)"),
        ([[0, 0, 10, 10], [1, 2, 3]], "rows of different lengths"),
        (np.array([["a", "b", "c", "d"]]), "real numbers"),
        (np.array([[0, 0, 10, 10 + 1j]]), "real numbers, got dtype complex128"),
        (np.array([[False, False, True, True]]), "real numbers, got dtype bool"),
        ([[0, 0, 9, 9], [0, 0, float("nan"), 9]], r"boxes\[1\] = \(0, 0, nan, 9\) is not finite"),
        ([[0, 0, float("inf"), 9]], r"boxes\[0\].*is not finite; drop it"),
        ([[0, 0, 1e300, 9]], r"boxes\[0\].*is not finite"),
        (
            [[0, 0, 9, 9], [20, 0, 10, 9], [5, 5, 5, 9]],
            r"boxes\[1\] = \(20, 0, 10, 9\) \(and 1 more\) is inverted.*\+=",
        ),
        ([[5, 9, 8, 9]], r"boxes\[0\].*empty"),
        ([[160, 0, 170, 9]], r"boxes\[0\].*wholly outside the 160 x 120 frame.*scale"),
        ([[-9, 0, 0, 9]], r"boxes\[0\].*wholly outside"),
    ],
)
def test_an_error_names_the_row_and_what_to_do(boxes: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_boxes(boxes, SIZE_HW)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8, np.int64])
def test_any_real_dtype_is_taken(dtype: type) -> None:
    boxes = np.array([[1, 2, 30, 40]], dtype)
    np.testing.assert_array_equal(check_boxes(boxes, SIZE_HW), np.array([[1, 2, 30, 40]], np.float32))


def test_partly_outside_is_clipped() -> None:
    np.testing.assert_array_equal(check_boxes([[-5, -5, 500, 50]], SIZE_HW), [[0, 0, 160, 50]])


@pytest.mark.parametrize("box", [[159.9, 0, 170, 9], [-5, 0, 0.1, 9], [10.4, 10.4, 10.45, 10.45], [0, 119.6, 5, 119.7]])
def test_a_sliver_is_one_pixel_wide(box: list[float]) -> None:
    x1, y1, x2, y2 = pixel_windows(check_boxes([box], SIZE_HW), SIZE_HW)[0]
    assert 0 <= x1 < x2 <= 160
    assert 0 <= y1 < y2 <= 120
