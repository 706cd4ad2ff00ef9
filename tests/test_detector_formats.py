from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from hamr_edge.detector import open_detector
from hamr_edge.detector_formats import FORMATS
from hamr_edge.errors import InputError
from hamr_edge.letterbox import lay_out_frame, short_side_size
from tests.detector_files import CLASSES, PEOPLE, SIZE_HW, plant_people, rewire, write_format

_FRAME = np.zeros((*SIZE_HW, 3), np.uint8)
Write = Callable[..., Path]
KNOWN = r"output tensor\(float\) \[1, 7, 126\]"
"""What ONNX Runtime up to 1.23 knows of such a file before it runs: the shape of a constant."""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file in a format, with people or with other outputs."""
    return partial(write_format, tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_people_come_back_in_the_frames_pixels(write: Write, format: str) -> None:
    path = write(format)
    detector = open_detector(path, "cpu", 1, min_score=0.5, format=format)
    assert detector.name == f"{format}.onnx ({format}), onnxruntime-cpu"
    order = [2, 0] if FORMATS[format].suppress else [2, 0, 1]
    for size_hw in (SIZE_HW, (128, 192), (90, 333), (301, 40)):
        frame = np.zeros((*size_hw, 3), np.uint8)
        _, placement = lay_out_frame(frame, SIZE_HW, FORMATS[format].fit)
        expected = placement.to_frame(np.array([PEOPLE[row][1] for row in order], np.float32))
        expected = expected.clip(0, np.tile(size_hw[::-1], 2))
        expected = expected[((expected[:, 2:] - expected[:, :2]) >= 1).all(axis=1)]
        boxes, scores = detector.detect(frame)
        np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=2e-3)
        assert boxes.dtype == scores.dtype == np.float32
    _, scores = detector.detect(_FRAME)
    np.testing.assert_allclose(scores, [PEOPLE[row][2] for row in order], atol=1e-5)


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


def test_a_batch_of_any_size_is_one_frame(write: Write) -> None:
    path = write("yolov8", batch_and_channels=("batch", "channels"))
    assert len(open_detector(path, "cpu", 1, format="yolov8").detect(_FRAME)[0]) == 2


@pytest.mark.parametrize("format", ["rtdetr", "yolov8-end2end", "rtdetr-ultralytics"])
def test_a_box_listed_for_two_classes_comes_once(write: Write, format: str) -> None:
    outputs = plant_people(format, [(29, PEOPLE[0][1], 0.625)], person=1)
    once = plant_people(format, [(30, PEOPLE[0][1], 0.75), (31, PEOPLE[2][1], 0.5)], person=0)
    for name, array in outputs.items():
        array[30:32] = once[name][30:32]
    path = write(format, outputs)
    boxes, scores = open_detector(path, "cpu", 1, 0.3, format=format, classes=[0, 1]).detect(_FRAME)
    np.testing.assert_allclose(boxes, [PEOPLE[0][1], PEOPLE[2][1]], atol=1e-3)
    assert scores.tolist() == [0.75, 0.5]


@pytest.mark.parametrize("format", FORMATS)
def test_classes_are_chosen_by_index(write: Write, format: str) -> None:
    outputs = plant_people(format, [PEOPLE[0]], person=0)
    others = plant_people(format, [PEOPLE[2]], person=1)
    for name, array in outputs.items():
        rows = {"yolov8": (slice(None), PEOPLE[2][0]), "yolov5": 3 * PEOPLE[2][0] + 1}.get(format, PEOPLE[2][0])
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
    path = write("yolov8", plant_people("yolov8", PEOPLE, person=2), metadata=_ULTRALYTICS)

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
    write("yolov8", plant_people("yolov8", PEOPLE), metadata={**_ULTRALYTICS, "names": "['worker', 'person']"})
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
    expected = np.array([PEOPLE[2][1], PEOPLE[0][1]]) * np.tile([90 / SIZE_HW[1], 40 / SIZE_HW[0]], 2)
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
    np.testing.assert_allclose(boxes[0], np.array(PEOPLE[2][1]) * 2, rtol=1e-6)


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
