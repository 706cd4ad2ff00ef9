"""Writes a quantised copy of a graph, node after node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hamr_edge.calibration.graph_index import rebuild


class QdqWriter:
    """Collects the nodes and constants of the new graph.

    Names that it makes up begin with the tensor that they belong to, so that messages and reports can be read; one that
    the network already has is changed until it is new.

    Args:
        model: The network; it is not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._scales: dict[tuple[str, str], list[str]] = {}
        self._dequantised: dict[tuple[str, str], str] = {}
        self._weights: dict[tuple[str, int], str] = {}
        graph = model.graph
        self._taken = {item.name for item in (*graph.input, *graph.initializer)}
        self._taken.update(name for node in graph.node for name in (node.name, *node.output))

    def new_name(self, name: str) -> str:
        """A name that no tensor and no node has yet: the one wanted, with underscores behind it where it is taken."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def copy(self, node: onnx.NodeProto, inputs: Sequence[str] | None = None) -> None:
        """Take over a node, with other inputs where they are given."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        if inputs is not None:
            copied.input[:] = inputs
        self._nodes.append(copied)

    def node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add a node of the new graph's own; its outputs have new names, or those of a node that it stands for."""
        name = self.new_name(f"{outputs[0]}_{kind}")
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=name, **attributes))

    def constant(self, name: str, values: NDArray[Any] | np.generic) -> str:
        """Add a constant under a new name, which begins with ``name`` and is given back."""
        made = self.new_name(name)
        self._constants[made] = numpy_helper.from_array(np.asarray(values, order="C"), made)
        return made

    def quantize(self, tensor: str, scale: np.float32, zero_point: np.generic, like: str | None = None) -> str:
        """Round a tensor and bring it back, once: the name of what comes back.

        Args:
            tensor: Its name.
            scale: Its scale, above 0.
            zero_point: Its zero point, int8 or uint8: explicit, since TensorRT and ONNX Runtime fill in different ones.
            like: Name under which scale and zero point are stored; the tensor's own when None.
        """
        kind = zero_point.dtype.name
        key = (tensor, kind)
        if key not in self._dequantised:
            stem = like or tensor
            if (stem, kind) not in self._scales:
                self._scales[stem, kind] = [
                    self.constant(f"{stem}_{kind}_scale", np.asarray(scale, np.float32)),
                    self.constant(f"{stem}_{kind}_zero_point", zero_point),
                ]
            whole, made = self.new_name(f"{tensor}_{kind}"), self.new_name(f"{tensor}_{kind}_float")
            self.node("QuantizeLinear", [tensor, *self._scales[stem, kind]], [whole])
            self.node("DequantizeLinear", [whole, *self._scales[stem, kind]], [made])
            self._dequantised[key] = made
        return self._dequantised[key]

    def weight(self, name: str, axis: int, make: Callable[[], tuple[NDArray[Any], Any]]) -> str:
        """Add weights as int8 with their scales, once for each axis: the name of the float tensor that they give.

        Args:
            name: The weights' name.
            axis: The axis of the channels; of no meaning where there is one scale.
            make: Gives the int8 weights and their scales: one for all, or (channels,).
        """
        if (name, axis) not in self._weights:
            self._weights[name, axis] = self.dequantize(name, *make(), axis)
        return self._weights[name, axis]

    def dequantize(self, name: str, whole: NDArray[Any], scale: NDArray[np.float32] | np.float32, axis: int) -> str:
        """Add whole numbers with their scales: the name of the float tensor that they give.

        Args:
            name: What they are called.
            whole: int8 weights, or an int32 bias.
            scale: One for all, or (channels,).
            axis: The axis of the channels; ignored where there is one scale.
        """
        scales = np.asarray(scale, np.float32)
        inputs = [
            self.constant(f"{name}_{whole.dtype.name}", whole),
            self.constant(f"{name}_scale", scales),
            self.constant(f"{name}_zero_point", np.zeros(scales.shape, whole.dtype)),
        ]
        made = self.new_name(f"{name}_float")
        self.node("DequantizeLinear", inputs, [made], **({"axis": axis} if scales.ndim else {}))
        return made

    def finish(self) -> onnx.ModelProto:
        """The new model: only constants that something reads stay."""
        read = {name for node in self._nodes for name in node.input} | {item.name for item in self._model.graph.output}
        kept = [item for item in self._model.graph.initializer if item.name in read]
        return rebuild(self._model, self._nodes, [*kept, *self._constants.values()])
