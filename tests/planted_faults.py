"""Artifacts with one fault each, made from a good one of any size: what a broken export would look like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def swap_colours(model: ModelProto) -> None:
    """Take RGB where BGR is promised."""
    _on_input(model, lambda graph: _slice(graph, axis=3))


def mirror_crops(model: ModelProto) -> None:
    """Turn crops round, left to right."""
    _on_input(model, lambda graph: _slice(graph, axis=2))


def turn_upside_down(model: ModelProto) -> None:
    """Turn crops upside down."""
    _on_input(model, lambda graph: _slice(graph, axis=1))


def affine_input(model: ModelProto, factor: tuple[float, float, float], offset: tuple[float, float, float]) -> None:
    """Put ``factor * pixels + offset`` in, a value a channel."""

    def put(graph: _Planting) -> str:
        scaled = graph.add("Mul", graph.source, graph.constant(np.array(factor, np.float32)))
        return graph.add("Add", scaled, graph.constant(np.array(offset, np.float32)))

    _on_input(model, put)


def normalise_twice(
    model: ModelProto, mean: tuple[float, float, float], std: tuple[float, float, float], keep_range: bool = True
) -> None:
    """Normalise before the graph does; the second time by the same constants, or by those times 255."""
    size = 255.0 if keep_range else 1.0
    affine_input(
        model,
        tuple(size / (255 * value) for value in std),  # type: ignore[arg-type]
        tuple(-size * centre / value for centre, value in zip(mean, std, strict=True)),  # type: ignore[arg-type]
    )


def leave_normalisation_out(
    model: ModelProto, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    """Undo the normalisation before the graph does it: what goes on is in 0..1."""
    affine_input(model, std, tuple(255 * value for value in mean))  # type: ignore[arg-type]


def misread_layout(model: ModelProto) -> None:
    """Read the bytes of (N, H, W, 3) as (N, 3, H, W)."""
    (height, width) = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3]]

    def put(graph: _Planting) -> str:
        planes = graph.add("Reshape", graph.source, graph.constant(np.array([0, 3, height, width], np.int64)))
        return graph.add("Transpose", planes, perm=[0, 2, 3, 1])

    _on_input(model, put)


def scale_constant(model: ModelProto, name: str, factor: float) -> None:
    """Multiply a constant."""
    for index, item in enumerate(model.graph.initializer):
        if item.name == name:
            value = numpy_helper.to_array(item)
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array((value * factor).astype(value.dtype), name))
            return
    raise KeyError(name)


def activation_scales(model: ModelProto) -> list[str]:
    """Names of the scales of activations, in the graph's order."""
    constants = {item.name for item in model.graph.initializer}
    return [
        node.input[1]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    ]


def weight_scales(model: ModelProto) -> list[str]:
    """Names of the scales of weights, in the graph's order."""
    constants = {item.name: item for item in model.graph.initializer}
    return [
        node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in constants
        and constants[node.input[0]].data_type == TensorProto.INT8
    ]


def overflow_inside(model: ModelProto, conv: int = 0, factor: float = 2.0**15) -> str:
    """Make the output of a convolution too large for float16, and the weights that read it as much smaller.

    The network computes what it did where values are float32, as on a CPU.

    Returns:
        The name of the tensor that overflows.
    """
    graph = model.graph
    constants = {item.name for item in graph.initializer}
    layer = [node for node in graph.node if node.op_type in ("Conv", "MatMul")][conv]
    grown, readers = {layer.output[0]}, []
    for node in graph.node:
        if not grown & set(node.input):
            continue
        if node.op_type in ("Relu", "MaxPool", "Flatten", "Transpose"):
            grown.update(node.output)
        elif node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in constants:
            readers.append(node)
        else:
            raise ValueError(f"{node.op_type} reads {layer.output[0]}: choose another convolution")
    for name in layer.input[1:]:
        scale_constant(model, name, factor)
    for node in readers:
        scale_constant(model, node.input[1], 1 / factor)
    return layer.output[0]


def resize_asymmetrically(model: ModelProto) -> None:
    """In the frame form: count pixels from their corners."""
    _move_samples(model, lambda step: 2 * step, lambda step: 0 * step, 0)


def align_corners(model: ModelProto) -> None:
    """In the frame form: leave the outermost pixels' centres where they are."""
    _move_samples(model, lambda step: 2 * step, lambda step: 2 * step, -1)


def resize_by_nearest(model: ModelProto) -> None:
    """In the frame form: take the one pixel that OpenCV's INTER_NEAREST takes."""
    resize_asymmetrically(model)
    for node in model.graph.node:
        if node.output[0] in ("crop/row_far_share", "crop/column_far_share"):
            node.input[1] = "crop/zero"


def _move_samples(
    model: ModelProto,
    factor: Callable[[np.ndarray], np.ndarray],
    less: Callable[[np.ndarray], np.ndarray],
    more_out: int,
) -> None:
    """Sample at ``(factor * count - less) / (2 (out + more_out))``, of ``step`` 0, 1, ... along an axis."""
    found = {item.name: item for item in model.graph.initializer}
    for axis in ("row", "column"):
        out = int(numpy_helper.to_array(found[f"crop/{axis}_out"])[0])
        steps = np.arange(out, dtype=np.float32)[None]
        for name, value in (
            ("odd", factor(steps)),
            ("out", less(steps)),
            ("twice_out", np.array([2 * (out + more_out)], np.float32)),
        ):
            name = f"crop/{axis}_{name}"
            found[name].CopyFrom(numpy_helper.from_array(value, name))


class _Planting:
    """Nodes put between the graph's first Cast and what reads it."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.cast = next(node for node in self.graph.node if node.op_type == "Cast")
        self.source = "planted_source"
        self.nodes: list[NodeProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"planted_{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"planted_tensor_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name


def _on_input(model: ModelProto, put: Callable[[_Planting], str]) -> None:
    """Change the float32 (N, H, W, 3) pixels before the network sees them."""
    planting = _Planting(model)
    output = planting.cast.output[0]
    planting.cast.output[0] = planting.source
    last = put(planting)
    planting.nodes[-1].output[0] = output
    assert last == planting.nodes[-1].name
    place = list(model.graph.node).index(planting.cast) + 1
    for node in reversed(planting.nodes):
        model.graph.node.insert(place, node)


def _slice(graph: _Planting, axis: int) -> str:
    ends = [graph.constant(np.array([value], np.int64)) for value in (-1, -(2**62), axis, -1)]
    return graph.add("Slice", graph.source, *ends)
