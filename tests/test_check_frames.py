"""What holds an artifact in the frame form back from being published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hamr_edge import InputError, open_backend
from hamr_edge.errors import GateError
from hamr_edge.export.check_frames import SourceFrames, frame_source
from hamr_edge.export.config import ExportConfig
from hamr_edge.export.exporting import export_checkpoint
from hamr_edge.export.frame_graph import to_frame_form, write_frame_form
from hamr_edge.export.publish import SourceEmbeddings, publish
from hamr_edge.preprocess import pixel_windows
from hamr_edge.sidecar import load_sidecar
from hamr_edge.trainer.synthetic import random_crops
from tests.artifacts import INPUT_SIZE_HW, write_tiny_artifact

CROPS = random_crops(12, seed=0)
NAMES = tuple(f"crop {index}" for index in range(len(CROPS)))


@pytest.fixture(scope="module")
def source(tiny_artifact: Path) -> SourceFrames:
    with open_backend(tiny_artifact, "cpu") as backend:
        return frame_source(CROPS, NAMES, backend.infer, INPUT_SIZE_HW)


def _publish(path: Path, crops: Path, source: SourceFrames, change: Callable[[onnx.ModelProto], object]) -> None:
    def write(file: Path) -> None:
        model = to_frame_form(onnx.load(crops))
        change(model)
        onnx.save(model, file)

    publish(path, replace(load_sidecar(crops), form="frame"), write, source, 0.99999)


def test_a_right_graph_is_published(tmp_path: Path, tiny_artifact: Path, source: SourceFrames) -> None:
    path = tmp_path / "model.fp32.frame.onnx"
    _publish(path, tiny_artifact, source, lambda model: None)
    sidecar = load_sidecar(path)
    assert sidecar.form == "frame"
    assert sidecar.parity["images"] == 12
    assert sidecar.parity["batch_sizes"] == [1, 2, 7, 8]
    assert sidecar.parity["min_cosine"] > 0.999999


def _node(model: onnx.ModelProto, op: str, output: str) -> onnx.NodeProto:
    (found,) = [node for node in model.graph.node if f"crop/{output}" in node.output and node.op_type == op]
    return found


def _swap_axes(model: onnx.ModelProto) -> None:
    outputs = _node(model, "Split", "left_asked").output
    outputs[:] = [outputs[place] for place in (1, 0, 3, 2)]


def _round_down(model: onnx.ModelProto) -> None:
    _node(model, "Ceil", "boxes_whole").op_type = "Floor"


def _read_beyond_the_window(model: onnx.ModelProto) -> None:
    _node(model, "Sub", "column_last").input[1] = "crop/zero"


def _begin_one_row_late(model: onnx.ModelProto) -> None:
    _node(model, "Max", "top_inside").input[1] = "crop/one"


def _align_corners(model: onnx.ModelProto) -> None:
    _node(model, "Sub", "row_shifted").input[1] = "crop/zero"


def _swap_colours(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "reversed"))
    gather = onnx.helper.make_node("Gather", ["crop/rgb", "reversed"], ["crop/pixels"], axis=1)
    reshape = _node(model, "Reshape", "pixels")
    reshape.output[0] = "crop/rgb"
    model.graph.node.insert(list(model.graph.node).index(reshape) + 1, gather)


@pytest.mark.parametrize(
    "change",
    [_swap_axes, _round_down, _read_beyond_the_window, _begin_one_row_late, _align_corners, _swap_colours],
)
def test_a_wrong_graph_is_not(
    tmp_path: Path, tiny_artifact: Path, source: SourceFrames, change: Callable[[onnx.ModelProto], object]
) -> None:
    with pytest.raises(GateError, match=r"at batch 1, the embedding of crop \d+ has cosine"):
        _publish(tmp_path / "wrong.frame.onnx", tiny_artifact, source, change)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_mixes_boxes_is_not(tmp_path: Path, tiny_artifact: Path, source: SourceFrames) -> None:
    def first_box_only(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first_row"))
        gather = onnx.helper.make_node("Gather", ["boxes", "first_row"], ["first_box"], axis=0)
        expand = onnx.helper.make_node("Expand", ["first_box", "boxes_shape"], ["same_boxes"])
        shape = onnx.helper.make_node("Shape", ["boxes"], ["boxes_shape"])
        _node(model, "Mul", "boxes_twice").input[0] = "same_boxes"
        for node in (expand, gather, shape):
            model.graph.node.insert(0, node)

    with pytest.raises(GateError, match="at batch 2, the embedding of crop"):
        _publish(tmp_path / "wrong.frame.onnx", tiny_artifact, source, first_box_only)


def test_each_form_is_checked_with_its_own_source(tmp_path: Path, tiny_artifact: Path, source: SourceFrames) -> None:
    sidecar = load_sidecar(tiny_artifact)
    with pytest.raises(ValueError, match="the crops form cannot be checked with SourceFrames"):
        publish(tmp_path / "model.onnx", sidecar, write_tiny_artifact, source, 0.9)
    crops = SourceEmbeddings(np.zeros((2, *INPUT_SIZE_HW, 3), np.uint8), ("a", "b"), source.embeddings[:2])
    with pytest.raises(ValueError, match="the frame form cannot be checked with SourceEmbeddings"):
        publish(tmp_path / "model.onnx", replace(sidecar, form="frame"), write_tiny_artifact, crops, 0.9)


def test_a_real_network_equals_pytorch_in_both_forms(checkpoint: Path, tmp_path: Path) -> None:
    (crops,) = export_checkpoint(checkpoint, tmp_path, ExportConfig(max_batch=4)).artifacts
    sidecar = load_sidecar(crops)
    with open_backend(checkpoint, "cpu") as reference:
        source = frame_source(CROPS, NAMES, reference.infer, sidecar.input_size_hw)
    path = tmp_path / "model.fp32.frame.onnx"
    publish(path, replace(sidecar, form="frame"), lambda file: write_frame_form(crops, file), source, 0.99999)
    assert load_sidecar(path).parity["batch_sizes"] == [1, 2, 4]


def _embed_mean(batch: np.ndarray) -> np.ndarray:
    return batch.reshape(len(batch), -1, 3).mean(axis=1).astype(np.float32)


def test_crops_lie_whole_or_cut_by_the_frame_in_odd_places() -> None:
    crops = [np.full((40 + 3 * index, 17 + index, 3), index, np.uint8) for index in range(40)]
    source = frame_source(crops, [str(index) for index in range(40)], _embed_mean, (8, 8), seed=3)
    assert len(source.frames) >= 2
    assert sum(len(boxes) for boxes in source.boxes) == 40
    windows = []
    for frame, boxes in zip(source.frames, source.boxes, strict=True):
        assert (boxes != np.round(boxes)).any(axis=1).all()
        assert (boxes[:, :2] < -0.5).any()
        clipped = np.clip(boxes, 0, [frame.shape[1], frame.shape[0]] * 2).astype(np.float32)
        windows += [frame[y1:y2, x1:x2] for x1, y1, x2, y2 in pixel_windows(clipped, frame.shape[:2])]
    for index, window in enumerate(windows):
        assert (window == index).all()
        height = (crops[index].shape[0], 5, 14)[index % 3]
        assert 0.75 * height <= window.shape[0] <= height
    np.testing.assert_array_equal(source.embeddings, np.arange(40, dtype=np.float32)[:, None].repeat(3, axis=1))


def test_crops_larger_than_the_frames_and_of_one_pixel_are_pasted_too() -> None:
    shapes = [(900, 300), (1, 1), (30, 2000), (100, 50), (3, 700), (2, 2)]
    crops = [np.full((*shape, 3), 9 * index, np.uint8) for index, shape in enumerate(shapes)]
    source = frame_source(crops, list("abcdef"), _embed_mean, (8, 8))
    np.testing.assert_array_equal(source.embeddings[:, 0], 9 * np.arange(6))


def test_no_crops_are_no_source() -> None:
    with pytest.raises(InputError, match="got none"):
        frame_source([], [], _embed_mean, (8, 8))
    with pytest.raises(InputError, match=r"crops\[0\] must be"):
        frame_source([np.zeros((3, 3), np.uint8)], ["grey"], _embed_mean, (8, 8))
