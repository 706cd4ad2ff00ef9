"""Rules on FLOAT16: what leaves its range. They warn: only values say whether it happens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from hamr_edge.export.lint_graph import (
    ALL_TARGETS,
    TENSORRT_10,
    TENSORRT_11,
    WARNING,
    Finding,
    LintGraph,
    input_name,
    node_name,
    whole_number,
)

_MAX = 65504.0
_PASSED_THROUGH = ("Sqrt", "Identity", "Cast", "Expand")
_SQUARES = ("ReduceL2", "ReduceSumSquare", "LpNormalization")


def half_not_finite(graph: LintGraph) -> Iterator[Finding]:
    """FLOAT16 constants that hold infinity or NaN: what a conversion makes of values above 65504."""
    for name, tensor in graph.constants.items():
        values = graph.values(name) if tensor.data_type == TensorProto.FLOAT16 else None
        if values is None:
            continue
        wrong = int(np.count_nonzero((values.view(np.uint16) & 0x7C00) == 0x7C00))
        if wrong:
            message = (
                f"{wrong} of {values.size} values of FLOAT16 constant {name} are infinite or NaN; keep it in FLOAT, or "
                "store a finite value"
            )
            yield Finding("half_not_finite", WARNING, name, ALL_TARGETS, message)


def half_underflow(graph: LintGraph) -> Iterator[Finding]:
    """Small constants that FLOAT16 makes 0, such as the 1e-12 that keeps a division from 0."""
    for node in graph.nodes:
        value = _scalar(graph, input_name(node, 0)) if node.op_type == "Cast" else None
        if value and whole_number(node, "to", 0) == TensorProto.FLOAT16:
            with np.errstate(over="ignore"):
                half = float(np.float16(value))
            if half == 0 or not np.isfinite(half):
                message = f"constant {value:g} becomes {half:g} in FLOAT16; keep what uses it in FLOAT"
                yield Finding("half_underflow", WARNING, node_name(node), ALL_TARGETS, message)
        guards = {"Clip": node.input[1:2], "Max": node.input, "Add": node.input}.get(node.op_type, [])
        for name in guards:
            if graph.types.get(name) == TensorProto.FLOAT16 and _scalar(graph, name) == 0 and _divides(graph, node):
                message = (
                    f"the {node.op_type} that keeps a division from 0 has FLOAT16 constant {name} = 0 (1e-12 is 0 in "
                    "FLOAT16); keep the division in FLOAT, or use at least 6e-5"
                )
                yield Finding("half_underflow", WARNING, node_name(node), ALL_TARGETS, message)


def half_range(graph: LintGraph) -> Iterator[Finding]:
    """Squares and powers in FLOAT16, which overflow early: x**2 above 255, x**3 above 40."""
    for node in graph.nodes:
        if graph.types.get(input_name(node, 0)) != TensorProto.FLOAT16:
            continue
        if node.op_type in _SQUARES and whole_number(node, "p", 2) == 2:
            targets = ALL_TARGETS if node.op_type == "ReduceSumSquare" else (TENSORRT_10, TENSORRT_11)
            message = (
                f"{node.op_type} in FLOAT16: TensorRT 10 squares in FLOAT16, and the sum of squares may pass 65504; "
                "put Casts around it and compute it in FLOAT"
            )
            yield Finding("half_range", WARNING, node_name(node), targets, message)
        power = _power(graph, node)
        if power is not None and power >= 2:
            message = (
                f"{node.op_type} raises FLOAT16 to the power {power:g}, which overflows above "
                f"{_MAX ** (1 / power):.1f}; put Casts around it and compute it in FLOAT"
            )
            yield Finding("half_range", WARNING, node_name(node), ALL_TARGETS, message)


def _scalar(graph: LintGraph, name: str) -> float | None:
    if graph.size(name) != 1:
        return None
    values = graph.values(name)
    return None if values is None or values.dtype.kind not in "fiu" else float(values.reshape(-1)[0])


def _power(graph: LintGraph, node: NodeProto) -> float | None:
    if node.op_type == "Mul" and input_name(node, 0) == input_name(node, 1):
        return 2.0
    return _scalar(graph, input_name(node, 1)) if node.op_type == "Pow" else None


def _divides(graph: LintGraph, node: NodeProto, steps: int = 3) -> bool:
    """Whether something is divided by a node's output."""
    name = next(iter(node.output), "")
    for consumer in graph.consumers.get(name, []):
        if consumer.op_type == "Reciprocal" or (consumer.op_type == "Div" and input_name(consumer, 1) == name):
            return True
        if steps and consumer.op_type in _PASSED_THROUGH and _divides(graph, consumer, steps - 1):
            return True
    return False
