"""The int8 scales of an ONNX graph: what each can hold, what feeds it, and which contradict each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INTEGERS = ("int8", "uint8", "int16", "uint16")
_SAME = 0.02
"""A float16 scale is right to 0.1 %."""


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """An activation that a QuantizeLinear rounds."""

    name: str
    """Of the tensor before."""
    output: str
    node: str
    scale: str
    low: NDArray[np.float64]
    """(1,) or (C,): the least value that the scale can hold, 0 or below."""
    high: NDArray[np.float64]
    """The largest."""
    axis: int

    def along_axis(self, limit: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
        """A limit in a shape that goes with the tensor's values."""
        if limit.size == 1:
            return limit.reshape(1)
        shape = [1] * dimensions
        shape[self.axis] = limit.size
        return limit.reshape(shape)


class Constants:
    """The constants of a graph by name; read when they are asked for."""

    def __init__(self, model: Any, artifact: Path) -> None:
        self._tensors = {item.name: item for item in model.graph.initializer}
        self._initializers = set(self._tensors)
        for node in model.graph.node:
            if node.op_type == "Constant":
                tensors = [entry.t for entry in node.attribute if entry.name == "value"]
                self._tensors.update((node.output[0], tensor) for tensor in tensors)
        self._folder = artifact.parent

    def has_inputs(self, names: Iterable[str]) -> bool:
        """Whether all of these are initializers, whose values a session can take as inputs."""
        return all(name in self._initializers for name in names)

    @property
    def names(self) -> set[str]:
        """All of them."""
        return set(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> NDArray[Any]:
        from onnx import numpy_helper

        array: NDArray[Any] = numpy_helper.to_array(self._tensors[name], str(self._folder))
        return array

    def type_name(self, name: str) -> str:
        """The dtype, without reading the values."""
        from onnx import helper

        return str(helper.tensor_dtype_to_np_dtype(self._tensors[name].data_type).name)


def quantized_tensors(model: Any, artifact: Path) -> list[QuantizedTensor]:
    """The activations that are rounded to 8 or 16 bits with constant scales, in the graph's order."""
    values = Constants(model, artifact)
    found = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in values or node.input[1] not in values:
            continue
        scale = values[node.input[1]].astype(np.float64).reshape(-1)
        zero = values[node.input[2]] if len(node.input) > 2 and node.input[2] in values else np.zeros(1, np.uint8)
        if zero.dtype.name not in _INTEGERS:
            continue
        ends = np.iinfo(zero.dtype)
        offset = zero.astype(np.float64).reshape(-1)
        axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
        low, high = (ends.min - offset) * scale, (ends.max - offset) * scale
        found.append(
            QuantizedTensor(node.input[0], node.output[0], node.name or node.output[0], node.input[1], low, high, axis)
        )
    return found


def contradictions(model: Any, artifact: Path) -> tuple[str, ...]:
    """Scales that cannot both be right: a Q's and its DQ's, or a bias's and those of what it is added to."""
    values = Constants(model, artifact)
    makers = {output: node for node in model.graph.node for output in node.output}
    found = [*_unequal_pairs(model, values, makers), *_unequal_biases(model, values, makers)]
    return tuple(found)


def weight_scales_before(model: Any, tensor: str, artifact: Path) -> list[str]:
    """Names of the scales of the weights that make a tensor out of the nearest rounded tensors before it."""
    values = Constants(model, artifact)
    makers = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, None] = {}
    waiting, seen = [tensor], {tensor}
    while waiting:
        node = makers.get(waiting.pop())
        if node is None:
            continue
        if node.op_type == "DequantizeLinear":
            if node.input[0] in values and values.type_name(node.input[0]) in _INTEGERS and node.input[1] in values:
                found[node.input[1]] = None
            continue  # what a Q made: the scales before that are another tensor's affair
        for name in node.input:
            if name and name not in seen:
                seen.add(name)
                waiting.append(name)
    return list(found)


def scales_of_tensor(model: Any, tensor: str) -> list[str]:
    """Names of the scales that an activation is rounded and restored with, that of the rounding first."""
    rounding = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == tensor]
    outputs = {node.output[0] for node in rounding}
    restoring = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in outputs]
    return list(dict.fromkeys(node.input[1] for node in (*rounding, *restoring)))


def _unequal_pairs(model: Any, values: Constants, makers: dict[str, Any]) -> Iterator[str]:
    for node in model.graph.node:
        before = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if before is None or before.op_type != "QuantizeLinear":
            continue
        if node.input[1] == before.input[1] or not {node.input[1], before.input[1]} <= values.names:
            continue
        factor = _factor(values[node.input[1]], values[before.input[1]])
        if factor is not None:
            yield (
                f"{before.input[0]} is rounded with the scale {before.input[1]} and restored with {node.input[1]}, "
                f"which is {factor:.4g} times as large; the two must be equal"
            )


def _unequal_biases(model: Any, values: Constants, makers: dict[str, Any]) -> Iterator[str]:
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm") or len(node.input) < 3:
            continue
        made = [makers.get(name) for name in node.input[:3]]
        if any(maker is None or maker.op_type != "DequantizeLinear" for maker in made):
            continue
        scales = [maker.input[1] for maker in made if maker is not None]
        if not set(scales) <= values.names:
            continue
        crops, weight, bias = (values[name].astype(np.float64).reshape(-1) for name in scales)
        if crops.size == 1 and weight.size in (1, bias.size):
            factor = _factor(crops * weight * np.ones_like(bias), bias)
            if factor is not None:
                yield (
                    f"{node.output[0]} adds a bias with the scale {scales[2]} to products with the scales {scales[0]} "
                    f"and {scales[1]}, whose product is {factor:.4g} times as large; they must be equal"
                )


def _factor(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """How many times the one is the other where they differ most; None where they are equal."""
    if first.size != second.size:
        return None
    ratio = np.divide(first, second, out=np.ones(first.size, np.float64), where=(second != 0).reshape(-1)).reshape(-1)
    worst = float(ratio[np.argmax(np.abs(np.log(np.maximum(ratio, 1e-30))))])
    return worst if abs(worst - 1) > _SAME else None
