"""float32 ONNX to int8 Q/DQ with TensorRT's placement (NVIDIA's guide to explicit quantisation).

Quantised are the inputs of chosen Conv, Gemm and MatMul nodes, and of a residual sum the branch that TensorRT does not
fuse. Activations have one scale a tensor, weights one a channel; all are symmetric, with explicit int8 zero points.
Weights are stored as int8. Bias stays float. The outputs of products are not quantised.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import groupby

import numpy as np
import onnx

from hamr_edge.calibration.graph_index import GraphIndex, attribute
from hamr_edge.calibration.qdq_writer import QdqWriter
from hamr_edge.calibration.residual import find_residual_sums
from hamr_edge.calibration.sites import find_sites, is_part_wise, is_weighted
from hamr_edge.calibration.weight_scales import half_scale, quantize_normalised, quantize_weights
from hamr_edge.errors import InputError

_OLDEST_OPSET = 19
"""The first whose QuantizeLinear takes float16."""

Range = tuple[float, float]
"""Least and largest value that a tensor keeps; what lies outside is clipped."""


def quantize(model: onnx.ModelProto, chosen: Collection[str], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Quantise some sites of a network for TensorRT.

    Args:
        model: float32, batch normalisation folded, opset 19 or later; not changed.
        chosen: Names of the sites to quantise; see :func:`hamr_edge.calibration.sites.find_sites`.
        ranges: The range of every tensor that is to be quantised.

    Returns:
        A new float32 model with Q/DQ, whose scales are exact in float16.

    Raises:
        InputError: A site is not in the network, a range is missing, or the opset is too old.
    """
    check_chosen(model, chosen)
    index = GraphIndex(model)
    identities = {found.node: found.identity for found in find_residual_sums(model) if found.weight in chosen}
    writer = QdqWriter(model)

    def activation(tensor: str, source: str) -> str:
        low, high = range_of(ranges, source)
        scale = half_scale(np.asarray(max(-low, high) / 127, np.float32))
        return writer.quantize(tensor, np.float32(scale), np.int8(0), source)

    for node in model.graph.node:
        if node.output[0] in identities:
            identity = identities[node.output[0]]
            writer.copy(node, [activation(name, name) if name == identity else name for name in node.input])
        elif not is_weighted(node, index):
            writer.copy(node)
        elif is_part_wise(node, index):
            _write_parts(writer, node, index, chosen, activation)
        elif node.input[1] in chosen:
            axis = channel_axis(node)
            whole = writer.weight(node.input[1], axis, partial(quantize_weights, index.floats(node.input[1]), axis))
            writer.copy(node, [activation(node.input[0], node.input[0]), whole, *node.input[2:]])
        else:
            writer.copy(node)
    return writer.finish()


def _write_parts(
    writer: QdqWriter,
    node: onnx.NodeProto,
    index: GraphIndex,
    chosen: Collection[str],
    activation: Callable[[str, str], str],
) -> None:
    """A part-wise product, one batched product for each run of parts that are all quantised or all not."""
    source, name = node.input[:2]
    weight = index.floats(name)
    runs = part_runs(name, len(weight), chosen)
    if not any(quantised for _, _, quantised in runs):
        writer.copy(node)
        return
    pieces = [source]
    if len(runs) > 1:
        pieces = [writer.new_name(f"{source}_{first}") for first, _, _ in runs]
        sizes = writer.constant(f"{name}_runs", np.asarray([end - first for first, end, _ in runs], np.int64))
        writer.node("Split", [source, sizes], pieces, axis=0)
    results = []
    for (first, end, quantised), piece in zip(runs, pieces, strict=True):
        stem = name if len(runs) == 1 else f"{name}_{first}"
        result = node.output[0] if len(runs) == 1 else writer.new_name(f"{node.output[0]}_{first}")
        results.append(result)
        if not quantised:
            writer.node("MatMul", [piece, writer.constant(f"{stem}_kept", weight[first:end])], [result])
            continue
        whole, scale, rest = quantize_normalised(weight[first:end])
        product = writer.new_name(f"{result}_product")
        writer.node("MatMul", [activation(piece, source), writer.dequantize(stem, whole, scale, 0)], [product])
        writer.node("Mul", [product, writer.constant(f"{stem}_rest", rest)], [result])
    if len(runs) > 1:
        writer.node("Concat", results, [node.output[0]], axis=0)


def part_runs(weight: str, parts: int, chosen: Collection[str]) -> list[tuple[int, int, bool]]:
    """(first, end, whether chosen) of the runs of parts that are treated alike."""
    runs = []
    for quantised, run in groupby(range(parts), lambda part: f"{weight}[{part}]" in chosen):
        members = list(run)
        runs.append((members[0], members[-1] + 1, quantised))
    return runs


def channel_axis(node: onnx.NodeProto) -> int:
    """The axis of a weight's output channels."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 1


def check_chosen(model: onnx.ModelProto, chosen: Collection[str]) -> None:
    """See that the chosen sites are there, and that the opset's Q/DQ can be float16.

    Raises:
        InputError: A site is not in the network, or the opset is too old.
    """
    unknown = sorted(set(chosen) - {site.name for site in find_sites(model)})
    if unknown:
        raise InputError(
            f"the network has no site {', '.join(unknown[:3])} to quantise; see find_sites for those it has"
        )
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise InputError(f"quantising needs opset {_OLDEST_OPSET} or later, the model has {opset}; export it again")


def range_of(ranges: Mapping[str, Range], tensor: str) -> Range:
    """The range of a tensor.

    Raises:
        InputError: There is none.
    """
    if tensor not in ranges:
        raise InputError(f"no range of tensor {tensor} was measured; calibrate it with the others")
    return ranges[tensor]
