from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from hamr_edge.detector import open_detector
from hamr_edge.detector_formats import FORMATS
from hamr_edge.errors import InputError
from hamr_edge.letterbox import lay_out_frame, short_side_size
from tests.detector_files import CLASSES, SIZE_HW, Outputs, plant_people, rewire, write_detector

_PEOPLE = [
    (29, (30.0, 8.0, 62.0, 40.0), 0.75),
    (30, (31.0, 9.0, 63.0, 41.0), 0.625),  # overlaps the first
    (54, (40.0, 20.0, 58.0, 50.0), 0.875),
    (53, (20.0, 20.0, 70.0, 60.0), 0.125),  # not sure enough
]
_SIZE_INPUT: dict[str, list[int | str]] = {"orig_target_sizes": ["N", 2]}
_FRAME = np.zeros((*SIZE_HW, 3), np.uint8)
Write = Callable[..., Path]
KNOWN = r"output tensor\(float\) \[1, 7, 126\]"
"""What ONNX Runtime up to 1.23 knows of such a file before it runs: the shape of a constant."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file in a format, with people or with other outputs."""

    def write_one(format: str, outputs: Outputs | None = None, **options: object) -> Path:
        form = FORMATS[format]
        planted = plant_people(format, _PEOPLE, form.person) if outputs is None else outputs
        extra = {"extra_inputs": _SIZE_INPUT} if form.needs_size else {}
        return write_detector(tmp_path / f"{format}.onnx", planted, **{**extra, **options})

    return write_one


@pytest.mark.parametrize("format", FORMATS)
def test_people_come_back_in_the_frames_pixels(write: Write, format: str) -> None:
    path = write(format)
    detector = open_detector(path, "cpu", 1, min_score=0.5, format=format)
    assert detector.name == f"{format}.onnx ({format}), onnxruntime-cpu"
    order = [2, 0] if FORMATS[format].suppress else [2, 0, 1]
    for size_hw in (SIZE_HW, (128, 192), (90, 333), (301, 40)):
        frame = np.zeros((*size_hw, 3), np.uint8)
        _, placement = lay_out_frame(frame, SIZE_HW, FORMATS[format].fit)
        expected = placement.to_frame(np.array([_PEOPLE[row][1] for row in order], np.float32))
        expected = expected.clip(0, np.tile(size_hw[::-1], 2))
        expected = expected[((expected[:, 2:] - expected[:, :2]) >= 1).all(axis=1)]
        boxes, scores = detector.detect(frame)
        np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=2e-3)
        assert boxes.dtype == scores.dtype == np.float32
    _, scores = detector.detect(_FRAME)
    np.testing.assert_allclose(scores, [_PEOPLE[row][2] for row in order], atol=1e-5)


def _sigmoid(value: float) -> float:
    return 1 / (1 + np.exp(-value))


_BLUE, _RED = 0.406, 0.485  # ImageNet's means
_SEEN = {
    # output, place, channel of the input, the score that pixels of 204 (blue) and 130 (red) of 255 give
    "yolox": ("output", (29, 4), 0, 204 * 0.001),
    "yolox-decoded": ("output", (29, 4), 0, 204 * 0.001),
    "yolov5": ("output", (88, 4), 2, 204 / 255 * 0.5),
    "yolov8": ("output", (4, 29), 0, 130 / 255),
    "yolov8-end2end": ("output", (29, 4), 2, 204 / 255),
    "nanodet": ("output", (29, 0), 2, 0.75 + (130 / 255 - _RED) / 0.229),
    "nanodet-keep-ratio": ("output", (29, 0), 2, 0.75 + (130 / 255 - _RED) / 0.229),
    "nanodet-legacy": ("output", (29, 0), 2, 0.75 + (130 / 255 - _RED) / 0.229),
    "rtdetr": ("scores", (29,), 0, 130 / 255),
    "rtdetr-hf": ("logits", (29, 0), 2, _sigmoid(204 / 255)),
    "rtdetr-ultralytics": ("output", (29, 4), 0, 130 / 255),
    "rtdetr-ultralytics-scores": ("output", (29, 4), 2, 204 / 255),
    "detr": ("logits", (29, 1), 2, np.exp(x := (204 / 255 - _BLUE) / 0.225) / (np.exp(x) + 3)),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_pixels_come_in_the_formats_order_and_range(write: Write, format: str, dtype: int) -> None:
    output, place, channel, expected = _SEEN[format]
    outputs = plant_people(format, [(29, (30.0, 8.0, 62.0, 40.0), 0.5)], FORMATS[format].person)
    if output == "logits":
        outputs[output][place[0]] = 0
    elif format.startswith("yolox"):  # objectness times class: 0..255 times 0.001
        outputs[output][place] = 0
        outputs[output][29, 5] = 0.001
    elif format == "yolov5":
        outputs[output][place] = 0
        outputs[output][88, 5] = 0.5
    else:
        outputs[output][place] = 0.75 if format.startswith("nanodet") else 0
    path = write(format, outputs, watch=(output, place, channel), dtype=dtype)
    frame = np.zeros((*SIZE_HW, 3), np.uint8)
    frame[..., 0], frame[..., 2] = 204, 130
    _, scores = open_detector(path, "cpu", 1, min_score=0.1, format=format).detect(frame)
    np.testing.assert_allclose(scores, [expected], atol=2e-3 if dtype == TensorProto.FLOAT16 else 1e-5)


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


def test_a_batch_of_any_size_is_one_frame(write: Write) -> None:
    path = write("yolov8", batch_and_channels=("batch", "channels"))
    assert len(open_detector(path, "cpu", 1, format="yolov8").detect(_FRAME)[0]) == 2


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
    outputs = {"output": np.concatenate([plant_people(written, _PEOPLE)["output"][[29, 30]], nobody])}
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
    outputs = plant_people("nanodet-legacy", _PEOPLE)
    bins = np.random.default_rng(0).normal(0, 3, (len(outputs["output"]), 44))
    for classes in (80, CLASSES):
        scores = np.zeros((len(bins), classes))
        outputs["output"] = np.concatenate([scores, bins], axis=1, dtype=np.float32)
        message = f"column {classes} of {classes + 44} .* {classes + 12} columns, and distances in 4 x 8.* reg_max 10"
        with pytest.raises(InputError, match=message):
            open_detector(write("nanodet-legacy", outputs), "cpu", 1, format="nanodet-legacy")


@pytest.mark.parametrize("format", ["rtdetr", "yolov8-end2end", "rtdetr-ultralytics"])
def test_a_box_listed_for_two_classes_comes_once(write: Write, format: str) -> None:
    outputs = plant_people(format, [(29, _PEOPLE[0][1], 0.625)], person=1)
    once = plant_people(format, [(30, _PEOPLE[0][1], 0.75), (31, _PEOPLE[2][1], 0.5)], person=0)
    for name, array in outputs.items():
        array[30:32] = once[name][30:32]
    path = write(format, outputs)
    boxes, scores = open_detector(path, "cpu", 1, 0.3, format=format, classes=[0, 1]).detect(_FRAME)
    np.testing.assert_allclose(boxes, [_PEOPLE[0][1], _PEOPLE[2][1]], atol=1e-3)
    assert scores.tolist() == [0.75, 0.5]


def test_scores_that_are_no_scores(write: Write) -> None:
    outputs = plant_people("yolov8", _PEOPLE)
    outputs["output"][4, 5] = 7.5
    with pytest.raises(InputError, match=r"1 of 126 scores are not in 0\.\.1, such as 7\.5 in row 5; check that"):
        open_detector(write("yolov8", outputs), "cpu", 1, format="yolov8")
    outputs["output"][4, 5] = np.nan
    with pytest.raises(InputError, match=r"such as nan in row 5; check .* float16"):
        open_detector(write("yolov8", outputs), "cpu", 1, format="yolov8")
    outputs = plant_people("yolov8", _PEOPLE)
    outputs["output"][2, 29] = np.inf
    with pytest.raises(InputError, match=r"1 of 3 boxes are not finite, such as .* in row 29; check"):
        open_detector(write("yolov8", outputs), "cpu", 1, format="yolov8")
    for format in ("rtdetr-hf", "detr"):
        outputs = plant_people(format, _PEOPLE)
        outputs["logits"] = np.full_like(outputs["logits"], 0.5)
        with pytest.raises(InputError, match=r"logits are all in 0\.\.1: they are scores already"):
            open_detector(write(format, outputs), "cpu", 1, format=format)


@pytest.mark.parametrize("format", FORMATS)
def test_classes_are_chosen_by_index(write: Write, format: str) -> None:
    outputs = plant_people(format, [_PEOPLE[0]], person=0)
    others = plant_people(format, [_PEOPLE[2]], person=1)
    for name, array in outputs.items():
        rows = {"yolov8": (slice(None), _PEOPLE[2][0]), "yolov5": 3 * _PEOPLE[2][0] + 1}.get(format, _PEOPLE[2][0])
        array[rows] = others[name][rows]
    path = write(format, outputs)

    def find(*classes: int) -> list[float]:
        _, scores = open_detector(path, "cpu", 1, min_score=0.5, format=format, classes=classes).detect(_FRAME)
        return [round(float(score), 3) for score in scores]

    assert find(0) == [0.75]
    assert find(1) == [0.875]
    assert find(1, 0, 1) == [0.875, 0.75]
    if "listed" in FORMATS[format].read_scores.__name__ or format == "rtdetr":
        assert find(77) == []  # such a network does not say how many classes it has
    else:
        count = CLASSES + (format == "rtdetr-hf")  # of the same logits, DETR's last is of no object
        with pytest.raises(InputError, match=rf"it has {count} classes, from 0; class {count} was asked for"):
            find(count)


_NAMES = str({0: "person", 1: "dog", 2: "red car"})
_ULTRALYTICS = {"author": "Ultralytics", "task": "detect", "head": "Detect", "names": _NAMES, "imgsz": str([*SIZE_HW])}


def test_classes_are_chosen_by_the_files_names(write: Write) -> None:
    path = write("yolov8", plant_people("yolov8", _PEOPLE, person=2), metadata=_ULTRALYTICS)

    def count(**options: object) -> int:
        return len(open_detector(path, "cpu", 1, 0.5, format="yolov8", **options).detect(_FRAME)[0])

    assert count() == 0
    assert count(classes=["red car"]) == count(classes=["2"]) == count(classes=["dog", 2]) == 2
    with pytest.raises(InputError, match="class 'car' is unknown: it has 0 person, 1 dog, 2 red car"):
        count(classes=["car"])
    with pytest.raises(InputError, match="class 3 is not there; expected 0 person, 1 dog, 2 red car"):
        count(classes=[3])
    with pytest.raises(InputError, match="classes is empty"):
        count(classes=[])
    write("yolov8", plant_people("yolov8", _PEOPLE), metadata={**_ULTRALYTICS, "names": "['worker', 'person']"})
    with pytest.raises(InputError, match=r"class 0 is 'worker' by its metadata, .* name the classes to find: 0 worker"):
        count()
    assert count(classes=["worker"]) == 2
    write("yolov8", metadata={"names": "{0: '0', 1: '1', 2: '2'}"})  # never trained on names
    assert count() == 2
    with pytest.raises(InputError, match="its metadata names no classes; give their indices"):
        count(classes=["person"])


@pytest.mark.parametrize(
    ("format", "notes", "message"),
    [
        ("yolov8", {"task": "segment"}, "its task is 'segment'; expected a model of the task 'detect'"),
        ("yolov8", {"head": "RTDETRDecoder"}, "its head is RTDETRDecoder; declared as yolov8"),
        ("rtdetr-ultralytics", {}, "its head is Detect; declared as rtdetr-ultralytics"),
        ("yolox", {}, "ultralytics wrote it; declared as yolox, expected of yolov8, yolov8-end2end, rtdetr-ultra"),
    ],
)
def test_metadata_that_contradicts_the_declaration(
    write: Write, format: str, notes: dict[str, str], message: str
) -> None:
    path = write(format, metadata={**_ULTRALYTICS, **notes})
    with pytest.raises(InputError, match=message):
        open_detector(path, "cpu", 1, format=format)


def test_the_size_of_a_file_that_takes_any(write: Write) -> None:
    free = {"size_hw": ("height", "width"), "free_outputs": True}
    path = write("yolov8", **free, metadata=_ULTRALYTICS)
    detector = open_detector(path, "cpu", 1, format="yolov8", input_size_hw=SIZE_HW)
    assert len(detector.detect(_FRAME)[0]) == 2
    with pytest.raises(InputError, match=r"made for 64 x 96, and its input takes any size; say which"):
        open_detector(path, "cpu", 1, format="yolov8")
    with pytest.raises(InputError, match=r"its input would be 64 x 90; expected .* multiples of 32"):
        open_detector(path, "cpu", 1, format="yolov8", input_size_hw=(64, 90))
    path = write("yolov8", **free)
    with pytest.raises(InputError, match=r"8400 or .*\); got outputs (of \(1, 7, 126\) for 640 x 640|" + KNOWN + ")"):
        open_detector(path, "cpu", 1, format="yolov8")
    with pytest.raises(InputError, match=r"its input is 64 x 96; 96 x 96 was asked for"):
        open_detector(write("yolov8"), "cpu", 1, format="yolov8", input_size_hw=(96, 96))


def test_detr_takes_frames_of_any_size_and_a_mask(write: Write) -> None:
    path = write("detr", size_hw=("height", "width"), extra_inputs={"pixel_mask": ["batch", 64, 64]})
    detector = open_detector(path, "cpu", 1, format="detr")
    frame = np.zeros((40, 90, 3), np.uint8)
    assert short_side_size((40, 90)) == (592, 1333)
    boxes, _ = detector.detect(frame)  # relative boxes are the same at any size
    expected = np.array([_PEOPLE[2][1], _PEOPLE[0][1]]) * np.tile([90 / SIZE_HW[1], 40 / SIZE_HW[0]], 2)
    np.testing.assert_allclose(boxes, expected, atol=1e-3)
    write("detr", size_hw=("height", "width"), extra_inputs={"pixel_mask": ["batch", "height", "width"]})
    np.testing.assert_allclose(open_detector(path, "cpu", 1, format="detr").detect(frame)[0], expected, atol=1e-3)


def test_rtdetr_is_told_the_canvas(write: Write) -> None:
    """A model whose boxes go by the size that it was told."""
    path = write("rtdetr")
    rewire(
        path,
        "boxes",
        [
            helper.make_node("Cast", ["orig_target_sizes"], ["told"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["told", "told"], ["corners"], axis=1),
            helper.make_node("Constant", [], ["canvas"], value_floats=[96.0, 64.0, 96.0, 64.0]),
            helper.make_node("Div", ["corners", "canvas"], ["ratio"]),
            helper.make_node("Mul", ["planted", "ratio"], ["boxes"]),
        ],
    )
    boxes, _ = open_detector(path, "cpu", 1, format="rtdetr").detect(np.zeros((128, 192, 3), np.uint8))
    np.testing.assert_allclose(boxes[0], np.array(_PEOPLE[2][1]) * 2, rtol=1e-6)


def test_a_model_that_cannot_run_on_that_size(write: Write) -> None:
    path = write("yolov8", size_hw=("height", "width"), free_outputs=True)
    rewire(
        path,
        "output",
        [
            helper.make_node("Constant", [], ["fixed"], value_ints=[3, SIZE_HW[0] * SIZE_HW[1]]),
            helper.make_node("Reshape", ["images", "fixed"], ["flat"]),
            helper.make_node("ReduceMin", ["flat"], ["least"], keepdims=0),
            helper.make_node("Add", ["planted", "least"], ["output"]),
        ],
    )
    with pytest.raises(InputError, match=r"cannot run it on images float32 \(1, 3, 32, 384\): .*|" + KNOWN):
        open_detector(path, "cpu", 1, format="yolov8", input_size_hw=(32, 384))


@pytest.mark.parametrize("format", ["yolov8", "detr"])
def test_heights_and_overlaps_are_filtered(write: Write, format: str) -> None:
    path = write(format)

    def heights(**options: float) -> list[float]:
        boxes, _ = open_detector(path, "cpu", 1, 0.1, format=format, **options).detect(_FRAME)
        return sorted(round(float(y2 - y1), 3) for _, y1, _, y2 in boxes)

    overlapped = [] if format == "yolov8" else [32]
    assert heights() == sorted([30, 32, *overlapped, 40])
    assert heights(max_height=31) == [30]
    assert heights(min_height=31, max_height=32) == [32, *overlapped]
    assert heights(nms_iou=0.45) == [30, 32, 40]
    assert heights(nms_iou=0.99) == [30, 32, 32, 40]
