"""Which branch of a residual sum TensorRT wants quantised.

TensorRT fuses the convolution before a sum with the sum, so only the other branch, the identity or the downsampling
one, gets quantised (NVIDIA's guide to explicit quantisation, "Q/DQ placement").
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from hamr_edge.calibration.graph_index import GraphIndex


@dataclass(frozen=True, slots=True)
class ResidualSum:
    """An Add of a convolution's output and the branch that goes around it."""

    node: str
    """The Add's output, which names it."""
    fused: str
    """Output of the convolution that TensorRT fuses with the sum."""
    identity: str
    """The tensor of the other branch."""
    weight: str
    """Weights of the fused convolution."""


def find_residual_sums(model: onnx.ModelProto) -> tuple[ResidualSum, ...]:
    """Every residual sum of a network, in graph order."""
    index = GraphIndex(model)
    found = []
    for node in model.graph.node:
        if node.op_type != "Add" or any(name in index.constants for name in node.input):
            continue
        fused = _fused_branch(node, index)
        if fused is not None:
            identity = node.input[1] if node.input[0] == fused else node.input[0]
            found.append(ResidualSum(node.output[0], fused, identity, index.producer[fused].input[1]))
    return tuple(found)


def _fused_branch(add: onnx.NodeProto, index: GraphIndex) -> str | None:
    """The input of a sum that a convolution makes for it alone; of two, the one that lies behind the other."""
    branches = [name for name in add.input if _is_own_convolution(name, index)]
    if len(branches) == 2:
        starts = [index.producer[name].input[0] for name in branches]
        # The downsampling convolution reads what the main branch began with.
        return str(branches[0 if starts[1] in index.ancestors([starts[0]]) else 1])
    return str(branches[0]) if branches else None


def _is_own_convolution(name: str, index: GraphIndex) -> bool:
    node = index.producer.get(name)
    return node is not None and node.op_type == "Conv" and len(index.consumers[name]) == 1 and name not in index.outputs
