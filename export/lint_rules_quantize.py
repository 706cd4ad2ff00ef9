"""Rules on QuantizeLinear and DequantizeLinear: what they quantise to, and by which scale."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from hamr_edge.export.lint_graph import (
    ALL_TARGETS,
    ERROR,
    ONNXRUNTIME,
    TENSORRT,
    TENSORRT_10,
    WARNING,
    Finding,
    LintGraph,
    attribute,
    input_name,
    node_name,
    type_name,
    whole_number,
)

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_SIGNED = "quantise symmetrically, to int8 with an explicit int8 zero point 0"


def quantisers(graph: LintGraph) -> Iterator[NodeProto]:
    """The Q and DQ nodes of a graph, of whichever domain."""
    return (node for node in graph.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear"))


def quantised_type(graph: LintGraph, node: NodeProto) -> int | None:
    """The integer type that a Q node makes or a DQ node reads; None where the file does not say."""
    if input_name(node, 2):
        return graph.types.get(input_name(node, 2))
    if node.op_type == "DequantizeLinear":
        return graph.types.get(input_name(node, 0))
    return whole_number(node, "output_dtype", 0) or None


def unsigned_zero_point(graph: LintGraph) -> Iterator[Finding]:
    """UINT8 quantisation: TensorRT reads a zero point of 0 as INT8, so that the upper half of the range is cut off."""
    for node in quantisers(graph):
        source = graph.producer.get(input_name(node, 0))
        if not input_name(node, 2) and source is not None and source.op_type == "QuantizeLinear":
            continue  # the fault lies in the Q
        if quantised_type(graph, node) == TensorProto.UINT8 and not _is_shifted(graph, node):
            message = (
                f"{node.op_type} is of UINT8; TensorRT refuses that or takes it as INT8 with only a line in its log, "
                f"and cuts off the upper half of the range; {_SIGNED}"
            )
            yield Finding("unsigned_zero_point", ERROR, node_name(node), TENSORRT, message)


def missing_zero_point(graph: LintGraph) -> Iterator[Finding]:
    """A Q without a zero point: UINT8 by the ONNX standard and in ONNX Runtime, INT8 in TensorRT."""
    for node in quantisers(graph):
        if node.op_type == "QuantizeLinear" and not input_name(node, 2) and not whole_number(node, "output_dtype", 0):
            message = (
                "QuantizeLinear without a zero point is UINT8 by the standard and in ONNX Runtime, INT8 in TensorRT: "
                f"one file, two results; {_SIGNED}"
            )
            yield Finding("missing_zero_point", ERROR, node_name(node), TENSORRT, message)


def nonzero_zero_point(graph: LintGraph) -> Iterator[Finding]:
    """Asymmetric quantisation: TensorRT takes zero points of 0 only."""
    for node in quantisers(graph):
        if _is_shifted(graph, node):
            message = f"the zero point of {node.op_type} is not 0; TensorRT quantises symmetrically only; {_SIGNED}"
            yield Finding("nonzero_zero_point", ERROR, node_name(node), TENSORRT, message)


def quantised_integer(graph: LintGraph) -> Iterator[Finding]:
    """16-bit quantisation: TensorRT has no such type."""
    for node in quantisers(graph):
        element_type = quantised_type(graph, node)
        if element_type in (TensorProto.INT16, TensorProto.UINT16):
            message = f"{node.op_type} is of {type_name(element_type)}, which TensorRT does not have; {_SIGNED}"
            yield Finding("quantised_integer", ERROR, node_name(node), TENSORRT, message)


def int32_bias(graph: LintGraph) -> Iterator[Finding]:
    """A bias of INT32 behind a DQ, as ONNX Runtime's quantiser writes it."""
    for node in quantisers(graph):
        if node.op_type == "DequantizeLinear" and graph.types.get(input_name(node, 0)) == TensorProto.INT32:
            message = (
                "DequantizeLinear of INT32 (a quantised bias), which TensorRT refuses; keep the bias in float "
                "(ONNX Runtime's quantiser: extra_options QuantizeBias=False)"
            )
            yield Finding("int32_bias", ERROR, node_name(node), TENSORRT, message)


def scale_value(graph: LintGraph) -> Iterator[Finding]:
    """Scales that are not positive and finite."""
    for node in quantisers(graph):
        values = graph.values(input_name(node, 1))
        if values is None or values.dtype.kind != "f":
            continue
        with np.errstate(invalid="ignore"):
            scales = np.asarray(values, np.float64)
        wrong = scales[~(scales > 0)]
        if wrong.size:
            found = f"{wrong.size} of {scales.size} scales of {node.op_type} not above 0, such as {wrong.flat[0]:g}"
            remedy = "a channel that is all zero needs a scale too: take the smallest positive one, or 1"
            yield Finding("scale_value", ERROR, node_name(node), TENSORRT, f"{found}: refused; {remedy}")
            yield Finding(
                "scale_value", WARNING, node_name(node), (ONNXRUNTIME,), f"{found}: it divides by them; {remedy}"
            )
        elif not np.isfinite(scales).all():
            message = f"a scale of {node.op_type} is infinite: every value becomes 0, then NaN; calibrate again"
            yield Finding("scale_value", WARNING, node_name(node), ALL_TARGETS, message)


def scale_type(graph: LintGraph) -> Iterator[Finding]:
    """Data and scale of a Q in different float types, which the standard allows from opset 23 on."""
    if graph.opset >= 23:
        return
    for node in quantisers(graph):
        data, scale = (graph.types.get(input_name(node, index)) for index in (0, 1))
        if node.op_type == "QuantizeLinear" and data in _FLOATS and scale in _FLOATS and data != scale:
            found = f"QuantizeLinear has {type_name(data)} data and a {type_name(scale)} scale"
            remedy = f"make the scale {type_name(data)}"
            yield Finding("scale_type", ERROR, node_name(node), (ONNXRUNTIME,), f"{found}: refused; {remedy}")
            message = f"{found}: what follows the DequantizeLinear is of the scale's type, not of the data's; {remedy}"
            yield Finding("scale_type", WARNING, node_name(node), TENSORRT, message)


def half_quantiser_opset(graph: LintGraph) -> Iterator[Finding]:
    """Q and DQ of FLOAT16 exist from opset 19 on."""
    if graph.opset >= 19:
        return
    for node in quantisers(graph):
        index = 0 if node.op_type == "QuantizeLinear" else 1
        if graph.types.get(input_name(node, index)) == TensorProto.FLOAT16:
            message = f"{node.op_type} of FLOAT16 needs opset 19, the file has {graph.opset}; export with 19 or 20"
            yield Finding("half_quantiser_opset", ERROR, node_name(node), (ONNXRUNTIME,), message)


def scale_count(graph: LintGraph) -> Iterator[Finding]:
    """As many scales as the axis is long, and as many zero points as scales."""
    for node in quantisers(graph):
        scale, zero_point = (graph.constant(input_name(node, index)) for index in (1, 2))
        if scale is None:
            continue
        count = int(np.prod(scale.dims, dtype=np.int64))
        shifts = count if zero_point is None else int(np.prod(zero_point.dims, dtype=np.int64))
        if shifts != count:
            message = f"{node.op_type} has {count} scales and {shifts} zero points; give each scale its own"
            yield Finding("scale_count", ERROR, node_name(node), ALL_TARGETS, message)
        data = graph.constant(input_name(node, 0))
        axis = whole_number(node, "axis", 1)
        if data is not None and len(scale.dims) == 1 and count > 1 and -len(data.dims) <= axis < len(data.dims):
            length = data.dims[axis]
            if length != count:
                message = f"{node.op_type} has {count} scales, axis {axis} is {length} long; give one a channel"
                yield Finding("scale_count", ERROR, node_name(node), ALL_TARGETS, message)


def default_axis(graph: LintGraph) -> Iterator[Finding]:
    """Scales per channel without an axis: 1 by the standard, 0 in the importer of TensorRT 10.1 (its source)."""
    for node in quantisers(graph):
        if (graph.size(input_name(node, 1)) or 1) > 1 and attribute(node, "axis") is None:
            message = f"{node.op_type} has many scales and no axis: 1 by the standard, 0 in TensorRT 10.1; write it"
            yield Finding("default_axis", ERROR, node_name(node), (TENSORRT_10,), message)


def _is_shifted(graph: LintGraph, node: NodeProto) -> bool:
    values = graph.values(input_name(node, 2)) if input_name(node, 2) else None
    return values is not None and bool(np.any(np.asarray(values, np.float64)))
