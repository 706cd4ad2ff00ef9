"""Rules on element types: what a target has no type for, and types that meet in one operator."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto

from hamr_edge.export.lint_graph import (
    ERROR,
    ONNXRUNTIME,
    TENSORRT,
    WARNING,
    Finding,
    LintGraph,
    input_name,
    node_name,
    type_name,
)

_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_ABSENT = (
    TensorProto.INT16,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
    TensorProto.STRING,
)
"""Types that TensorRT does not have."""
_CONVERTED = ("Clip", "BatchNormalization")
"""Operators whose constants TensorRT brings to the type of the data."""
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def uint8_use(graph: LintGraph) -> Iterator[Finding]:
    """UINT8 is for a network's inputs and outputs: the first operator after an input must be a Cast."""
    outputs = {item.name for item in graph.outputs}
    for name, element_type in graph.types.items():
        if element_type != TensorProto.UINT8 or _from_constants(graph, name):
            continue
        producer = graph.producer.get(name)
        if producer is not None and name not in outputs and producer.op_type not in _QUANTISERS:
            message = f"tensor {name} inside the graph is UINT8, which TensorRT has at inputs and outputs only; cast it"
            yield Finding("uint8_use", ERROR, name, TENSORRT, message)
        for node in graph.consumers.get(name, []):
            passed_out = node.op_type == "Identity" and outputs.issuperset(node.output)
            if node.op_type not in ("Cast", *_QUANTISERS) and not passed_out:
                message = (
                    f"UINT8 tensor {name} goes into {node.op_type}; TensorRT takes it into Cast only; cast first, then "
                    f"{node.op_type}"
                )
                yield Finding("uint8_use", ERROR, node_name(node), TENSORRT, message)


def mixed_types(graph: LintGraph) -> Iterator[Finding]:
    """Inputs that must be of one type and are not, such as an Add of FLOAT16 and FLOAT."""
    for node in graph.nodes:
        if node.op_type in _QUANTISERS:
            continue  # scale_type speaks of those
        for group, targets in _one_type(graph, node):
            types = {name: graph.types[name] for name in group if name in graph.types}
            if len(set(types.values())) > 1:
                found = ", ".join(f"{name} {type_name(kind)}" for name, kind in types.items())
                message = f"{node.op_type} needs inputs of one type, has {found}; put a Cast before it"
                yield Finding("mixed_types", ERROR, node_name(node), targets, message)


def declared_type(graph: LintGraph) -> Iterator[Finding]:
    """A tensor that the file says to be of another type than its operator gives, as a converter leaves it behind."""
    outputs = {item.name for item in graph.outputs}
    for item in (*graph.outputs, *graph.model.graph.value_info):
        declared = item.type.tensor_type.elem_type
        actual = graph.types.get(item.name, declared)
        if declared and declared != actual:
            message = (
                f"the file says tensor {item.name} is {type_name(declared)}, its operator gives {type_name(actual)}; "
                "ONNX Runtime refuses that, an engine has the operator's type; cast it or correct what the file says"
            )
            targets = (*TENSORRT, ONNXRUNTIME) if item.name in outputs else (ONNXRUNTIME,)
            yield Finding("declared_type", ERROR, item.name, targets, message)


def float64(graph: LintGraph) -> Iterator[Finding]:
    """FLOAT64, which TensorRT reads as FLOAT."""
    ends = {item.name for item in (*graph.inputs, *graph.outputs)}
    doubles = [name for name, element_type in graph.types.items() if element_type == TensorProto.DOUBLE]
    for name in filter(ends.__contains__, doubles):
        message = f"{name} is FLOAT64 in the file and FLOAT in the engine, without a word; export the network in FLOAT"
        yield Finding("float64", ERROR, name, TENSORRT, message)
    inside = [name for name in doubles if name not in ends]
    if inside:
        message = (
            f"{len(inside)} tensors inside the graph are FLOAT64, {inside[0]} the first; TensorRT computes them in "
            "FLOAT and clamps constants to its range; export the network in FLOAT"
        )
        yield Finding("float64", WARNING, inside[0], TENSORRT, message)


def absent_type(graph: LintGraph) -> Iterator[Finding]:
    """Types that TensorRT does not have: 16-bit integers, unsigned 32- and 64-bit ones, text."""
    for name, element_type in graph.types.items():
        if element_type not in _ABSENT:
            continue
        consumers = graph.consumers.get(name, [])
        if name in graph.constants and consumers and all(node.op_type in _QUANTISERS for node in consumers):
            continue  # quantised_integer speaks of those
        producer = graph.producer.get(name)
        if producer is None or producer.op_type in ("Cast", "Constant"):
            message = (
                f"tensor {name} is {type_name(element_type)}; TensorRT has no such type; use INT32, INT64 or FLOAT"
            )
            yield Finding("absent_type", ERROR, name, TENSORRT, message)


def int8_constant(graph: LintGraph) -> Iterator[Finding]:
    """An INT8 constant is a quantised one to TensorRT: only a DequantizeLinear may read it."""
    for name, tensor in graph.constants.items():
        if tensor.data_type == TensorProto.INT8:
            for node in graph.consumers.get(name, []):
                if node.op_type not in (*_QUANTISERS, "Identity"):
                    message = (
                        f"INT8 constant {name} goes into {node.op_type}; TensorRT takes it into DequantizeLinear only; "
                        "store it as INT32 or FLOAT"
                    )
                    yield Finding("int8_constant", ERROR, node_name(node), TENSORRT, message)


def _one_type(graph: LintGraph, node: NodeProto) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """The groups of a node's inputs that must be of one type, and which targets say so."""
    if node.op_type == "GridSample":  # the standard lets image and grid differ
        yield [input_name(node, 0), input_name(node, 1)], TENSORRT
    try:
        schema = onnx.defs.get_schema(node.op_type, graph.opset, node.domain)
    except onnx.defs.SchemaError:
        return
    variables = {constraint.type_param_str for constraint in schema.type_constraints}
    groups: dict[str, list[str]] = {}
    for index, name in enumerate(node.input if schema.inputs else ()):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if name and formal.type_str in variables and formal.is_homogeneous:
            groups.setdefault(formal.type_str, []).append(name)
    for group in groups.values():
        has_float = any(graph.types.get(name) in _FLOATS for name in group)
        strict = node.op_type not in _CONVERTED and (has_float or node.op_type in _ARITHMETIC)
        yield group, (*TENSORRT, ONNXRUNTIME) if strict else (ONNXRUNTIME,)


def _from_constants(graph: LintGraph, name: str) -> bool:
    """Whether a tensor depends on no input of the network; TensorRT reads UINT8 constants as INT32."""
    if name in graph.constants:
        return True
    node = graph.producer.get(name)
    return (
        node is not None and bool(node.input) and all(_from_constants(graph, item) for item in filter(None, node.input))
    )
