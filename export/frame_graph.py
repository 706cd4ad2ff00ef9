"""The frame form of a network: the crops form with cropping and resizing put in front of it, inside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hamr_edge.errors import InputError
from hamr_edge.sidecar import external_data_path

_IMAGES = "images"
_PREFIX = "crop/"
_SMALLEST_OPSET = 20
_WEIGHT_SUM = 2048
"""Weights of two neighbours together: OpenCV's ``INTER_RESIZE_COEF_SCALE``."""


def write_frame_form(crops_artifact: Path, path: Path) -> None:
    """Write the frame form of a crops artifact; weights that lie in a file of their own do so again.

    Args:
        crops_artifact: An ``.onnx`` file in the crops form, of any precision.
        path: File to write.

    Raises:
        InputError: See :func:`to_frame_form`.
    """
    model = to_frame_form(onnx.load(crops_artifact))
    if external_data_path(crops_artifact).exists():
        onnx.save(model, path, save_as_external_data=True, location=external_data_path(path).name)
    else:
        onnx.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


def to_frame_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put crop and resize in front of a network.

    The result takes ``frame``, uint8 (height, width, 3) BGR of any size, and ``boxes``, float32 (N, 4) xyxy pixels of
    at least one box. Its crops have the same values as those of :func:`hamr_edge.preprocess.crop_boxes`, bit for bit:
    boxes are rounded and clipped as there, and resizing repeats the fixed-point arithmetic of OpenCV's
    ``resizeGeneric_`` (weights in 2048ths, each product of a row cut to quarters). ``GridSample`` would be one node,
    but rounds otherwise: 6 to 12 % of its values differ by 1, its coordinates lose precision with the frame's size,
    and it needs the whole frame transposed.

    This part is float32 and int32 whatever the network's precision. The network's own tensors keep their names;
    ``images`` becomes the float32 tensor between the two parts.

    Args:
        model: A network in the crops form: ``images``, uint8 (N, H, W, 3), goes into a Cast and nothing else.

    Returns:
        A new model; ``model`` is not changed.

    Raises:
        InputError: The model is not in the crops form.
    """
    batch, size_hw = _crops_input(model)
    framed = onnx.ModelProto()
    framed.CopyFrom(model)
    graph = framed.graph
    nodes, constants = _crop_nodes(*size_hw)
    network = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *network])
    graph.initializer.extend(constants)
    graph.input.extend(
        [
            helper.make_tensor_value_info("frame", TensorProto.UINT8, ["height", "width", 3]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 4]),
        ]
    )
    return framed


def _crops_input(model: onnx.ModelProto) -> tuple[str, tuple[int, int]]:
    """The name of the batch dimension and the crops' height and width."""
    graph = model.graph
    weights = {item.name for item in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    names = ", ".join(value.name for value in inputs)
    if names != _IMAGES:
        raise InputError(f"the frame form is made of a crops form with the one input {_IMAGES}, got {names}")
    tensor = inputs[0].type.tensor_type
    dims = tensor.shape.dim
    fixed = [dim.dim_value for dim in dims[1:]]
    if tensor.elem_type != TensorProto.UINT8 or len(dims) != 4 or fixed[2] != 3 or not all(fixed):
        kind = TensorProto.DataType.Name(tensor.elem_type)
        raise InputError(f"{_IMAGES} must be uint8 (N, height, width, 3) of fixed size, got {kind} (N, {fixed})")
    users = [node.op_type for node in graph.node if _IMAGES in node.input]
    if users != ["Cast"]:
        raise InputError(f"{_IMAGES} must go into one Cast, got {', '.join(users) or 'nothing'}")
    (opset,) = [entry.version for entry in model.opset_import if entry.domain == ""]
    if opset < _SMALLEST_OPSET:
        raise InputError(f"the frame form needs opset {_SMALLEST_OPSET} or later, got {opset}; export the model again")
    return dims[0].dim_param or "batch", (fixed[0], fixed[1])


def _crop_nodes(height: int, width: int) -> tuple[list[NodeProto], list[TensorProto]]:
    """``frame`` and ``boxes`` to ``images``: float32 (N, height, width, 3) of whole values in 0..255."""
    constants: dict[str, NDArray[np.generic]] = {
        "zero": np.array([0], np.float32),
        "half": np.array([0.5], np.float32),
        "one": np.array([1], np.float32),
        "two": np.array([2], np.float32),
        "weight_sum": np.array([_WEIGHT_SUM], np.float32),
        "sixteenth": np.array([1 / 16], np.float32),
        "quarter": np.array([0.25], np.float32),
        "quarter_unit": np.array([_WEIGHT_SUM * _WEIGHT_SUM // 64], np.int32),
        "first_axis": np.array([1], np.int64),
        "last_axis": np.array([2], np.int64),
        "row_weight_axes": np.array([2, 3], np.int64),
        "column_weight_axes": np.array([1, 3], np.int64),
        "pixels_shape": np.array([-1, 3], np.int64),
    }
    nodes = [
        _node("Cast", "frame", "frame_float", to=TensorProto.FLOAT),
        _node("Reshape", "frame_float pixels_shape", "pixels"),
        *_window_nodes(),
        *_sample_nodes("row", "top", "rows", height, constants),
        *_sample_nodes("column", "left", "columns", width, constants),
        *_gather_nodes(),
        *_blend_nodes(),
    ]
    return nodes, [numpy_helper.from_array(value, _PREFIX + name) for name, value in constants.items()]


def _window_nodes() -> list[NodeProto]:
    """``boxes`` to the first row and column of each window, and its numbers of rows and columns: (N, 1) each."""
    nodes = [
        # floor(x + 1/2) without the rounding of that sum: 0.49999997 + 0.5 is 1 in float32.
        _node("Mul", "boxes two", "boxes_twice"),
        _node("Floor", "boxes_twice", "boxes_twice_floor"),
        _node("Mul", "boxes_twice_floor half", "boxes_halves"),
        _node("Ceil", "boxes_halves", "boxes_whole"),
        _node("Split", "boxes_whole", "left_asked top_asked right_asked bottom_asked", axis=1, num_outputs=4),
    ]
    for axis, (count, first, end) in enumerate((("rows", "top", "bottom"), ("columns", "left", "right"))):
        nodes += [
            _node("Shape", "frame_float", f"frame_{count}_int64", start=axis, end=axis + 1),
            _node("Cast", f"frame_{count}_int64", f"frame_{count}", to=TensorProto.FLOAT),
            _node("Sub", f"frame_{count} one", f"frame_last_{first}"),
            _node("Max", f"{first}_asked zero", f"{first}_inside"),
            _node("Min", f"{first}_inside frame_last_{first}", first),
            _node("Add", f"{first} one", f"smallest_{end}"),
            _node("Min", f"{end}_asked frame_{count}", f"{end}_inside"),
            _node("Max", f"{end}_inside smallest_{end}", end),
            _node("Sub", f"{end} {first}", count),
        ]
    return nodes


def _sample_nodes(
    axis: str, first: str, count: str, out: int, constants: dict[str, NDArray[np.generic]]
) -> list[NodeProto]:
    """Along one axis, for each of ``out`` pixels: its near and far neighbour in the frame, and their weights.

    The position in a window of ``count`` pixels is ``((2 i + 1) count - out) / (2 out)``: only the division rounds, so
    that it is OpenCV's, which is taken in double precision and then rounded.
    """
    constants[f"{axis}_odd"] = np.arange(1, 2 * out, 2, dtype=np.float32)[None]
    constants[f"{axis}_out"] = np.array([out], np.float32)
    constants[f"{axis}_twice_out"] = np.array([2 * out], np.float32)
    nodes = [
        _node("Mul", f"{count} {axis}_odd", f"{axis}_scaled"),
        _node("Sub", f"{axis}_scaled {axis}_out", f"{axis}_shifted"),
        _node("Div", f"{axis}_shifted {axis}_twice_out", f"{axis}_positions"),
        _node("Floor", f"{axis}_positions", f"{axis}_near_asked"),
        _node("Add", f"{axis}_near_asked one", f"{axis}_far_asked"),
        _node("Sub", f"{axis}_positions {axis}_near_asked", f"{axis}_fraction"),
        _node("Mul", f"{axis}_fraction weight_sum", f"{axis}_far_share"),
        _node("Round", f"{axis}_far_share", f"{axis}_far_weight"),
        _node("Sub", f"weight_sum {axis}_far_weight", f"{axis}_near_weight"),
        _node("Sub", f"{count} one", f"{axis}_last"),
    ]
    for side in ("near", "far"):
        name = f"{axis}_{side}"
        nodes += [
            _node("Max", f"{name}_asked zero", f"{name}_low"),
            _node("Min", f"{name}_low {axis}_last", f"{name}_inside"),
            _node("Add", f"{name}_inside {first}", f"{name}_float"),
            _node("Cast", f"{name}_float", name, to=TensorProto.INT32),
        ]
    return nodes


def _gather_nodes() -> list[NodeProto]:
    """The four neighbours of every pixel: float32 (N, height, width, 3) each. Pixels are counted row by row."""
    nodes = [_node("Cast", "frame_columns_int64", "frame_columns_int", to=TensorProto.INT32)]
    for side in ("near", "far"):
        nodes += [
            _node("Mul", f"row_{side} frame_columns_int", f"row_{side}_start"),
            _node("Unsqueeze", f"row_{side}_start last_axis", f"row_{side}_starts"),
            _node("Unsqueeze", f"column_{side} first_axis", f"column_{side}_offsets"),
        ]
    for row in ("near", "far"):
        for column in ("near", "far"):
            nodes += [
                _node("Add", f"row_{row}_starts column_{column}_offsets", f"{row}_{column}_index"),
                _node("Gather", f"pixels {row}_{column}_index", f"{row}_{column}", axis=0),
            ]
    return nodes


def _blend_nodes() -> list[NodeProto]:
    """Neighbours and weights to ``images``, rounded where OpenCV rounds.

    Two neighbours in a row times their weights are summed, divided by 16 and cut; each of two rows times its weight is
    brought down to quarters of a level and cut; their sum is rounded. The rows' products need more than the 24 bits of
    a float32.
    """
    nodes = []
    for side in ("near", "far"):
        nodes += [
            _node("Unsqueeze", f"column_{side}_weight column_weight_axes", f"column_{side}_weights"),
            _node("Unsqueeze", f"row_{side}_weight row_weight_axes", f"row_{side}_weights"),
            _node("Cast", f"row_{side}_weights", f"row_{side}_weights_int", to=TensorProto.INT32),
        ]
    for row in ("near", "far"):
        nodes += [
            _node("Mul", f"{row}_near column_near_weights", f"{row}_near_part"),
            _node("Mul", f"{row}_far column_far_weights", f"{row}_far_part"),
            _node("Add", f"{row}_near_part {row}_far_part", f"{row}_sum"),
            _node("Mul", f"{row}_sum sixteenth", f"{row}_sixteenths"),
            _node("Floor", f"{row}_sixteenths", f"{row}_cut"),
            _node("Cast", f"{row}_cut", f"{row}_int", to=TensorProto.INT32),
            _node("Mul", f"{row}_int row_{row}_weights_int", f"{row}_product"),
            _node("Div", f"{row}_product quarter_unit", f"{row}_quarters"),
        ]
    return [
        *nodes,
        _node("Add", "near_quarters far_quarters", "quarters"),
        _node("Cast", "quarters", "quarters_float", to=TensorProto.FLOAT),
        _node("Mul", "quarters_float quarter", "blended"),
        _node("Add", "blended half", "blended_up"),
        _node("Floor", "blended_up", _IMAGES),
    ]


def _node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node between tensors named in two lists of words; only the graph's own inputs and ``images`` go unprefixed."""

    def names(words: str) -> list[str]:
        return [word if word in ("frame", "boxes", _IMAGES) else _PREFIX + word for word in words.split()]

    made = names(outputs)
    return helper.make_node(op, names(inputs), made, name=f"{_PREFIX}{op}/{outputs.split()[0]}", **attributes)
