from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from hamr_edge.detector import open_detector
from hamr_edge.detector_decoders import anchor_grid
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.hog import HogDetector
from hamr_edge.letterbox import lay_out_frame
from hamr_edge.nms import DEFAULT_NMS_IOU, box_iou, finish_boxes, suppress_overlaps
from hamr_edge.onnx_detector import OnnxDetector
from hamr_edge.video import open_source
from tests.yolox_files import SIZE_HW, write_yolox, yolox_output

_PEOPLE = [
    (0, (10.0, 8.0, 22.0, 40.0), 0.7),
    (50, (11.0, 9.0, 23.0, 41.0), 0.6),  # overlaps the first: suppressed
    (100, (60.0, 20.0, 80.0, 63.0), 0.75),
    (110, (30.0, 20.0, 35.0, 30.0), 0.3),  # not sure enough
]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> OnnxDetector:
    path = write_yolox(tmp_path_factory.mktemp("yolox") / "tiny.onnx", yolox_output(_PEOPLE))
    return OnnxDetector(path, device="cpu", threads=1)


def test_yolox_decodes_suppresses_and_sorts(detector: OnnxDetector) -> None:
    boxes, scores = detector.detect(np.zeros((*SIZE_HW, 3), np.uint8))  # the frame is the canvas
    np.testing.assert_allclose(boxes, [_PEOPLE[2][1], _PEOPLE[0][1]], atol=1e-4)
    np.testing.assert_allclose(scores, [0.75, 0.7], atol=1e-6)
    assert boxes.dtype == scores.dtype == np.float32
    assert detector.name == "tiny.onnx (yolox), onnxruntime-cpu"


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 400), width=st.integers(1, 400))
def test_yolox_boxes_are_in_the_frames_pixels(detector: OnnxDetector, height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    boxes, _ = detector.detect(image)
    _, placement = lay_out_frame(image, SIZE_HW, "top-left")
    expected = placement.to_frame(np.array([_PEOPLE[2][1], _PEOPLE[0][1]], np.float32))
    expected = expected.clip(0, [width, height, width, height])
    expected = expected[((expected[:, 2:] - expected[:, :2]) >= 1).all(axis=1)]
    np.testing.assert_allclose(boxes, expected, rtol=1e-4, atol=1e-3)


def test_low_boxes_and_slivers_are_dropped(tmp_path: Path) -> None:
    people = [
        (0, (10.0, 8.0, 22.0, 40.0), 0.7),
        (60, (40.0, 5.0, 50.0, 20.0), 0.7),
        (100, (95.5, 20.0, 110.0, 60.0), 0.7),
    ]
    path = write_yolox(tmp_path / "tiny.onnx", yolox_output(people))
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    assert len(OnnxDetector(path, "yolox", "cpu", 1).detect(image)[0]) == 2
    boxes, _ = OnnxDetector(path, "yolox", "cpu", 1, min_height=20).detect(image)
    np.testing.assert_allclose(boxes, [people[0][1]], atol=1e-4)
    boxes, scores = OnnxDetector(path, "yolox", "cpu", 1, min_score=0.9).detect(image)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


def test_the_grid_is_row_by_row_level_by_level() -> None:
    cells, strides = anchor_grid((64, 96))
    assert len(cells) == 8 * 12 + 4 * 6 + 2 * 3
    assert cells[:2].tolist() == [[0, 0], [1, 0]]
    assert (cells[12].tolist(), strides[12].tolist()) == ([0, 1], [8])
    assert (cells[-1].tolist(), strides[-1].tolist()) == ([2, 1], [32])


def test_a_file_that_is_no_yolox(tmp_path: Path, tiny_artifact: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        OnnxDetector(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="cannot be loaded"):
        OnnxDetector(tmp_path / "text.onnx")
    with pytest.raises(InputError, match=r"declared as yolox: it does not fit .* got inputs .*uint8"):
        OnnxDetector(tiny_artifact)
    wrong_anchors = write_yolox(tmp_path / "anchors.onnx", yolox_output(_PEOPLE)[:-1])
    with pytest.raises(InputError, match=r"\(1, 126, classes\+5\); got outputs .*125"):
        OnnxDetector(wrong_anchors)
    no_class = write_yolox(tmp_path / "class.onnx", np.zeros((126, 5), np.float32))
    with pytest.raises(InputError, match="does not fit the declared format"):
        OnnxDetector(no_class)
    integers = write_yolox(tmp_path / "int.onnx", yolox_output(_PEOPLE), dtype=TensorProto.INT32)
    with pytest.raises(InputError, match=r"got inputs .*int32"):
        OnnxDetector(integers)


def _noise(seed: int) -> np.ndarray:
    """A frame of blots in which HOG sees people, now and then."""
    blots = np.random.default_rng(seed).integers(0, 256, (25, 33, 3), np.uint8)
    return np.asarray(cv2.resize(blots, (200, 200)))


@pytest.mark.parametrize("kind", ["hog", "yolox"])
def test_eight_threads_find_what_one_finds(kind: str, detector: OnnxDetector) -> None:
    shared = detector if kind == "yolox" else HogDetector(min_score=0, nms_iou=1, min_height=60)
    frames = [_noise(seed)[: 200 - seed] for seed in range(12)]
    serial = [shared.detect(frame) for frame in frames]
    assert sum(len(boxes) for boxes, _ in serial) > 9
    order = np.random.default_rng(0).integers(0, len(frames), 40)
    with ThreadPoolExecutor(8) as pool:
        for index, (boxes, scores) in zip(order, pool.map(lambda i: shared.detect(frames[i]), order), strict=True):
            np.testing.assert_array_equal(boxes, serial[index][0])
            np.testing.assert_array_equal(scores, serial[index][1])


def test_hog_keeps_to_the_heights_asked_for() -> None:
    def heights(max_height: float | None) -> list[int]:
        detector = open_detector("hog", min_score=0, nms_iou=1, min_height=60, max_height=max_height)
        boxes, _ = detector.detect(_noise(3))
        return sorted(round(float(height)) for height in boxes[:, 3] - boxes[:, 1])

    assert heights(None) == [63, 66, 84, 88]
    assert heights(70) == [63, 66]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"detector": "ssd"}, "of no known kind; expected 'hog'"),
        ({"nms_iou": 1.5}, r"nms_iou must be in 0\.\.1, got 1.5"),
        ({"min_height": -1.0}, "min_height must be above 0"),
        ({"device": "cuda:0"}, "runs on the CPU only"),
        ({"max_height": 0.0}, "max_height must be above 0, got 0"),
        ({"min_height": 50, "max_height": 40}, "min_height is 50, above max_height, 40: no box could stay"),
        ({"format": "yolov8"}, "format is for .onnx files; the hog detector has none"),
        ({"classes": [0]}, "classes is for .onnx files"),
        ({"input_size_hw": (64, 64)}, "input_size_hw is for .onnx files"),
        ({"detector": "a.onnx", "min_score": 1.5}, r"min_score must be in 0\.\.1 for an .onnx file, got 1.5"),
    ],
)
def test_settings_are_checked(settings_: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_detector(**{"detector": "hog", **settings_})


def test_the_device_asked_for_is_the_device_used(tmp_path: Path) -> None:
    import onnxruntime

    path = write_yolox(tmp_path / "tiny.onnx", yolox_output(_PEOPLE))
    with pytest.raises(InputError, match="must be auto, cpu or cuda:N"):
        OnnxDetector(path, device="gpu")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(UnavailableError, match="cuda:0 was asked for, but this onnxruntime"):
            OnnxDetector(path, device="cuda:0")


def test_without_onnxruntime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_yolox(tmp_path / "tiny.onnx", yolox_output(_PEOPLE))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match=r"hamr-edge\[onnx\]"):
        open_detector(path)


def _naive_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda row: (-scores[row], row)):
        a = boxes[row]
        for other in kept:
            b = boxes[other]
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if np.float32(shared / union) > np.float32(threshold):
                break
        else:
            kept.append(row)
    return kept


_corner, _side = st.integers(0, 30), st.integers(1, 20)
_scored = st.lists(st.tuples(_corner, _corner, _side, _side, st.integers(0, 6)), max_size=25)


@given(rows=_scored, threshold=st.sampled_from([0.0, 0.3, 0.45, 0.9, 1.0]))
def test_nms_agrees_with_the_plain_algorithm(rows: list[tuple[int, ...]], threshold: float) -> None:
    table = np.asarray(rows, dtype=np.float32).reshape(-1, 5)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    kept = suppress_overlaps(boxes, table[:, 4], np.float32(threshold))
    assert kept.tolist() == _naive_nms(boxes, table[:, 4], threshold)


@pytest.mark.parametrize(("heights", "wanted"), [({"max_height": 160}, 150), ({"min_height": 160}, 200)])
def test_a_box_of_another_height_suppresses_nobody(heights: dict[str, float], wanted: int) -> None:
    boxes = np.array([[10, 10, 60, 10 + height] for height in (200, 150)], np.float32)
    scores = np.array([0.6, 0.59] if wanted == 150 else [0.59, 0.6], np.float32)
    assert box_iou(boxes[0], boxes[1:])[0] > DEFAULT_NMS_IOU
    settings_ = {"min_height": 0.0, **heights}
    found, found_scores = finish_boxes(boxes, scores, (300, 300), DEFAULT_NMS_IOU, **settings_)
    assert (found[:, 3] - found[:, 1]).tolist() == [wanted]
    assert found_scores.tolist() == [np.float32(0.59)]


def test_without_suppression_the_best_of_identical_boxes_stays() -> None:
    near, far = [10, 10, 60, 90], [10, 10, 60, 91]
    boxes = np.array([near, far, near, near, far], np.float32)
    scores = np.array([0.5, 0.75, 0.625, 0.625, 0.25], np.float32)
    found, found_scores = finish_boxes(boxes, scores, (100, 100), None, 0.0)
    assert found.tolist() == [far, near]
    assert found_scores.tolist() == [0.75, 0.625]
    found, found_scores = finish_boxes(boxes[:0], scores[:0], (100, 100), None, 0.0)
    assert found.shape == (0, 4)


def test_iou() -> None:
    box = np.array([0, 0, 4, 4], np.float32)
    others = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8], [1, 1, 3, 3]], np.float32)
    np.testing.assert_allclose(box_iou(box, others), [1, 1 / 3, 0, 0.25], atol=1e-6)


@pytest.mark.parametrize("size_hw", [(1, 1), (40, 30), (200, 20), (20, 200)])
def test_hog_takes_any_size_and_finds_nobody_in_grey(size_hw: tuple[int, int]) -> None:
    boxes, scores = HogDetector().detect(np.full((*size_hw, 3), 127, np.uint8))
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.data
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_hog_and_yolox_agree_on_a_real_person(data_root: Path, scale: float) -> None:
    with open_source(data_root / "video" / "one-by-one.mp4") as source:
        image = next(frame.image for frame in source if frame.number == 100)
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    yolox, scores = open_detector(data_root / "models" / "yolox_nano.onnx", "cpu", 1).detect(image)
    assert len(yolox) == 1
    assert scores[0] > 0.7
    hog, _ = HogDetector().detect(image)
    assert box_iou(yolox[0], hog).max() > 0.6


@pytest.mark.data
def test_yolox_finds_the_people_that_others_found(data_root: Path) -> None:
    from hamr_edge.detections import load_detections

    known = load_detections(data_root / "video" / "vtest.det.txt", 0.625)
    detector = open_detector(data_root / "models" / "yolox_nano.onnx", "cpu", 1)
    found = total = 0
    with open_source(data_root / "video" / "vtest.avi") as source:
        for frame in source:
            if frame.number % 10 == 0:
                boxes, _ = detector.detect(frame.image)
                truth, _ = known.in_frame(frame.number, (360, 480))
                found += sum(len(boxes) and box_iou(box, boxes).max() > 0.4 for box in truth)
                total += len(truth)
            if frame.number == 80:
                break
    assert found / total > 0.8
