"""Who makes and who reads each tensor of an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hamr_edge.errors import InputError

_CONSTANT_VALUES = ("value", "value_float", "value_floats")


class GraphIndex:
    """An index of one graph; it does not follow later changes.

    Attributes:
        producer: The node that makes each tensor, by the tensor's name.
        consumers: The nodes that read each tensor, in graph order.
        initialisers: The initialisers, by name.
        constants: The initialisers and the values of Constant nodes, by name.
        outputs: Names of the graph's outputs.

    Raises:
        InputError: The graph holds another graph inside (If, Loop, Scan).
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.producer: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        self.initialisers = {item.name: item for item in graph.initializer}
        self.constants = dict(self.initialisers)
        self.outputs = tuple(item.name for item in graph.output)
        for node in graph.node:
            if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
                raise InputError(
                    f"node {node.name or node.output[0]} ({node.op_type}) holds a graph of its own; export the network "
                    "without control flow"
                )
            for name in filter(None, node.output):
                self.producer[name] = node
            for name in filter(None, node.input):
                self.consumers.setdefault(name, []).append(node)
            if node.op_type == "Constant" and node.attribute[0].name in _CONSTANT_VALUES:
                self.constants[node.output[0]] = _constant_value(node.attribute[0])

    def constant(self, name: str) -> NDArray[np.generic]:
        """The values of a constant."""
        return numpy_helper.to_array(self.constants[name])

    def floats(self, name: str) -> NDArray[np.float32]:
        """The values of a constant as float32."""
        return np.asarray(self.constant(name), np.float32)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is an initialiser."""
        return name in self.initialisers

    def data_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a node that are no constants."""
        return [name for name in node.input if name and name not in self.constants]

    def ancestors(self, tensors: Iterable[str]) -> set[str]:
        """Every tensor that the named ones are computed from, themselves too."""
        found: set[str] = set()
        waiting = list(tensors)
        while waiting:
            name = waiting.pop()
            if name and name not in found:
                found.add(name)
                if name in self.producer:
                    waiting.extend(self.producer[name].input)
        return found


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """A whole-number attribute of a node."""
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def _constant_value(item: onnx.AttributeProto) -> onnx.TensorProto:
    """The tensor that a Constant node gives."""
    if item.name == "value":
        return item.t
    return numpy_helper.from_array(np.asarray(helper.get_attribute_value(item), np.float32))


def rebuild(
    model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], initialisers: Iterable[onnx.TensorProto]
) -> onnx.ModelProto:
    """A model with the inputs, outputs and versions of another, and other nodes and initialisers."""
    constants = {item.name for item in model.graph.initializer}
    made = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    made.opset_import.extend(model.opset_import)
    made.graph.name = model.graph.name
    made.graph.input.extend(item for item in model.graph.input if item.name not in constants)
    made.graph.output.extend(model.graph.output)
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(initialisers)
    return made
