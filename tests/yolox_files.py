"""Tiny ONNX files in YOLOX's form, whose output is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.yolox import anchor_grid

SIZE_HW = (64, 96)


def yolox_output(people: list[tuple[int, tuple[float, float, float, float], float]], classes: int = 3) -> np.ndarray:
    """Raw output (A, 5 + classes) with people: (anchor, xyxy in canvas pixels, score); objectness is 0.8."""
    cells, strides = anchor_grid(SIZE_HW)
    output = np.zeros((len(cells), 5 + classes), np.float32)
    output[:, 6] = 1  # every cell is surely of another class
    for anchor, (x1, y1, x2, y2), score in people:
        centre, size = np.array([x1 + x2, y1 + y2]) / 2, np.array([x2 - x1, y2 - y1])
        output[anchor, :2] = centre / strides[anchor] - cells[anchor]
        output[anchor, 2:4] = np.log(size / strides[anchor])
        output[anchor, 4:6] = 0.8, score / 0.8
    return output


def write_yolox(path: Path, output: np.ndarray, by_blue: bool = False, dtype: int = TensorProto.FLOAT) -> Path:
    """A model with that constant output; ``by_blue``: objectness is multiplied by the mean of channel 0, over 255."""
    height, width = SIZE_HW
    share = np.zeros((1, *output.shape), np.float32)
    share[..., 4] = 1
    nodes = [helper.make_node("Identity", ["constant"], ["output"])]
    initializers = [numpy_helper.from_array(output[None].astype(np.float32), "constant")]
    if by_blue:
        initializers += [
            numpy_helper.from_array(share, "share"),
            numpy_helper.from_array(1 - share, "rest"),
            numpy_helper.from_array(np.array(0), "channel"),
            numpy_helper.from_array(np.float32(1 / 255), "unit"),
        ]
        nodes = [
            helper.make_node("Gather", ["images", "channel"], ["blue"], axis=1),
            helper.make_node("ReduceMean", ["blue"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "unit"], ["level"]),
            helper.make_node("Mul", ["share", "level"], ["scaled"]),
            helper.make_node("Add", ["scaled", "rest"], ["factor"]),
            helper.make_node("Mul", ["constant", "factor"], ["output"]),
        ]
    graph = helper.make_graph(
        nodes,
        "yolox",
        [helper.make_tensor_value_info("images", dtype, [1, 3, height, width])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, *output.shape])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
