"""float32 ONNX to the int8 form that ONNX Runtime runs fastest on x86: flavour ``int8-cpu``.

ONNX Runtime's CPU kernels want other things than TensorRT: uint8 activations with a zero point, the outputs of
convolutions quantised too (only then does it fuse them into one integer kernel), both branches and the result of a
residual sum, an int32 bias, and one 2-D product a part (its batched products unpack their weights at every call). Its
weights must not saturate kernels without VNNI: see :func:`hamr_edge.calibration.weight_scales.quantize_paired_weights`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from hamr_edge.calibration.graph_index import GraphIndex
from hamr_edge.calibration.qdq_writer import QdqWriter
from hamr_edge.calibration.quantize import Range, channel_axis, check_chosen, range_of
from hamr_edge.calibration.residual import find_residual_sums
from hamr_edge.calibration.sites import is_part_wise, is_weighted
from hamr_edge.calibration.weight_scales import SMALLEST_SCALE, quantize_paired_weights


def quantize_cpu(model: onnx.ModelProto, chosen: Collection[str], ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """Quantise some sites of a network for ONNX Runtime on x86.

    Args:
        model: float32, batch normalisation folded, opset 19 or later; not changed.
        chosen: Names of the sites to quantise; see :func:`hamr_edge.calibration.sites.find_sites`.
        ranges: The range of every tensor that is to be quantised.

    Returns:
        A new float32 model with Q/DQ.

    Raises:
        InputError: As :func:`hamr_edge.calibration.quantize.quantize`.
    """
    check_chosen(model, chosen)
    index = GraphIndex(model)
    tensors = integer_tensors(model, chosen)
    writer = QdqWriter(model)
    scales: dict[str, tuple[np.float32, np.uint8]] = {}
    weights: dict[tuple[str, int], tuple[NDArray[np.int8], NDArray[np.float32]]] = {}

    def read(tensor: str) -> str:
        """The tensor as its readers take it: rounded, where it is to be."""
        if tensor not in tensors:
            return tensor
        source = tensors[tensor]
        if source not in scales:
            scales[source] = asymmetric_scale(range_of(ranges, source))
        return writer.quantize(tensor, *scales[source], source)

    for node in model.graph.node:
        weighted = is_weighted(node, index)
        if weighted and is_part_wise(node, index):
            _write_parts(writer, node, index, chosen, ranges)
        elif weighted and node.input[1] in chosen:
            weight, axis = node.input[1], channel_axis(node)
            if (weight, axis) not in weights:
                weights[weight, axis] = quantize_paired_weights(index.floats(weight), axis)
            inputs = [read(node.input[0]), writer.weight(weight, axis, partial(weights.__getitem__, (weight, axis)))]
            sums = scales[tensors[node.input[0]]][0] * weights[weight, axis][1]
            writer.copy(node, inputs + [_write_bias(writer, name, index, sums) for name in node.input[2:]])
        else:
            writer.copy(node, [read(name) for name in node.input])
    return writer.finish()


def integer_tensors(model: onnx.ModelProto, chosen: Collection[str]) -> dict[str, str]:
    """The tensors that are to be whole numbers, and for each the tensor whose range it takes.

    A maximum pool takes its input's range: only then can it work on whole numbers.
    """
    index = GraphIndex(model)
    read: set[str] = set()
    made: set[str] = set()
    for node in model.graph.node:
        if is_weighted(node, index) and node.input[1] in chosen and not is_part_wise(node, index):
            read.add(node.input[0])
            if node.op_type == "Conv":
                made.add(behind_relu(node.output[0], index))
    for found in find_residual_sums(model):
        if found.weight in chosen:
            read.add(found.identity)
            made.add(behind_relu(found.node, index))
    # An output of the network stays float: to round it is of use only where a product reads it.
    tensors = {name: name for name in read | (made - set(index.outputs))}
    for node in model.graph.node:
        if node.op_type == "MaxPool" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    return tensors


def behind_relu(tensor: str, index: GraphIndex) -> str:
    """The output of a ReLU that alone reads a tensor, else the tensor: ONNX Runtime folds such a ReLU away."""
    readers = index.consumers.get(tensor, [])
    alone = len(readers) == 1 and readers[0].op_type == "Relu" and tensor not in index.outputs
    return readers[0].output[0] if alone else tensor


def asymmetric_scale(limits: Range) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 over a range that is widened to hold 0, which must be exact.

    An all-zero tensor is taken to reach 1: of a tiny scale, the bias of the sums would leave int32.
    """
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = max((high - low) / 255, SMALLEST_SCALE) if high > low else 1 / 255
    return np.float32(scale), np.uint8(round(-low / scale))


def _write_bias(writer: QdqWriter, name: str, index: GraphIndex, sums: NDArray[np.float32]) -> str:
    """A bias as int32 on the scale of the sums that it is added to; one that is no constant of a channel each stays."""
    if name not in index.constants or index.floats(name).size != sums.size:
        return name
    limit = np.iinfo(np.int32)
    whole = np.rint(index.floats(name).reshape(-1).astype(np.float64) / sums)
    return writer.dequantize(name, np.clip(whole, limit.min, limit.max).astype(np.int32), sums, 0)


def _write_parts(
    writer: QdqWriter,
    node: onnx.NodeProto,
    index: GraphIndex,
    chosen: Collection[str],
    ranges: Mapping[str, Range],
) -> None:
    """A part-wise product as one 2-D product a part."""
    source, name = node.input[:2]
    weight = index.floats(name)
    if not any(f"{name}[{part}]" in chosen for part in range(len(weight))):
        writer.copy(node)
        return
    first_axis = writer.constant(f"{name}_axis", np.asarray([0], np.int64))
    pieces = [writer.new_name(f"{source}_{part}") for part in range(len(weight))]
    writer.node("Split", [source], pieces, axis=0, num_outputs=len(weight))
    results = []
    for part, piece in enumerate(pieces):
        stem, result = f"{name}_{part}", writer.new_name(f"{node.output[0]}_{part}")
        rows, product = writer.new_name(f"{piece}_rows"), writer.new_name(f"{result}_rows")
        writer.node("Squeeze", [piece, first_axis], [rows])
        if f"{name}[{part}]" in chosen:
            whole, scale = quantize_paired_weights(weight[part], 1)
            rounded = writer.quantize(rows, *asymmetric_scale(range_of(ranges, source)), source)
            inputs = [rounded, writer.dequantize(stem, whole, scale, 1)]
        else:
            inputs = [rows, writer.constant(stem, weight[part])]
        writer.node("MatMul", inputs, [product])
        writer.node("Unsqueeze", [product, first_axis], [result])
        results.append(result)
    writer.node("Concat", results, [node.output[0]], axis=0)
