"""The frame form: crop and resize inside the graph give what OpenCV gives, and what the crops form makes of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from hamr_edge import ArtifactError, Embedder, InputError, open_backend
from hamr_edge.crop_canvas import LARGEST_FRAME_HW, SMALLEST_FRAME_HW, canvas_capacity, lay_out_crops
from hamr_edge.export.frame_graph import to_frame_form, write_frame_form
from hamr_edge.onnx_session import import_onnxruntime
from hamr_edge.preprocess import crop_boxes
from hamr_edge.sidecar import external_data_path
from tests.artifacts import INPUT_SIZE_HW, pixel_model, write_tiny_artifact, write_tiny_frame_artifact
from tests.check_backend import check_backend
from tests.nvidia_builder import build_with_nvidia
from tests.variants import keep, write_variant

SIZES_HW = [(24, 10), (32, 16), (7, 13), (1, 1)]


@cache
def pixel_session(size_hw: tuple[int, int]) -> Any:
    model = to_frame_form(pixel_model(size_hw))
    return import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def crop_in_graph(frame: np.ndarray, boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    pixels = pixel_session(size_hw).run(None, {"frame": frame, "boxes": np.asarray(boxes, np.float32)})[0]
    return pixels.reshape(-1, *size_hw, 3)


@st.composite
def frames_with_boxes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A frame of noise, and boxes that touch it: upscaled and downscaled, slivers, partly outside, on half pixels."""
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    frame = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, 256, (height, width, 3), np.uint8)

    def span(size: int) -> tuple[float, float]:
        steps = st.integers(-8 * 20, 8 * (size + 20)).map(lambda eighths: eighths / 8)
        first = draw(st.one_of(steps, st.floats(-20, size - 0.125, width=32)).filter(lambda x: x < size))
        end = draw(st.one_of(st.just(first + 0.25), st.just(first + 1), steps, st.floats(-20, size + 20, width=32)))
        low, high = sorted((first, end))
        return (low, max(high, low + 0.125, 0.125)) if low < size else (size - 0.5, size + 1.0)

    boxes = [(*span(width), *span(height)) for _ in range(draw(st.integers(1, 4)))]
    return frame, np.array(boxes, np.float32)[:, [0, 2, 1, 3]]


@given(frames_with_boxes(), st.sampled_from(SIZES_HW))
@settings(max_examples=300, deadline=None)
def test_crops_are_opencvs_to_the_last_bit(drawn: tuple[np.ndarray, np.ndarray], size_hw: tuple[int, int]) -> None:
    frame, boxes = drawn
    np.testing.assert_array_equal(crop_in_graph(frame, boxes, size_hw), crop_boxes(frame, boxes, size_hw))


@pytest.mark.parametrize("size_hw", [(192, 64), (256, 128), (97, 53)])
def test_a_4k_frame_is_cropped_as_exactly(size_hw: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (2160, 3840, 3), np.uint8)
    boxes = np.array([[3000.5, 100.5, 3839.5, 2160], [0, 0, 3840, 2160], [3701, 1999, 3740, 2160]], np.float32)
    np.testing.assert_array_equal(crop_in_graph(frame, boxes, size_hw), crop_boxes(frame, boxes, size_hw))


def test_opencvs_plain_code_gives_the_same(frame: np.ndarray) -> None:
    boxes = np.array([[3, 4, 60, 100], [10.5, 20.5, 23, 99]], np.float32)
    optimised = cv2.useOptimized()
    cv2.setUseOptimized(False)
    try:
        expected = crop_boxes(frame, boxes, (32, 16))
    finally:
        cv2.setUseOptimized(optimised)
    np.testing.assert_array_equal(crop_in_graph(frame, boxes, (32, 16)), expected)


@pytest.mark.parametrize("edge", [0.49999997, 0.5, 0.50000006, 1.4999999, 1.5, 2.5, 63.999996, 64.5])
def test_boxes_are_rounded_as_outside(frame: np.ndarray, edge: float) -> None:
    boxes = np.array([[edge, edge, 90, 90], [0, 0, edge, 90], [0, 0, 90, edge]], np.float32)
    np.testing.assert_array_equal(crop_in_graph(frame, boxes, (32, 16)), crop_boxes(frame, boxes, (32, 16)))


def test_the_graph_clips_boxes_by_itself(frame: np.ndarray) -> None:
    outside = np.array([[-50, -50, 40, 60], [100, 90, 500, 500], [-9, -9, 999, 999]], np.float32)
    expected = crop_boxes(frame, outside, (32, 16))
    np.testing.assert_array_equal(crop_in_graph(frame, outside, (32, 16)), expected)
    beyond = crop_in_graph(frame, np.array([[500, 500, 600, 600]]), (32, 16))  # the runtime refuses such a box
    assert (beyond == frame[-1, -1]).all()


def test_cropping_stays_exact_in_front_of_a_float16_network(frame: np.ndarray) -> None:
    model = to_frame_form(pixel_model((32, 16), TensorProto.FLOAT16))
    onnx.checker.check_model(model, full_check=True)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    boxes = np.array([[3, 4, 60, 100], [10.5, 20.5, 23, 99]], np.float32)
    pixels = session.run(None, {"frame": frame, "boxes": boxes})[0].reshape(-1, 32, 16, 3)
    np.testing.assert_array_equal(pixels, crop_boxes(frame, boxes, (32, 16)))
    casts = [a.i for node in model.graph.node[:-3] if node.op_type == "Cast" for a in node.attribute]
    assert set(casts) == {TensorProto.FLOAT, TensorProto.INT32}


def test_the_form_is_the_published_one() -> None:
    crops_form = pixel_model((32, 16))
    before = crops_form.SerializeToString()
    model = to_frame_form(crops_form)
    assert crops_form.SerializeToString() == before
    onnx.checker.check_model(model, full_check=True)
    found = [
        (value.name, value.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in dims])
        for value in (*model.graph.input, *model.graph.output)
        for dims in [value.type.tensor_type.shape.dim]
    ]
    assert found == [
        ("frame", TensorProto.UINT8, ["height", "width", 3]),
        ("boxes", TensorProto.FLOAT, ["batch", 4]),
        ("embeddings", TensorProto.FLOAT, ["batch", 32 * 16 * 3]),
    ]
    assert list(model.graph.node[-3:]) == list(crops_form.graph.node)
    users = [node.op_type for node in model.graph.node if "frame" in node.input]
    assert users == ["Cast"]  # TensorRT takes uint8 nowhere else


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"


def _float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _any_height(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"


def _no_cast(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Identity"


def _old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename_input, "with the one input images, got pixels"),
        (lambda model: model.CopyFrom(to_frame_form(model)), "got frame, boxes"),
        (_float_input, r"must be uint8 .* got FLOAT"),
        (_any_height, r"of fixed size, got UINT8 \(N, \[0, 16, 3\]\)"),
        (_no_cast, "must go into one Cast, got Identity"),
        (_old_opset, "needs opset 20 or later, got 17"),
    ],
)
def test_what_is_no_crops_form_is_named(change: Any, message: str) -> None:
    model = pixel_model((32, 16))
    change(model)
    with pytest.raises(InputError, match=message):
        to_frame_form(model)


def test_weights_in_a_file_of_their_own_stay_so(tmp_path: Path) -> None:
    model = onnx.load(write_tiny_artifact(tmp_path / "tiny.onnx"))
    source, path = tmp_path / "large.onnx", tmp_path / "large.frame.onnx"
    onnx.save(model, source, save_as_external_data=True, location="large.onnx.data", size_threshold=0)
    write_frame_form(source, path)
    assert external_data_path(path).exists()
    session = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    frame = np.zeros((40, 40, 3), np.uint8)
    assert session.run(None, {"frame": frame, "boxes": np.float32([[0, 0, 9, 9]])})[0].shape == (1, 12)


@pytest.mark.parametrize("max_batch", [1, 8])
def test_the_backend_keeps_the_contract(tmp_path: Path, max_batch: int) -> None:
    check_backend(open_backend(write_tiny_frame_artifact(tmp_path / "tiny.frame.onnx", max_batch), "cpu", threads=1))


def test_both_forms_embed_alike(tmp_path: Path, frame: np.ndarray) -> None:
    path = write_tiny_frame_artifact(tmp_path / "tiny.frame.onnx")
    boxes = [[-3, 4, 60, 100], [10.5, 20.5, 23, 99], [100, 50, 101, 51], [0, 0, 160, 120]]
    crops = [frame[:70, :33], frame[5:9, 7:50]]
    with Embedder(path, "cpu") as framed, Embedder(tmp_path / "crops" / path.name, "cpu") as cropped:
        np.testing.assert_allclose(framed.embed(frame, boxes), cropped.embed(frame, boxes), atol=1e-6)
        np.testing.assert_allclose(framed.embed_crops(crops), cropped.embed_crops(crops), atol=1e-6)
        assert framed.embed(frame, []).shape == framed.embed_crops([]).shape == (0, 12)


@pytest.mark.parametrize(("form", "wanted"), [("frame", "'frame'"), ("crops", "'images'")])
def test_a_sidecar_of_the_other_form_is_refused(tmp_path: Path, form: str, wanted: str) -> None:
    framed = write_tiny_frame_artifact(tmp_path / "tiny.onnx")
    source = tmp_path / "crops" / "tiny.onnx" if form == "frame" else framed
    other = write_variant(source, tmp_path / "other.onnx", keep, form=form)
    with pytest.raises(ArtifactError, match=rf"its sidecar says \[\({wanted}"):
        open_backend(other, "cpu").open()


@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_crops_lie_in_one_frame_untouched(count: int) -> None:
    batch = np.random.default_rng(0).integers(0, 256, (count, *INPUT_SIZE_HW, 3), np.uint8)
    frame, boxes = lay_out_crops(batch)
    assert boxes.shape == (count, 4)
    assert boxes.dtype == np.float32
    assert frame.shape[0] >= SMALLEST_FRAME_HW[0]
    assert frame.shape[1] >= SMALLEST_FRAME_HW[1]
    for crop, (x1, y1, x2, y2) in zip(batch, boxes.astype(int), strict=True):
        np.testing.assert_array_equal(frame[y1:y2, x1:x2], crop)
    np.testing.assert_array_equal(crop_in_graph(frame, boxes, INPUT_SIZE_HW), batch)


@pytest.mark.parametrize("size_hw", [(384, 128), (64, 1000), (1000, 64)])
def test_no_frame_of_crops_is_larger_than_an_engine_takes(size_hw: tuple[int, int]) -> None:
    count = canvas_capacity(size_hw)
    for crops in {1, 2, count // 2, count - 1, count} - {0}:
        frame, boxes = lay_out_crops(np.zeros((crops, *size_hw, 3), np.uint8))
        assert frame.shape[0] <= LARGEST_FRAME_HW[0]
        assert frame.shape[1] <= LARGEST_FRAME_HW[1]
        assert len(np.unique(boxes[:, :2], axis=0)) == crops


def test_more_crops_than_a_frame_holds_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamr_edge.backend.canvas_capacity", lambda size_hw: 3)
    path = write_tiny_frame_artifact(tmp_path / "tiny.frame.onnx")
    batch = np.random.default_rng(0).integers(0, 256, (8, *INPUT_SIZE_HW, 3), np.uint8)
    with open_backend(path, "cpu") as framed, open_backend(tmp_path / "crops" / path.name, "cpu") as cropped:
        np.testing.assert_allclose(framed.infer(batch), cropped.infer(batch), atol=1e-6)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_nvidias_builder_takes_the_form(tmp_path: Path, dtype: int) -> None:
    path = tmp_path / "pixels.frame.onnx"
    onnx.save(to_frame_form(pixel_model(INPUT_SIZE_HW, dtype)), path)
    assert len(build_with_nvidia(path)) > 1000
