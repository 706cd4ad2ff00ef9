from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from hamr_edge.detector import open_detector
from hamr_edge.detector_formats import FORMATS
from hamr_edge.errors import InputError
from tests.detector_files import CLASSES, PEOPLE, SIZE_HW, plant_people, write_format

_FRAME = np.zeros((*SIZE_HW, 3), np.uint8)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file in a format, with people or with other outputs."""
    return partial(write_format, tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_another_format_is_refused_or_hinted_at(write: Write, format: str) -> None:
    path = write(format)
    for other, form in FORMATS.items():
        counts, theirs = form.anchor_counts(SIZE_HW), FORMATS[format].anchor_counts(SIZE_HW)
        if form.outputs == FORMATS[format].outputs and counts == theirs:
            continue  # shapes alone cannot tell
        try:
            open_detector(path, "cpu", 1, format=other)
        except InputError as error:
            message = str(error)
        else:
            continue
        assert f"{path}, declared as {other}: " in message
        if "it does not fit" in message:
            hint = message.split("Its shapes would allow ")[1].split(": declare")[0]
            assert format in hint.split(", ")
            assert other not in hint.split(", ")


def test_the_message_says_what_was_expected_and_what_came(write: Write) -> None:
    with pytest.raises(InputError) as caught:
        open_detector(write("yolov8"), "cpu", 1, format="yolox")
    assert (
        "expected float (1, 3, H, W) -> one output (1, 126, classes+5); got outputs output tensor(float) [1, 7, 126]. "
        "Its shapes would allow yolov8, rtdetr-ultralytics-scores: declare the one that it is"
    ) in str(caught.value)
    with pytest.raises(InputError, match=r"orig_target_sizes \(1, 2\) -> labels \(1, N\), boxes .* got inputs images"):
        open_detector(write("detr"), "cpu", 1, format="rtdetr")
    with pytest.raises(InputError, match="format 'yolo' is unknown; expected one of yolox, yolox-decoded, yolov5"):
        open_detector(write("yolov8"), "cpu", 1, format="yolo")
    odd = write("yolov8", {"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 2), np.float32)})
    with pytest.raises(InputError, match="Its shapes are of none of the formats: yolox"):
        open_detector(odd, "cpu", 1, format="yolov8")


@pytest.mark.parametrize(
    "options",
    [
        {"batch_and_channels": (2, 3)},
        {"batch_and_channels": (1, 1)},
        {"dtype": TensorProto.UINT8},
        {"extra_inputs": {"more": [1, 2]}},
        {"extra_inputs": {"pixel_mask": [1, 64]}},
    ],
)
def test_inputs_that_no_frame_fits(write: Write, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"expected float \(1, 3, H, W\) -> .*; got inputs images tensor"):
        open_detector(write("detr", **options), "cpu", 1, format="detr")


@pytest.mark.parametrize(
    ("written", "declared", "message"),
    [
        ("yolox-decoded", "yolox", "decoded already; declare it as yolox-decoded"),
        ("yolox", "yolox-decoded", "not decoded; declare it as yolox"),
    ],
)
def test_what_shapes_cannot_tell_values_do(write: Write, written: str, declared: str, message: str) -> None:
    people = [(0, (10.0, 8.0, 14.0, 12.0), 0.7), (100, (60.0, 20.0, 80.0, 63.0), 0.75)]
    path = write(written, plant_people(written, people))
    with pytest.raises(InputError, match=message):
        open_detector(path, "cpu", 1, format=declared)


def test_not_one_row_of_a_decoded_file_has_a_size_below_0(write: Write) -> None:
    """Large people in a raw file: the logarithms of their sizes are above 0, and so pass for pixels."""
    outputs = plant_people("yolox", [(0, (10.0, 8.0, 40.0, 60.0), 0.7)])
    outputs["output"][50, 2] = -0.1
    with pytest.raises(InputError, match="not decoded; declare it as yolox"):
        open_detector(write("yolox", outputs), "cpu", 1, format="yolox-decoded")


@pytest.mark.data
def test_the_real_raw_yolox_is_not_taken_for_a_decoded_one(data_root: Path) -> None:
    with pytest.raises(InputError, match=r"declared as yolox-decoded: .* not decoded; declare it as yolox"):
        open_detector(data_root / "models" / "yolox_nano.onnx", "cpu", 1, format="yolox-decoded")


def test_yolov5s_file_is_hinted_at_and_read(write: Write) -> None:
    outputs = {"output": np.zeros((25200, 85), np.float32)}
    outputs["output"][:, :4] = 100
    outputs["output"][7, :6] = 320, 320, 100, 200, 0.5, 0.75
    path = write("yolov5", outputs, size_hw=(640, 640))
    with pytest.raises(InputError, match=r"\(1, 8400, classes\+5\); .* Its shapes would allow yolov5, "):
        open_detector(path, "cpu", 1)
    with pytest.raises(InputError, match=r"it has boxes in shares of the picture, .* reach 320, as pixels"):
        open_detector(path, "cpu", 1, format="rtdetr-ultralytics-scores")
    boxes, scores = open_detector(path, "cpu", 1, format="yolov5").detect(np.zeros((640, 640, 3), np.uint8))
    assert boxes.tolist() == [[270, 220, 370, 420]]
    assert scores.tolist() == [0.375]


@pytest.mark.parametrize(
    ("written", "declared", "instead"),
    [
        ("yolov8-end2end", "rtdetr-ultralytics", "declare it as yolov8-end2end, if it is one"),
        ("rtdetr-ultralytics", "yolov8-end2end", "declare it as rtdetr-ultralytics, if it is one"),
    ],
)
def test_boxes_of_the_wrong_unit_are_refused_once_there_are_any(
    write: Write, written: str, declared: str, instead: str
) -> None:
    nobody = np.zeros((200, 6), np.float32)  # as where NMS is inside
    assert len(open_detector(write(written, {"output": nobody}), "cpu", 1, format=declared).detect(_FRAME)[0]) == 0
    outputs = {"output": np.concatenate([plant_people(written, PEOPLE)["output"][[29, 30]], nobody])}
    with pytest.raises(InputError, match=f"declared as {declared}: the declared format does not fit: .*{instead}"):
        open_detector(write(written, outputs), "cpu", 1, format=declared)
    assert len(open_detector(write(written, outputs), "cpu", 1, format=written).detect(_FRAME)[0]) == 2


@pytest.mark.parametrize("format", ["yolox-decoded", "yolov5", "yolov8", "rtdetr"])
def test_boxes_in_shares_are_no_pixels(write: Write, format: str) -> None:
    shares = plant_people(format, [(29, (0.25, 0.25, 0.5, 0.75), 0.75)])
    name = "boxes" if format == "rtdetr" else "output"
    table = shares[name].T if format == "yolov8" else shares[name]
    table[:, :4] = np.minimum(table[:, :4], 1)
    with pytest.raises(InputError, match=r"the file's all lie within 0\.\.2, as shares of the picture do; declare the"):
        open_detector(write(format, shares), "cpu", 1, format=format)
    table[3, :4] = 40, 30, 50, 60  # the network's other boxes show that it is a speck in the corner
    boxes, _ = open_detector(write(format, shares), "cpu", 1, format=format).detect(np.zeros((640, 960, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[2.5, 2.5, 5, 7.5]], atol=1e-4)


def test_a_nanodet_of_more_bins_is_refused(write: Write) -> None:
    """11 bins a side, 0 to 10 strides: 4 x 3 columns more, which would pass for classes."""
    outputs = plant_people("nanodet-legacy", PEOPLE)
    bins = np.random.default_rng(0).normal(0, 3, (len(outputs["output"]), 44))
    for classes in (80, CLASSES):
        scores = np.zeros((len(bins), classes))
        outputs["output"] = np.concatenate([scores, bins], axis=1, dtype=np.float32)
        message = f"column {classes} of {classes + 44} .* {classes + 12} columns, and distances in 4 x 8.* reg_max 10"
        with pytest.raises(InputError, match=message):
            open_detector(write("nanodet-legacy", outputs), "cpu", 1, format="nanodet-legacy")


def test_scores_that_are_no_scores(write: Write) -> None:
    outputs = plant_people("yolov8", PEOPLE)
    outputs["output"][4, 5] = 7.5
    with pytest.raises(InputError, match=r"1 of 126 scores are not in 0\.\.1, such as 7\.5 in row 5; check that"):
        open_detector(write("yolov8", outputs), "cpu", 1, format="yolov8")
    outputs["output"][4, 5] = np.nan
    with pytest.raises(InputError, match=r"such as nan in row 5; check .* float16"):
        open_detector(write("yolov8", outputs), "cpu", 1, format="yolov8")
    outputs = plant_people("yolov8", PEOPLE)
    outputs["output"][2, 29] = np.inf
    with pytest.raises(InputError, match=r"1 of 3 boxes are not finite, such as .* in row 29; check"):
        open_detector(write("yolov8", outputs), "cpu", 1, format="yolov8")
    for format in ("rtdetr-hf", "detr"):
        outputs = plant_people(format, PEOPLE)
        outputs["logits"] = np.full_like(outputs["logits"], 0.5)
        with pytest.raises(InputError, match=r"logits are all in 0\.\.1: they are scores already"):
            open_detector(write(format, outputs), "cpu", 1, format=format)
