"""Where a network can be quantised: every product with constant weights, and what of it should stay as it is.

After NVIDIA's guide to explicit quantisation: the inputs of Conv, Gemm and constant MatMul are quantised; the gates of
attention, pooling and the embedding layer stay in float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from hamr_edge.calibration.graph_index import GraphIndex

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_LARGEST_AVERAGE = 1 << 16
_GATES = ("Sigmoid", "HardSigmoid", "Softmax", "Tanh")


@dataclass(frozen=True, slots=True)
class Site:
    """One product with constant weights, or one part of a part-wise product."""

    weight: str
    """Name of the constant."""
    part: int | None
    """Index along the first axis of a (P, in, out) weight; None for any other weight."""
    activation: str
    """The tensor that the weights multiply."""
    role: str
    """``product``, or what stays in float: ``gate`` or ``embedding``."""

    @property
    def name(self) -> str:
        """``weight`` or ``weight[part]``."""
        return self.weight if self.part is None else f"{self.weight}[{self.part}]"


def find_sites(model: onnx.ModelProto) -> tuple[Site, ...]:
    """Every place where a network can be quantised, in graph order.

    Args:
        model: A float32 network with batch normalisation folded.
    """
    index = GraphIndex(model)
    gates = _gate_weights(model, index)
    last = _embedding_weights(index)
    sites = []
    for node in model.graph.node:
        if not is_weighted(node, index):
            continue
        weight, activation = node.input[1], node.input[0]
        # Of a weight that several nodes share, one of them decides: it is quantised for all of them or for none.
        role = "gate" if weight in gates else "embedding" if weight in last else "product"
        parts = range(index.constants[weight].dims[0]) if is_part_wise(node, index) else (None,)
        sites += [Site(weight, part, activation, role) for part in parts]
    return tuple(sites)


def is_weighted(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a node is a product of an activation and constant weights, of a form that can be quantised."""
    if node.op_type not in _WEIGHTED or node.input[1] not in index.constants or node.input[0] in index.constants:
        return False
    item = index.constants[node.input[1]]
    if item.data_type != onnx.TensorProto.FLOAT or len(item.dims) < 2:
        return False
    return node.op_type != "MatMul" or (len(item.dims) <= 3 and not _averages(index, node.input[1]))


def is_part_wise(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a weighted node holds the products of several parts: (P, N, in) x (P, in, out)."""
    return node.op_type == "MatMul" and len(index.constants[node.input[1]].dims) == 3


def _averages(index: GraphIndex, weight: str) -> bool:
    """Whether a constant matrix only takes means, as of stripes: there is nothing to gain in quantising it."""
    item = index.constants[weight]
    if len(item.dims) != 2 or item.dims[0] * item.dims[1] > _LARGEST_AVERAGE:
        return False
    values = index.constant(weight).astype(np.float64)
    return bool(np.all(values >= 0) and np.allclose(values.sum(axis=0), 1))


def _gate_weights(model: onnx.ModelProto, index: GraphIndex) -> set[str]:
    """Weights of the nodes whose results reach nothing but a gate."""
    inside = {node.output[0] for node in model.graph.node if node.op_type in _GATES and _scales(node, index)}
    found: set[str] = set()
    for node in reversed(model.graph.node):  # consumers come before their producers in this order
        readers = [reader for name in node.output for reader in index.consumers.get(name, [])]
        seen = any(name in index.outputs for name in node.output)
        if readers and not seen and all(reader.output[0] in inside for reader in readers):
            inside.add(node.output[0])
            if is_weighted(node, index):
                found.add(node.input[1])
    return found


def _scales(gate: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a result is multiplied with other activations, before any product with weights: else it is no gate."""
    waiting, seen = list(gate.output), set[str]()
    while waiting:
        name = waiting.pop()
        for reader in index.consumers.get(name, []):
            if reader.op_type in ("Mul", "MatMul") and len(index.data_inputs(reader)) == 2:
                return True
            if reader.output[0] not in seen and not is_weighted(reader, index):
                seen.add(reader.output[0])
                waiting.extend(reader.output)
    return False


def _embedding_weights(index: GraphIndex) -> set[str]:
    """Weights of the last products before the outputs."""
    found: set[str] = set()
    waiting, seen = list(index.outputs), set[str]()
    while waiting:
        name = waiting.pop()
        node = index.producer.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if is_weighted(node, index):
            found.add(node.input[1])
        else:
            waiting.extend(node.input)
    return found
