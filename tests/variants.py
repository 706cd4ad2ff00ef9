"""Artifacts with one thing wrong, made from a good one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hamr_edge.sidecar import hash_file, load_sidecar, sidecar_path, write_sidecar


def write_variant(source: Path, path: Path, change: Callable[[ModelProto], None], **sidecar: Any) -> Path:
    """Copy an artifact with a change to its graph; its sidecar vouches for the copy, with the entries given."""
    model = onnx.load(source)
    change(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    made = replace(load_sidecar(source), artifact_sha256=hash_file(path), **sidecar)
    write_sidecar(made, sidecar_path(path))
    return path


def keep(model: ModelProto) -> None:
    """No change to what is computed: only the file's bytes differ."""
    model.doc_string = "a copy"


def _after_product(model: ModelProto, nodes: list[onnx.NodeProto], *constants: TensorProto) -> None:
    """Put nodes from ``product`` to ``changed`` before the normalisation."""
    graph = model.graph
    graph.initializer.extend(constants)
    last = graph.node[-1]
    last.input[0] = "changed"
    place = len(graph.node) - 1
    for node in reversed(nodes):
        graph.node.insert(place, node)


def mix_rows(model: ModelProto) -> None:
    """Add half of the batch's mean to every row."""
    axis = numpy_helper.from_array(np.array([0], "int64"), "mix_axis")
    half = numpy_helper.from_array(np.float32(0.5), "mix_half")
    nodes = [
        helper.make_node("ReduceMean", ["product", "mix_axis"], ["mix_mean"], keepdims=1),
        helper.make_node("Mul", ["mix_mean", "mix_half"], ["mix_part"]),
        helper.make_node("Add", ["product", "mix_part"], ["changed"]),
    ]
    _after_product(model, nodes, axis, half)


def reverse_rows(model: ModelProto) -> None:
    """Give the rows of each batch backwards."""
    values = {"starts": [-1], "ends": [-(2**62)], "axes": [0], "steps": [-1]}
    constants = [helper.make_tensor(f"flip_{name}", TensorProto.INT64, [1], value) for name, value in values.items()]
    _after_product(
        model, [helper.make_node("Slice", ["product", *(c.name for c in constants)], ["changed"])], *constants
    )


def overflow(model: ModelProto) -> None:
    """Give NaN where the first value of a row is positive."""
    constants = [
        helper.make_tensor("nan_start", TensorProto.INT64, [1], [0]),
        helper.make_tensor("nan_end", TensorProto.INT64, [1], [1]),
        helper.make_tensor("nan_axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("nan_zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("nan_value", TensorProto.FLOAT, [], [float("nan")]),
    ]
    nodes = [
        helper.make_node("Slice", ["product", "nan_start", "nan_end", "nan_axis"], ["nan_first"]),
        helper.make_node("Greater", ["nan_first", "nan_zero"], ["nan_where"]),
        helper.make_node("Where", ["nan_where", "nan_value", "product"], ["changed"]),
    ]
    _after_product(model, nodes, *constants)


def leave_unnormalised(model: ModelProto) -> None:
    """Leave the last step out: rows of any norm."""
    last = model.graph.node[-1]
    source = last.input[0]
    model.graph.node.remove(last)
    model.graph.node.append(helper.make_node("Identity", [source], ["embeddings"]))


def scale_rows(model: ModelProto, factor: float) -> None:
    """Multiply the unit rows by a factor."""
    graph = model.graph
    graph.node[-1].output[0] = "unit"
    graph.initializer.append(numpy_helper.from_array(np.float32(factor), "row_factor"))
    graph.node.append(helper.make_node("Mul", ["unit", "row_factor"], ["embeddings"]))


def repeat_fourth_row(model: ModelProto) -> None:
    """Right up to batch 4: every later row repeats the fourth."""
    graph = model.graph
    graph.node[-1].output[0] = "unit"
    for name, value in (("zero", [0]), ("four", [4]), ("three", [3]), ("first", 0), ("step", 1)):
        shape = [1] if isinstance(value, list) else []
        values = value if isinstance(value, list) else [value]
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, shape, values))
    graph.node.extend(
        [
            helper.make_node("Shape", ["unit"], ["unit_shape"], end=1),
            helper.make_node("Squeeze", ["unit_shape", "zero"], ["row_count"]),
            helper.make_node("Range", ["first", "row_count", "step"], ["row_numbers"]),
            helper.make_node("Min", ["row_numbers", "three"], ["row_choice"]),
            helper.make_node("Gather", ["unit", "row_choice"], ["embeddings"], axis=0),
        ]
    )
