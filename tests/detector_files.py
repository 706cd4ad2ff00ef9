"""Tiny ONNX files in the forms of detection networks, with people planted in their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.detector_formats import FORMATS

SIZE_HW = (64, 96)
CLASSES = 3
Box = tuple[float, float, float, float]
Outputs = dict[str, np.ndarray]
PEOPLE: list[tuple[int, Box, float]] = [
    (29, (30.0, 8.0, 62.0, 40.0), 0.75),
    (30, (31.0, 9.0, 63.0, 41.0), 0.625),  # overlaps the first
    (54, (40.0, 20.0, 58.0, 50.0), 0.875),
    (53, (20.0, 20.0, 70.0, 60.0), 0.125),  # not sure enough
]
"""Row, xyxy in pixels of the canvas, score."""
YOLO_STRIDES, NANODET_STRIDES = (8, 16, 32), (8, 16, 32, 64)


def cells_of(strides: tuple[int, ...], size_hw: tuple[int, int] = SIZE_HW) -> list[tuple[int, int, int]]:
    """Column, row and stride of each cell, level by level and row by row."""
    height, width = size_hw
    return [
        (column, row, stride)
        for stride in strides
        for row in range(-(-height // stride))
        for column in range(-(-width // stride))
    ]


def plant_people(format: str, people: list[tuple[int, Box, float]], person: int = 0) -> Outputs:
    """Outputs of a network with these people: (row, xyxy in pixels of the canvas, score)."""
    outputs = _EMPTY[format]()
    for row, box, score in people:
        _PLANT[format](outputs, row, np.array(box), score, person)
    return outputs


def write_detector(
    path: Path,
    outputs: Outputs,
    size_hw: tuple[int | str, int | str] = SIZE_HW,
    dtype: int = TensorProto.FLOAT,
    extra_inputs: dict[str, list[int | str]] | None = None,
    metadata: dict[str, str] | None = None,
    watch: tuple[str, tuple[int, ...], int] | None = None,
    free_outputs: bool = False,
    batch_and_channels: tuple[int | str, int | str] = (1, 3),
) -> Path:
    """Write a model with constant outputs.

    Args:
        path: The file.
        outputs: Name to value, without the axis of the batch.
        size_hw: Of the input; a name is free.
        dtype: Of the input.
        extra_inputs: Name to shape, int64; no output goes by them.
        metadata: Notes in the file.
        watch: Output, place in it and channel: the mean of that channel of the input is added there.
        free_outputs: The file does not say the last size of each output.
        batch_and_channels: The first two sizes of the input.
    """
    nodes, values, constants = [], [], []
    for name, array in outputs.items():
        constants.append(numpy_helper.from_array(array[None], f"{name}_constant"))
        if watch is None or watch[0] != name:
            nodes.append(helper.make_node("Identity", [f"{name}_constant"], [name]))
        else:
            share = np.zeros_like(array[None])
            share[(0, *watch[1])] = 1
            constants += [
                numpy_helper.from_array(share, "share"),
                numpy_helper.from_array(np.array(watch[2]), "channel"),
            ]
            nodes += [
                helper.make_node("Cast", ["images"], ["typed"], to=TensorProto.FLOAT),
                helper.make_node("Gather", ["typed", "channel"], ["plane"], axis=1),
                helper.make_node("ReduceMean", ["plane"], ["mean"], keepdims=0),
                helper.make_node("Mul", ["share", "mean"], ["seen"]),
                helper.make_node("Add", [f"{name}_constant", "seen"], [name]),
            ]
        shape: list[int | str] = [1, *array.shape]
        if free_outputs:  # how many values are left of the last axis is known when it runs
            constants.append(numpy_helper.from_array(np.ones(array.shape[-1], bool), f"{name}_left"))
            nodes[-1].output[0] = f"{name}_all"
            nodes.append(helper.make_node("Compress", [f"{name}_all", f"{name}_left"], [name], axis=array.ndim))
            shape[-1] = f"{name}_count"
        values.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape))
    inputs = [helper.make_tensor_value_info("images", dtype, [*batch_and_channels, *size_hw])]
    inputs += [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in (extra_inputs or {}).items()
    ]
    graph = helper.make_graph(nodes, "detector", inputs, values, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_format(folder: Path, format: str, outputs: Outputs | None = None, **options: Any) -> Path:
    """Write ``<format>.onnx``, with :data:`PEOPLE` or with other outputs; options as of :func:`write_detector`."""
    form = FORMATS[format]
    planted = plant_people(format, PEOPLE, form.person) if outputs is None else outputs
    extra = {"extra_inputs": {"orig_target_sizes": ["N", 2]}} if form.needs_size else {}
    return write_detector(folder / f"{format}.onnx", planted, **{**extra, **options})


def rewire(path: Path, output: str, nodes: list[onnx.NodeProto]) -> None:
    """Change a written file: its ``output`` becomes ``planted``, of which ``nodes`` make the output anew."""
    model = onnx.load(path)
    maker = next(node for node in model.graph.node if node.output[0] == output)
    maker.output[0] = "planted"
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _centre_and_size(box: np.ndarray) -> np.ndarray:
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def _relative(box: np.ndarray) -> np.ndarray:
    return _centre_and_size(box) / np.tile(SIZE_HW[::-1], 2)


def _empty_yolox() -> Outputs:
    table = np.zeros((len(cells_of(YOLO_STRIDES)), 5 + CLASSES), np.float32)
    table[:, 2:4] = 1
    table[:, 7] = 1  # every cell is surely of another class
    return {"output": table}


def _plant_yolox(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    column, line, stride = cells_of(YOLO_STRIDES)[row]
    centre_x, centre_y, width, height = _centre_and_size(box)
    relative = centre_x / stride - column, centre_y / stride - line, np.log(width / stride), np.log(height / stride)
    outputs["output"][row, :5] = *relative, 0.8
    outputs["output"][row, 5 + person] = score / 0.8


def _plant_yolox_decoded(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    outputs["output"][row, :5] = *_centre_and_size(box), 0.8
    outputs["output"][row, 5 + person] = score / 0.8


def _plant_yolov5(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    _plant_yolox_decoded(outputs, 3 * row + 1, box, score, person)  # three boxes a cell


def _plant_yolov8(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    outputs["output"][:4, row] = _centre_and_size(box)
    outputs["output"][4 + person, row] = score


def _empty_listed() -> Outputs:
    return {"output": np.tile(np.float32([5, 5, 60, 60, 0.99, 2]), (200, 1))}  # all of another class


def _plant_listed(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    outputs["output"][row] = *box, score, person


def _plant_relative_listed(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    outputs["output"][row] = *_relative(box), score, person


def _plant_relative_table(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    outputs["output"][row, :4] = _relative(box)
    outputs["output"][row, 4 + person] = score


def _plant_nanodet(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int, legacy: bool) -> None:
    column, line, stride = cells_of(YOLO_STRIDES if legacy else NANODET_STRIDES)[row]
    point = (np.array([column, line]) + (0.5 if legacy else 0)) * stride
    distances = np.concatenate([point - box[:2], box[2:] - point]) / stride
    assert (distances >= 0).all()
    assert (distances <= 7).all()
    bins = np.full((4, 8), -30.0)
    for side, distance in enumerate(distances):  # two neighbours share the distance
        low = min(int(distance), 6)
        shares = np.array([1 - (distance - low), distance - low])
        bins[side, low : low + 2] = np.log(np.maximum(shares, 1e-12))
    outputs["output"][row, CLASSES:] = bins.reshape(-1)
    outputs["output"][row, person] = score


def _empty_labelled() -> Outputs:
    return {
        "labels": np.full(200, 2, np.int64),
        "boxes": np.tile(np.float32([5, 5, 60, 60]), (200, 1)),
        "scores": np.full(200, 0.99, np.float32),
    }


def _plant_labelled(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    outputs["labels"][row], outputs["boxes"][row], outputs["scores"][row] = person, box, score


def _plant_sigmoid(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    outputs["logits"][row, person] = np.log(score / (1 - score))
    outputs["pred_boxes"][row] = _relative(box)


def _plant_softmax(outputs: Outputs, row: int, box: np.ndarray, score: float, person: int) -> None:
    rest = (1 - score) / (outputs["logits"].shape[1] - 1)
    outputs["logits"][row] = np.log(rest) + 3  # a constant on all logits changes nothing
    outputs["logits"][row, person] = np.log(score) + 3
    outputs["pred_boxes"][row] = _relative(box)


def _table(*shape: int, value: float = 0.0) -> np.ndarray:
    return np.full(shape, value, np.float32)


def _empty_logits() -> Outputs:
    outputs = {"logits": _table(200, CLASSES + 1, value=-9), "pred_boxes": _table(200, 4, value=0.5)}
    outputs["logits"][:, -1] = 9  # no object
    return outputs


_EMPTY = {
    "yolox": _empty_yolox,
    "yolox-decoded": _empty_yolox,
    "yolov5": lambda: {"output": np.repeat(_empty_yolox()["output"], 3, axis=0)},
    "yolov8": lambda: {"output": _table(4 + CLASSES, len(cells_of(YOLO_STRIDES)))},
    "yolov8-end2end": _empty_listed,
    "nanodet": lambda: {"output": _table(len(cells_of(NANODET_STRIDES)), CLASSES + 32)},
    "nanodet-keep-ratio": lambda: {"output": _table(len(cells_of(NANODET_STRIDES)), CLASSES + 32)},
    "nanodet-legacy": lambda: {"output": _table(len(cells_of(YOLO_STRIDES)), CLASSES + 32)},
    "rtdetr": _empty_labelled,
    "rtdetr-hf": _empty_logits,
    "rtdetr-ultralytics": _empty_listed,
    "rtdetr-ultralytics-scores": lambda: {"output": _table(200, 4 + CLASSES)},
    "detr": _empty_logits,
}
_PLANT = {
    "yolox": _plant_yolox,
    "yolox-decoded": _plant_yolox_decoded,
    "yolov5": _plant_yolov5,
    "yolov8": _plant_yolov8,
    "yolov8-end2end": _plant_listed,
    "nanodet": lambda *planted: _plant_nanodet(*planted, legacy=False),
    "nanodet-keep-ratio": lambda *planted: _plant_nanodet(*planted, legacy=False),
    "nanodet-legacy": lambda *planted: _plant_nanodet(*planted, legacy=True),
    "rtdetr": _plant_labelled,
    "rtdetr-hf": _plant_sigmoid,
    "rtdetr-ultralytics": _plant_relative_listed,
    "rtdetr-ultralytics-scores": _plant_relative_table,
    "detr": _plant_softmax,
}
