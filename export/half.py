"""float32 ONNX to float16: our own pass over the graph, with float32 where range or precision asks for it.

Every float initialiser becomes float16, and casts stand where types meet, so no builder flag decides anything. What
stays float32 is said and named, with its reason:

* what comes before the first product with weights (pixels and their normalisation) and after the last (the L2 norm);
* operators that square, raise to powers or exponentiate (x ** 3 leaves float16 above 40.3), and what reads their
  results, up to the root, logarithm or division that brings them back;
* operators that have no float16 form in the model's opset;
* constants that float16 cannot hold: 1e-12 would be 0;
* tensors whose measured values come near float16's largest, 65,504, with the nodes that make and read them.

ONNX Runtime's CPU kernels compute float16 graphs in float32 and would hide an overflow: hence the measured ranges.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper

from hamr_edge.calibration.graph_index import GraphIndex, rebuild
from hamr_edge.errors import InputError
from hamr_edge.export.half_forms import (
    LARGEST_HALF,
    WIDE,
    first_output,
    float_places,
    has_constant_beyond_half,
    has_half_form,
    is_product,
    power_nodes,
    round_to_half,
)
from hamr_edge.export.lint_graph import LintGraph, node_name

LARGEST_ACTIVATION = 1e4
"""Above this, a measured value is too near to 65,504: other crops reach further than those that were measured."""


@dataclass(frozen=True, slots=True)
class KeptFloat:
    """A node that stays float32."""

    node: str
    """Its first output, which names it."""
    operator: str
    reason: str
    """``input``, ``norm``, ``operator``, ``constant`` or ``range``."""
    peak: float | None = None
    """For ``range``: the largest absolute value measured at the node."""


def to_half(
    model: onnx.ModelProto, extremes: Mapping[str, tuple[float, float]] | None = None
) -> tuple[onnx.ModelProto, tuple[KeptFloat, ...]]:
    """Convert a float32 network to float16.

    Args:
        model: float32, with or without Q/DQ; not changed. Inputs and outputs keep their types.
        extremes: (low, high) of every activation over real crops, from
            :func:`hamr_edge.calibration.ranges.measure_extremes` of this very model. Without it, ranges go unchecked.

    Returns:
        The float16 model, and the nodes that stay float32.

    Raises:
        InputError: The graph holds another graph inside, or an operator whose results' types are not known.
    """
    model = _with_constants_as_initialisers(model)
    index = GraphIndex(model)
    graph = LintGraph(model)
    _check_types(model, graph)
    floats = {name for name, kind in graph.types.items() if kind == TensorProto.FLOAT}
    kept = tuple(find_float_nodes(model, index, floats, extremes or {}))
    wide = {item.node for item in kept}
    writer = _HalfWriter(model, index, floats)
    for node in model.graph.node:
        writer.add(node, wide=first_output(node) in wide)
    return writer.finish(), kept


def find_float_nodes(
    model: onnx.ModelProto,
    index: GraphIndex,
    floats: Collection[str],
    extremes: Mapping[str, tuple[float, float]],
) -> Iterator[KeptFloat]:
    """The nodes that must stay float32, in graph order, each with its first reason.

    Args:
        model: The float32 model.
        index: Its index.
        floats: Names of its float32 tensors.
        extremes: As :func:`to_half`.
    """
    before, after = _outside_products(model, index)
    grown = power_nodes(model, index)
    opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)
    found: dict[str, KeptFloat] = {}
    for node in reversed(model.graph.node):  # readers first: weights that are stored as int8 follow their reader
        name = first_output(node)
        if not any(tensor in floats for tensor in (*node.input, *node.output)):
            continue
        touched = [extremes[tensor] for tensor in (*index.data_inputs(node), *node.output) if tensor in extremes]
        peak = float(np.abs(touched).max()) if touched else 0.0
        reader = next((found.get(first_output(one)) for one in index.consumers.get(name, [])), None)
        reason = (
            "input"
            if name in before
            else "norm"
            if name in after
            else "operator"
            if name in grown or node.op_type in WIDE or not has_half_form(node, floats, opset)
            else "constant"
            if has_constant_beyond_half(node, index)
            else "range"
            if not peak < LARGEST_ACTIVATION
            else reader.reason
            if reader is not None and node.op_type == "DequantizeLinear" and index.is_constant(node.input[0])
            else None
        )
        if reason is not None:
            measured = peak if reason == "range" and touched else None
            found[name] = KeptFloat(name, node.op_type, reason, measured)
    return reversed(found.values())


def overflows(kept: tuple[KeptFloat, ...]) -> tuple[KeptFloat, ...]:
    """Those of the kept nodes that would have overflowed in float16: they make or read what it cannot hold."""
    return tuple(item for item in kept if item.peak is not None and item.peak > LARGEST_HALF)


def _with_constants_as_initialisers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which Constant nodes are initialisers, initialisers are no inputs, and functions are inlined."""
    made = onnx.ModelProto()
    made.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    graph = made.graph
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        item = node.attribute[0] if node.op_type == "Constant" else None
        if item is not None and item.name == "value":
            graph.initializer.append(item.t)
            graph.initializer[-1].name = node.output[0]
        elif item is not None and item.name in ("value_float", "value_floats"):
            values = np.asarray(helper.get_attribute_value(item), np.float32)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            graph.node.append(node)
    constants = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    return made


def _check_types(model: onnx.ModelProto, graph: LintGraph) -> None:
    for node in model.graph.node:
        for name in filter(None, node.output):
            if name not in graph.types:
                raise InputError(
                    f"the type of tensor {name}, made by {node.op_type} {node_name(node)}, is not known: float16 needs "
                    "standard ONNX operators"
                )


def _outside_products(model: onnx.ModelProto, index: GraphIndex) -> tuple[set[str], set[str]]:
    """First outputs of the nodes that no product with weights comes before, and of those that none comes after."""
    from_input = {item.name for item in model.graph.input}
    behind: set[str] = set()
    before: set[str] = set()
    for node in model.graph.node:
        if is_product(node, index) or any(name in behind for name in node.input):
            behind.update(node.output)
        elif any(name in from_input for name in node.input):
            from_input.update(node.output)
            before.add(first_output(node))
    ahead: set[str] = set()
    after: set[str] = set()
    for node in reversed(model.graph.node):
        if is_product(node, index) or any(name in ahead for name in node.output):
            ahead.update(node.input)
        else:
            after.add(first_output(node))
    return before, after - before


class _HalfWriter:
    """Collects the nodes of the float16 graph and the casts between them."""

    def __init__(self, model: onnx.ModelProto, index: GraphIndex, floats: Collection[str]) -> None:
        self._model = model
        self._index = index
        self._floats = floats
        self._opset = max((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)
        self._nodes: list[onnx.NodeProto] = []
        self._constants = {name: index.initialisers[name] for name in index.outputs if index.is_constant(name)}
        self._names: dict[tuple[str, bool], str] = {(item.name, True): item.name for item in model.graph.input}
        self._taken = {*index.initialisers, *index.producer, *(item.name for item in model.graph.input)}

    def add(self, node: onnx.NodeProto, wide: bool) -> None:
        """Take over a node in float32 (wide) or float16."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        places = set() if wide else float_places(node, self._opset)
        copied.input[:] = [self._as(name, wide or place in places) for place, name in enumerate(node.input)]
        casts = []
        for place, name in enumerate(node.output):
            if name not in self._floats:
                continue
            self._names[name, wide] = name
            if not wide and name in self._index.outputs:
                copied.output[place] = self._names[name, False] = self._new(f"{name}_half")
                self._names[name, True] = name
                casts.append(_cast(copied.output[place], name, TensorProto.FLOAT))
        if node.op_type == "Cast" and node.output[0] in self._floats and not wide:
            attribute = next(item for item in copied.attribute if item.name == "to")
            attribute.i = TensorProto.FLOAT16
        self._nodes += [copied, *casts]

    def finish(self) -> onnx.ModelProto:
        """The float16 model."""
        return rebuild(self._model, self._nodes, self._constants.values())

    def _as(self, name: str, wide: bool) -> str:
        """The name of a tensor in the type wanted; a cast or a constant of that type is added where it lacks."""
        if name in self._index.initialisers and (wide or name not in self._floats):
            self._constants[name] = self._index.initialisers[name]
            return name
        if name not in self._floats:
            return name
        key = name, wide
        if key not in self._names:
            self._names[key] = self._new(f"{name}_wide" if wide else f"{name}_half")
            made = self._names[key]
            if name in self._index.initialisers:
                self._constants[made] = numpy_helper.from_array(round_to_half(self._index.floats(name)), made)
            else:
                kind = TensorProto.FLOAT if wide else TensorProto.FLOAT16
                self._nodes.append(_cast(self._names[name, not wide], made, kind))
        return self._names[key]

    def _new(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _cast(source: str, made: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [made], name=f"{made}_node", to=kind)
