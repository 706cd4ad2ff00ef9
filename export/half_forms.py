"""What float16 allows: which operators have such a form, which constants it can hold, and where powers outgrow it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto

from hamr_edge.calibration.graph_index import GraphIndex
from hamr_edge.calibration.sites import is_weighted

LARGEST_HALF = float(np.finfo(np.float16).max)
LARGEST_ERROR = 1 / 16
"""A constant that float16 changes by a larger share stays float32: numbers below about 5e-7 do."""
WIDE = frozenset(
    [
        "Pow",
        "Exp",
        "Log",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "LpNormalization",
        "LpPool",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "GroupNormalization",
        "MeanVarianceNormalization",
        "Softmax",
        "LogSoftmax",
        "GridSample",
        "CumSum",
    ]
)
"""Operators that are computed in float32 wherever they stand."""
_ENDS_GROWTH = frozenset(
    ["Sqrt", "Log", "Div", "Reciprocal", "Sigmoid", "Tanh", "Erf", "Softmax", "LogSoftmax", "ReduceLogSum"]
)
_DIVIDES_BY_SECOND = frozenset(("Div", "QuantizeLinear", "DequantizeLinear"))
_PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_FLOAT_INPUTS = {"Resize": (1,)}
"""Inputs that stay float32 although float16 is allowed: what is no data."""
_HALF = "tensor(float16)"


def has_half_form(node: onnx.NodeProto, floats: Collection[str], opset: int) -> bool:
    """Whether all of a node's float32 results, and the inputs that give them their type, may be float16."""
    schema = _schema(node, opset)
    if schema is None:
        return False
    bound = {formal.type_str for formal in schema.inputs}
    bound_by_node = node.op_type == "Cast" or (
        node.op_type == "DequantizeLinear" and not any(item.name == "output_dtype" for item in node.attribute)
    )
    for place, name in enumerate(node.output):
        formal = _formal(schema.outputs, place)
        # A type that no input gives stands in an attribute.
        if name in floats and not (_HALF in formal.types and (bound_by_node or formal.type_str in bound)):
            return False
    return not any(
        name in floats and _HALF not in formal.types and not formal.type_str.startswith("tensor(")
        for name, formal in ((name, _formal(schema.inputs, place)) for place, name in enumerate(node.input))
    )


def float_places(node: onnx.NodeProto, opset: int) -> set[int]:
    """The inputs of a float16 node that are float32 all the same, such as the scales of Resize."""
    schema = _schema(node, opset)
    own = set(_FLOAT_INPUTS.get(node.op_type, ()))
    if schema is None:
        return own
    return own | {place for place in range(len(node.input)) if _formal(schema.inputs, place).types == {"tensor(float)"}}


def _schema(node: onnx.NodeProto, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None


def _formal(formals: Sequence[Any], place: int) -> Any:
    """What the schema says of an input or output; the last one stands for all that follow."""
    return formals[min(place, len(formals) - 1)]


def has_constant_beyond_half(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a node has a constant, or a number for an attribute, that float16 cannot hold."""
    constants = [
        (place, index.floats(name))
        for place, name in enumerate(node.input)
        if index.is_constant(name) and index.initialisers[name].data_type == TensorProto.FLOAT
    ]
    attributes = [item.f for item in node.attribute if item.type == onnx.AttributeProto.FLOAT]
    return any(_cannot_be_half(value) for value in attributes) or any(
        _cannot_be_half(values, each=place == 1 and node.op_type in _DIVIDES_BY_SECOND) for place, values in constants
    )


def _cannot_be_half(values: ArrayLike, each: bool = False) -> bool:
    """Whether the largest of some values, or each of them, is beyond float16 or rounds badly in it."""
    flat = np.asarray(values, np.float32).reshape(-1)
    if not flat.size:
        return False
    largest = np.abs(flat).max(keepdims=True)
    if largest[0] > LARGEST_HALF:
        return True
    checked = np.abs(flat) if each else largest
    return bool(np.any(np.abs(round_to_half(checked) - checked) > LARGEST_ERROR * checked))


def round_to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Nearest float16; what is too small becomes 0, which changes a product by less than its rounding does."""
    with np.errstate(under="ignore"):
        return values.astype(np.float16)


def power_nodes(model: onnx.ModelProto, index: GraphIndex) -> set[str]:
    """First outputs of the nodes that make or read powers that no root, logarithm or division has undone."""
    powers: set[str] = set()
    found: set[str] = set()
    for node in model.graph.node:
        raises = node.op_type in ("Exp", "ReduceSumSquare") or (
            node.op_type == "Mul" and node.input[0] == node.input[1]
        )
        ends = node.op_type in _ENDS_GROWTH
        if node.op_type == "Pow":
            exponent = index.floats(node.input[1]) if index.is_constant(node.input[1]) else np.float32(np.inf)
            ends = bool((np.abs(exponent) <= 1).all())
            raises = not ends
        reads = any(name in powers for name in node.input) and not is_product(node, index)
        if raises or reads:
            found.add(first_output(node))
            powers.update(() if ends else filter(None, node.output))
    return found


def is_product(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a node multiplies by weights, or rounds the values for one that does."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") or is_weighted(node, index):
        return True
    weight = index.producer.get(node.input[1]) if node.op_type in _PRODUCTS else None
    return weight is not None and weight.op_type == "DequantizeLinear"


def first_output(node: onnx.NodeProto) -> str:
    """The first output that a node has, which names it."""
    return str(next(filter(None, node.output), ""))
