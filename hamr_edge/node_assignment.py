"""Which provider ONNX Runtime gave each node of a graph to: silently, what a GPU cannot run goes to the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

_RECORD = "session.record_ep_graph_assignment_info"
_NAMED = 3
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Min", "Max", "Cast")
_ARRANGEMENT = ("Shape", "Size", "Gather", "Slice", "Concat", "Reshape", "Squeeze", "Unsqueeze")
SHAPE_OPERATORS = frozenset((*_ARITHMETIC, *_ARRANGEMENT))
"""Operators that may stay on the CPU. CUDA has kernels of them for float32, float16, int32 and int64 (ONNX Runtime's
``OperatorKernels.md``), so that ONNX Runtime leaves one on the CPU for one reason only: all it takes are sizes of
tensors, which lie in host memory, small constants or the graph's own inputs (``GetCpuPreferredNodes``). That is a few
bytes a frame. The frame form has five such nodes, which turn the frame's size into numbers for its boxes."""


class AssignedNode(NamedTuple):
    """A node, and the provider that runs it.

    Attributes:
        provider: ``CUDAExecutionProvider``.
        operator: ``Conv``.
        name: The node's name in the graph; empty where it has none.
    """

    provider: str
    operator: str
    name: str


def can_record(onnxruntime: Any) -> bool:
    """Whether this ONNX Runtime can say which provider runs a node: 1.24 and later can."""
    return hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")


def record_assignment(options: Any) -> None:
    """Have a session that is made with these ``SessionOptions`` keep what :func:`assigned_nodes` reads."""
    options.add_session_config_entry(_RECORD, "1")


def assigned_nodes(session: Any) -> list[AssignedNode]:
    """All nodes of a session's graph, as they were when they were given to providers.

    Args:
        session: Made with :func:`record_assignment`.
    """
    return [
        AssignedNode(group.ep_name, node.op_type, node.name)
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]


def stray_nodes(nodes: Sequence[AssignedNode], provider: str) -> list[AssignedNode]:
    """The nodes that another provider runs, less those of :data:`SHAPE_OPERATORS`, if there are any others.

    Where a node does work on another provider, what it feeds may follow it there: then all are strays.
    """
    elsewhere = [node for node in nodes if node.provider != provider]
    if all(node.operator in SHAPE_OPERATORS for node in elsewhere):
        return []
    return elsewhere


def name_nodes(nodes: Sequence[AssignedNode]) -> str:
    """The first few nodes, working ones before shape arithmetic, and how many more there are."""
    ordered = sorted(nodes, key=lambda node: node.operator in SHAPE_OPERATORS)
    named = ", ".join(f"{node.operator} {node.name or 'without a name'}" for node in ordered[:_NAMED])
    more = len(nodes) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
