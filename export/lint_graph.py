"""What the rules of lint read: a graph with the type of every tensor, without copies of its weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, inliner, numpy_helper, shape_inference

TENSORRT_10 = "tensorrt-10"
TENSORRT_11 = "tensorrt-11"
TENSORRT_RTX = "tensorrt-rtx"
ONNXRUNTIME = "onnxruntime"
TENSORRT = (TENSORRT_10, TENSORRT_11, TENSORRT_RTX)
ALL_TARGETS = (*TENSORRT, ONNXRUNTIME)
ERROR = "error"
WARNING = "warning"

_SMALL = 1024
"""Elements up to which a constant's values take part in shape inference."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a target would refuse, read otherwise, or that is likely to go wrong there."""

    rule: str
    """The rule's function."""
    severity: str
    """``error``: the target refuses the file, or reads it otherwise without a word. ``warning``: it may go wrong."""
    name: str
    """The node or tensor concerned; the graph's name where it is the whole file."""
    targets: tuple[str, ...]
    """Which targets, of :data:`ALL_TARGETS`."""
    message: str
    """What is wrong and what to do."""


class LintGraph:
    """An ONNX model as the rules see it; local functions are inlined, nested graphs are part of ``nodes``.

    Attributes:
        model: The model as it was read; its weights are not copied.
        folder: Where its external data lies; None where that is not known.
        graphs: The main graph and every graph inside it.
        nodes: The nodes of all of them, in order.
        inputs: The main graph's inputs that are no initialisers.
        outputs: Its outputs.
        constants: Initialisers and the tensors of Constant nodes, by name.
        types: ONNX element type of each tensor where it is known, as the operators give it.
        ranks: Number of dimensions of each tensor where it is known.
        producer: The node that makes each tensor.
        consumers: The nodes that read each tensor.

    Args:
        model: The model; not changed.
        folder: Where its external data lies.

    Raises:
        UnicodeError: A name in the model is no text.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path | None = None) -> None:
        self.model = model
        self.folder = folder
        light = _without_weights(model)
        _check_names(light.graph)
        self.graphs = tuple(_graphs(light.graph))
        self.nodes = [node for graph in self.graphs for node in graph.node]
        initialisers = {item.name for item in model.graph.initializer}
        self.inputs = [item for item in model.graph.input if item.name not in initialisers]
        self.outputs = list(model.graph.output)
        self.constants = _constants(model, self.graphs)
        self.types, self.ranks = _inferred(_with_half_scales(light, self.constants))
        self.types |= {name: tensor.data_type for name, tensor in self.constants.items()}
        self.ranks |= {name: len(tensor.dims) for name, tensor in self.constants.items()}
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in filter(None, node.input):
                self.consumers.setdefault(name, []).append(node)

    @property
    def opset(self) -> int:
        """The version of the standard operator set; 0 when the model names none."""
        versions = [item.version for item in self.model.opset_import if item.domain in ("", "ai.onnx")]
        return max(versions, default=0)

    def constant(self, name: str) -> TensorProto | None:
        """The constant that a tensor is, through Identity and Cast nodes (whose type change is left out)."""
        while name not in self.constants:
            node = self.producer.get(name)
            if node is None or node.op_type not in ("Identity", "Cast"):
                return None
            name = input_name(node, 0)
        return self.constants[name]

    def values(self, name: str) -> NDArray[np.generic] | None:
        """The values of a constant, in its own type; None where the tensor is none, or its data cannot be read."""
        tensor = self.constant(name)
        if tensor is None or (tensor.data_location == TensorProto.EXTERNAL and self.folder is None):
            return None
        try:
            return np.asarray(numpy_helper.to_array(tensor, str(self.folder or "")))
        except (OSError, ValueError, TypeError, KeyError, onnx.checker.ValidationError):
            return None  # a rule of its own names data that are missing or too short

    def size(self, name: str) -> int | None:
        """Number of values of a constant; None where the tensor is none."""
        tensor = self.constant(name)
        return None if tensor is None else int(np.prod(tensor.dims, dtype=np.int64))


def input_name(node: NodeProto, index: int) -> str:
    """The name of a node's input; empty where it is left out."""
    return str(node.input[index]) if index < len(node.input) else ""


def node_name(node: NodeProto) -> str:
    """What to call a node: its name, or its first output where it has none."""
    return str(node.name or next(iter(node.output), "") or node.op_type)


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """An attribute's value; text as str."""
    for item in node.attribute:
        if item.name == name:
            value: object = helper.get_attribute_value(item)
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return default


def whole_number(node: NodeProto, name: str, default: int) -> int:
    """A whole-number attribute's value."""
    value = attribute(node, name, default)
    return value if isinstance(value, int) else default


def type_name(element_type: int) -> str:
    """ONNX's word for an element type, such as ``FLOAT16``."""
    return str(TensorProto.DataType.Name(element_type)) if element_type in TensorProto.DataType.values() else "?"


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model for shape inference: large initialisers become inputs, and what the file says of types is left out."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.output.extend(onnx.ValueInfoProto(name=item.name) for item in model.graph.output)
    known = {item.name for item in model.graph.initializer}
    light.graph.input.extend(item for item in model.graph.input if item.name not in known)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims, dtype=np.int64) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return inliner.inline_local_functions(light) if light.functions else light


def _check_names(graph: onnx.GraphProto) -> None:
    """Raise UnicodeError where a name is no text: protobuf gives such a one as bytes, or raises itself."""
    for node in (node for nested in _graphs(graph) for node in nested.node):
        texts = (node.name, node.op_type, node.domain, *node.input, *node.output)
        if not all(isinstance(text, str) for text in texts):
            raise UnicodeError("a name is no text")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for nested in (*([item.g] if item.HasField("g") else []), *item.graphs):
                yield from _graphs(nested)


def _constants(model: onnx.ModelProto, graphs: tuple[onnx.GraphProto, ...]) -> dict[str, TensorProto]:
    constants = {item.name: item for graph in (model.graph, *graphs[1:]) for item in graph.initializer}
    for node in (node for graph in graphs for node in graph.node if node.op_type == "Constant" and node.output):
        for item in node.attribute:
            if item.name == "value":
                constants[node.output[0]] = item.t
            elif item.name in ("value_float", "value_floats", "value_int", "value_ints"):
                value = np.asarray(helper.get_attribute_value(item))
                constants[node.output[0]] = numpy_helper.from_array(
                    value.astype(np.float32 if "float" in item.name else np.int64)
                )
    return constants


def _with_half_scales(light: onnx.ModelProto, constants: dict[str, TensorProto]) -> onnx.ModelProto:
    """The model for type inference: a DQ gives its scale's type, as TensorRT has it in every opset, ONNX since 19."""
    typed = onnx.ModelProto()
    typed.CopyFrom(light)
    for node in typed.graph.node:
        scale = constants.get(node.input[1]) if node.op_type == "DequantizeLinear" and len(node.input) > 1 else None
        if scale is not None and scale.data_type == TensorProto.FLOAT16:
            node.CopyFrom(helper.make_node("Cast", node.input[:1], node.output, to=TensorProto.FLOAT16))
    return typed


def _inferred(light: onnx.ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    # Where inference fails, what the inputs say stays known, and the rules that need more are silent.
    with contextlib.suppress(shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        light = shape_inference.infer_shapes(light, data_prop=True)
    types: dict[str, int] = {}
    ranks: dict[str, int] = {}
    for graph in _graphs(light.graph):
        for item in (*graph.input, *graph.value_info, *graph.output):
            if item.type.tensor_type.elem_type:
                types[item.name] = item.type.tensor_type.elem_type
            if item.type.tensor_type.HasField("shape"):
                ranks[item.name] = len(item.type.tensor_type.shape.dim)
    return types, ranks
