"""Rules on where a graph is quantised: axes of weights and activations, and operators that are integer themselves."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from hamr_edge.export.lint_graph import (
    ERROR,
    ONNXRUNTIME,
    TENSORRT,
    WARNING,
    Finding,
    LintGraph,
    input_name,
    node_name,
    whole_number,
)

INTEGER_OPERATORS = (
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
)
"""Operators of the standard that compute in integers; TensorRT imports none of them."""


def integer_operator(graph: LintGraph) -> Iterator[Finding]:
    """Operators that are quantised themselves instead of standing between DQ and Q."""
    for node in graph.nodes:
        if node.op_type in INTEGER_OPERATORS:
            message = (
                f"TensorRT does not import {node.op_type}; quantise in Q/DQ form (ONNX Runtime's quantiser: "
                "quant_format=QuantFormat.QDQ)"
            )
            yield Finding("integer_operator", ERROR, node_name(node), TENSORRT, message)


def activation_channels(graph: LintGraph) -> Iterator[Finding]:
    """Scales per channel on what is no weight: TensorRT quantises activations per tensor."""
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and graph.constant(input_name(node, 0)) is None:
            count = graph.size(input_name(node, 1)) or 1
            if count > 1:
                message = f"an activation has {count} scales; TensorRT quantises activations per tensor; give it one"
                yield Finding("activation_channels", WARNING, node_name(node), TENSORRT, message)


def weight_axis(graph: LintGraph) -> Iterator[Finding]:
    """Weights are quantised per output channel; ONNX Runtime's integer kernels take any axis for that one."""
    for node in graph.nodes:
        expected = _output_axis(graph, node)
        weight = graph.producer.get(input_name(node, 1))
        if expected is None or weight is None or weight.op_type != "DequantizeLinear":
            continue
        rank = graph.ranks.get(input_name(node, 1))
        if not rank or (graph.size(input_name(weight, 1)) or 1) == 1 or not _is_weight(graph, weight):
            continue
        axis = whole_number(weight, "axis", 1) % rank
        if axis == expected % rank:
            continue
        found = f"the weight of {node.op_type} is quantised along axis {axis}, not {expected % rank}"
        remedy = "quantise weights per output channel"
        yield Finding("weight_axis", WARNING, node_name(node), TENSORRT, f"{found}, its output channels; {remedy}")
        if node.op_type != "ConvTranspose" and _is_dequantised(graph, input_name(node, 0)):
            # Gemm is fused whatever follows, Conv with a Q behind it, MatMul without one.
            fused = node.op_type == "Gemm" or (node.op_type == "Conv") == _is_requantised(graph, node)
            message = f"{found}: where it is fused, the scales are taken for those of the output channels; {remedy}"
            severity = ERROR if fused else WARNING
            yield Finding("weight_axis", severity, node_name(node), (ONNXRUNTIME,), message)


def stacked_weight_channels(graph: LintGraph) -> Iterator[Finding]:
    """Scales per channel on a MatMul's stack of weights: ONNX Runtime 1.32 loads it, then fails when it runs."""
    for node in graph.nodes:
        weight = graph.producer.get(input_name(node, 1))
        if node.op_type != "MatMul" or weight is None or weight.op_type != "DequantizeLinear":
            continue
        rank = graph.ranks.get(input_name(node, 1), 2)
        if rank > 2 and (graph.size(input_name(weight, 1)) or 1) > 1 and _is_dequantised(graph, input_name(node, 0)):
            severity = WARNING if _is_requantised(graph, node) else ERROR
            message = (
                f"a {rank}-D weight with a scale per channel, no Q behind it: ONNX Runtime loads it, fails in its run "
                "(MatMulIntegerToFloat); give the stack one scale, or split it into 2-D weights"
            )
            yield Finding("stacked_weight_channels", severity, node_name(node), (ONNXRUNTIME,), message)


def _output_axis(graph: LintGraph, node: NodeProto) -> int | None:
    """Which axis of a node's weight is its output channels; None where it has no such weight."""
    if node.op_type == "MatMul":
        return -1 if graph.ranks.get(input_name(node, 1)) == 2 else None
    if node.op_type == "Gemm":
        return 0 if whole_number(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op_type)


def _is_weight(graph: LintGraph, dequantiser: NodeProto) -> bool:
    """Whether a DQ reads a constant, quantised or still to be quantised."""
    source = graph.producer.get(input_name(dequantiser, 0))
    if source is not None and source.op_type == "QuantizeLinear":
        return graph.constant(input_name(source, 0)) is not None
    return graph.constant(input_name(dequantiser, 0)) is not None


def _is_requantised(graph: LintGraph, node: NodeProto) -> bool:
    consumers = graph.consumers.get(next(iter(node.output), ""), [])
    return bool(consumers) and all(consumer.op_type == "QuantizeLinear" for consumer in consumers)


def _is_dequantised(graph: LintGraph, name: str) -> bool:
    node = graph.producer.get(name)
    return node is not None and node.op_type == "DequantizeLinear"
