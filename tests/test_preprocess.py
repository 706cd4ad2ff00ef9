from __future__ import annotations

import cv2
import numpy as np
import pytest

from hamr_edge import InputError
from hamr_edge.preprocess import check_image, crop_boxes, resize_crop, stack_crops

SIZE_HW = (32, 16)


def test_each_box_is_cut_and_resized_as_opencv_would(frame: np.ndarray) -> None:
    boxes = [[10, 20, 50, 100], [0, 0, 160, 120], [100.4, 30.5, 120.6, 90.49]]
    batch = crop_boxes(frame, boxes, SIZE_HW)
    assert batch.shape == (3, 32, 16, 3)
    assert batch.dtype == np.uint8
    for row, (x1, y1, x2, y2) in enumerate([(10, 20, 50, 100), (0, 0, 160, 120), (100, 31, 121, 90)]):
        expected = cv2.resize(frame[y1:y2, x1:x2], (16, 32), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(batch[row], expected)


def test_a_box_of_the_input_size_is_copied_untouched(frame: np.ndarray) -> None:
    np.testing.assert_array_equal(crop_boxes(frame, [[7, 9, 23, 41]], SIZE_HW)[0], frame[9:41, 7:23])


def test_no_boxes_give_an_empty_batch(frame: np.ndarray) -> None:
    assert crop_boxes(frame, [], SIZE_HW).shape == (0, 32, 16, 3)
    assert stack_crops([], SIZE_HW).shape == (0, 32, 16, 3)


def test_a_sliver_at_the_edge_is_stretched(frame: np.ndarray) -> None:
    crop = crop_boxes(frame, [[159.7, 119.7, 200, 200]], SIZE_HW)[0]
    assert (crop == frame[119, 159]).all()


@pytest.mark.parametrize(
    "view",
    [np.s_[::2, ::2], np.s_[::-1], np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[10:100, 20:90]],
    ids=["every second", "upside down", "mirrored", "colours reversed", "window"],
)
def test_a_frame_need_not_be_contiguous(frame: np.ndarray, view: tuple[slice, ...]) -> None:
    box = [[3, 4, 50, 44]]
    expected = crop_boxes(np.ascontiguousarray(frame[view]), box, SIZE_HW)
    np.testing.assert_array_equal(crop_boxes(frame[view], box, SIZE_HW), expected)


def test_a_frame_may_be_read_only_and_stays_as_it_was(frame: np.ndarray) -> None:
    before = frame.copy()
    frame.flags.writeable = False
    batch = crop_boxes(frame, [[0, 0, 16, 32]], SIZE_HW)
    batch[:] = 0
    np.testing.assert_array_equal(frame, before)


def test_crops_of_any_size_are_stacked_in_order(frame: np.ndarray) -> None:
    crops = [frame[:80, :40], frame[:32, :16], frame[:1, :1]]
    batch = stack_crops(crops, SIZE_HW)
    for row, crop in enumerate(crops):
        np.testing.assert_array_equal(batch[row], resize_crop(crop, SIZE_HW))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        (np.zeros((0, 4, 3), np.uint8), "is empty"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got uint8 \(1, 4, 4, 3\)"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_image_is_named(image: object, message: str) -> None:
    with pytest.raises(InputError, match=f"frame.*{message}"):
        check_image(image)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"frame.*{message}"):
        crop_boxes(image, [[0, 0, 1, 1]], SIZE_HW)  # type: ignore[arg-type]


def test_a_wrong_crop_is_named_by_its_place(frame: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"crops\[1\] must be"):
        stack_crops([frame, frame[:, :, 0]], SIZE_HW)
