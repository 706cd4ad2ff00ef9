"""The values of the tensors inside a network, as ONNX Runtime computes them on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.onnx_session import import_onnxruntime

MEMORY_BOUND = 512 << 20
"""Bytes of activations held at once, unless a single crop has more."""


class Activations:
    """Runs a network and hands out tensors inside it.

    The graph is run as it is written, without optimisation, so that every tensor it names is computed.

    Attributes:
        names: The float32 tensors that are read, in the order of the graph.
    """

    def __init__(
        self, model: onnx.ModelProto, names: Sequence[str] | None = None, memory_bound: int = MEMORY_BOUND
    ) -> None:
        """Prepare a network; it is not changed.

        Args:
            model: A network with one input, uint8 (N, H, W, 3).
            names: Outputs of nodes to read; every float32 one when None.
            memory_bound: Bytes of activations to hold at once; larger batches are run in pieces.

        Raises:
            InputError: A name is no float32 output of a node, or ONNX Runtime cannot load the network.
            UnavailableError: ONNX Runtime is not installed.
        """
        self._producers = {output: node for node in model.graph.node for output in node.output if output}
        for name in names or ():
            if name not in self._producers:
                close = get_close_matches(name, self._producers, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise InputError(f"tensor {name} is no output of a node of this network{hint}")
        wanted = list(self._producers) if names is None else [name for name in self._producers if name in set(names)]
        self._session = _open_session(model, wanted)
        self._input = self._session.get_inputs()[0].name
        types = {output.name: output.type for output in self._session.get_outputs()}
        self.names = tuple(name for name in wanted if types[name] == "tensor(float)")
        if names is not None and (other := [name for name in wanted if types[name] != "tensor(float)"]):
            raise InputError(f"tensor {other[0]} must be float32, it is {types[other[0]]}")
        self._memory_bound = memory_bound
        self._rows = 0

    def describe(self, name: str) -> str:
        """A tensor with the node it comes from, for a message."""
        node = self._producers[name]
        return f"tensor {name} (output of {node.op_type} {node.name or 'without a name'})"

    def read(self, batch: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Run a batch and give each tensor in turn; a batch beyond the memory bound gives them several times over.

        Args:
            batch: (N, H, W, 3) uint8 BGR, N at least 1.

        Yields:
            A tensor's name and its values for some or all of the batch's crops.

        Raises:
            InputError: The batch is not what the network takes.
        """
        if batch.dtype != np.uint8 or batch.ndim != 4 or not len(batch):
            raise InputError(f"batch must be uint8 (N, H, W, 3) of at least one crop, got {batch.dtype} {batch.shape}")
        if not self._rows:
            crop_bytes = sum(values.nbytes for values in self._run(batch[:1]))
            self._rows = max(1, self._memory_bound // max(1, crop_bytes))
        for start in range(0, len(batch), self._rows):
            yield from zip(self.names, self._run(batch[start : start + self._rows]), strict=True)

    def _run(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        try:
            values: list[NDArray[np.float32]] = self._session.run(list(self.names), {self._input: batch})
        except Exception as error:  # ONNX Runtime raises its own types, and RuntimeError
            raise InputError(f"batch {batch.shape} cannot be run through the network: {error}") from error
        return values


def _open_session(model: onnx.ModelProto, wanted: Sequence[str]) -> Any:
    """A session whose outputs are the model's own and the wanted tensors."""
    onnxruntime = import_onnxruntime()
    own = {output.name for output in model.graph.output}
    taps = onnx.ModelProto()
    taps.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in own)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Protocol buffers merge when their bytes are joined: the outputs are added without a copy of the weights.
    content = model.SerializeToString() + taps.SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own types, and RuntimeError
        raise InputError(f"the network cannot be loaded by ONNX Runtime: {error}") from error
