"""What flows through an ONNX graph: float16 tensors that overflow, and int8 scales that do not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.benchmarks.inner_tensors import open_inner_tensors, read_model
from hamr_edge.benchmarks.scale_table import QuantizedTensor, contradictions, quantized_tensors
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import Sidecar

LARGEST_HALF = 65504.0
"""The largest finite float16 (IEEE 754-2008, binary16)."""
_NEAR = 4.0
_CLIPPED = 0.01
"""Calibrators clip the few largest values on purpose: of good networks 1 in 400 of a tensor's, or fewer."""
_TOO_FAR = 4.0
"""Of good networks, the largest value is up to 2.8 times what the scale can hold."""
_UNUSED = 0.2
"""Of good networks, the largest value is 0.4 of what the scale can hold, or more."""


@dataclass(frozen=True, slots=True)
class TensorOverflow:
    """A float16 tensor that goes beyond what float16 holds, or comes near it."""

    tensor: str
    made_by: str
    """Operator and name of the node."""
    crops: int
    """Crops in which it holds infinity or NaN; 0 where it only comes near."""
    largest: float
    """The largest finite value, without its sign."""


@dataclass(frozen=True, slots=True)
class MisfitScale:
    """A quantised tensor whose scale does not fit its values."""

    tensor: str
    node: str
    """Name of the QuantizeLinear, or of its output where it has none."""
    scale: str
    """Name of the scale."""
    limit: float
    """The largest value that the scale can hold, without its sign."""
    clipped: float
    """Share of the values that the scale cannot hold."""
    reach: float
    """The largest value over the largest that the scale can hold."""


@dataclass(frozen=True, slots=True)
class RangeFindings:
    """In the graph's order, the first first: what comes later may follow from it."""

    crops: int = 0
    artifact: Path | None = None
    """Where it was found; None where nothing was looked at."""
    overflows: tuple[TensorOverflow, ...] = ()
    near: tuple[TensorOverflow, ...] = ()
    """Tensors that come within a factor of 4 of overflowing."""
    scales: tuple[MisfitScale, ...] = ()
    contradictions: tuple[str, ...] = ()
    """Scales that cannot both be right, whatever flows, in words."""
    not_looked_at: str = ""
    """Why nothing, or not all, was looked at; empty where all was."""
    half_tensors: int = 0
    """How many float16 tensors were looked at."""
    quantized_tensors: int = 0
    """How many QuantizeLinear were looked at."""

    def notes(self) -> Iterator[str]:
        """A sentence on what was not looked at, and on what other crops may make overflow."""
        if self.not_looked_at:
            yield self.not_looked_at
        if self.near and not self.overflows:
            nearest = max(self.near, key=lambda tensor: tensor.largest)
            yield (
                f"float16 comes near its end: {nearest.tensor} ({nearest.made_by}) reaches {nearest.largest:.0f} of "
                f"{LARGEST_HALF:.0f} in {self.crops} crops; others may overflow"
            )

    def failures(self) -> Iterator[str]:
        """A sentence for an overflow: it is a fault whatever the embeddings look like on a CPU."""
        if self.overflows:
            first = self.overflows[0]
            more = _more(len(self.overflows), "tensors after it overflow too")
            yield (
                f"float16 overflows: {first.tensor} ({first.made_by}) goes beyond {LARGEST_HALF:.0f} in {first.crops} "
                f"of {self.crops} crops{more}; a GPU makes infinity of it, and ONNX Runtime's CPU kernels, which "
                f"compute in float32, hide it: keep this node in float32"
            )


def inspect_ranges(artifact: Path, sidecar: Sidecar, images: Sequence[NDArray[np.uint8]]) -> RangeFindings:
    """Run crops through an ``.onnx`` on the CPU, node by node, and look at what flows.

    A float16 tensor is looked at as float16, also where ONNX Runtime has no float16 kernel and would compute with wider
    values. One crop is run at a time.

    Args:
        artifact: Of any kind; only an ``.onnx`` with float16 or Q/DQ is looked into.
        sidecar: Its own.
        images: (H, W, 3) uint8 BGR crops of any size; a handful tells enough.

    Returns:
        What was found; nothing, and why, where the onnx package is not installed or the graph cannot be opened up.
    """
    path = Path(artifact)
    if path.suffix != ".onnx":
        hidden = path.suffix == ".engine" and sidecar.precision != "fp32"
        words = "ranges inside an engine cannot be looked at; name the .onnx it was built from beside it"
        return RangeFindings(not_looked_at=words if hidden else "")
    try:
        import onnx
    except ImportError:
        return RangeFindings(
            not_looked_at="float16 overflow and int8 scales were not looked for: onnx is not installed; "
            "pip install 'hamr-edge[onnx]'"
        )
    model = read_model(path)
    if not _is_narrow(onnx, model):
        return RangeFindings()
    halves, quantized = _half_tensors(onnx, model), quantized_tensors(model, path)
    found = contradictions(model, path)
    if not (halves or quantized) or len(images) == 0:
        return RangeFindings(artifact=path, contradictions=found)
    names = list(dict.fromkeys([*halves, *(tensor.name for tensor in quantized)]))
    seen = _Seen(halves, quantized)
    try:
        with open_inner_tensors(path, model, names) as session:
            for image in images:
                crops = stack_crops([image], sidecar.input_size_hw)
                seen.add(dict(zip(names, session.run(crops, names), strict=True)))
    except Exception as error:  # ONNX Runtime raises its own types; a report without this part is worth having
        return RangeFindings(not_looked_at=f"float16 overflow and int8 scales were not looked for: {error}")
    makers = {output: f"{node.op_type} {node.name}".strip() for node in model.graph.node for output in node.output}
    return seen.findings(path, makers, found)


class _Seen:
    """What the crops so far showed."""

    def __init__(self, halves: Sequence[str], quantized: Sequence[QuantizedTensor]) -> None:
        self._halves, self._quantized = halves, quantized
        self._infinite = dict.fromkeys(halves, 0)
        self._largest = dict.fromkeys(halves, 0.0)
        self._clipped = dict.fromkeys((tensor.output for tensor in quantized), 0.0)
        self._reach = dict(self._clipped)
        self._crops = 0

    def add(self, flowing: dict[str, NDArray[Any]]) -> None:
        self._crops += 1
        for name in self._halves:
            finite = np.isfinite(flowing[name])
            self._infinite[name] += not finite.all()
            self._largest[name] = max(
                self._largest[name], float(np.max(np.abs(flowing[name]), initial=0, where=finite))
            )
        for tensor in self._quantized:
            values = np.nan_to_num(flowing[tensor.name].astype(np.float32))
            if values.size == 0:
                continue
            low, high = (tensor.along_axis(limit, values.ndim) for limit in (tensor.low, tensor.high))
            reach = np.where(values > 0, values / np.maximum(high, 1e-30), values / np.minimum(low, -1e-30))
            if not low.all():  # unsigned without a zero point: values below it are cut on purpose
                reach = np.where((values < 0) & (low == 0), 0, reach)
            self._clipped[tensor.output] += float(np.mean(reach > 1.01))
            self._reach[tensor.output] = max(self._reach[tensor.output], float(reach.max()))

    def findings(self, artifact: Path, makers: dict[str, str], found: tuple[str, ...]) -> RangeFindings:
        tensors = [
            TensorOverflow(name, makers[name], self._infinite[name], self._largest[name]) for name in self._halves
        ]
        misfits = [
            MisfitScale(
                tensor.name,
                tensor.node,
                tensor.scale,
                float(max(tensor.high.max(), -tensor.low.min())),
                self._clipped[tensor.output] / self._crops,
                self._reach[tensor.output],
            )
            for tensor in self._quantized
        ]
        return RangeFindings(
            crops=self._crops,
            artifact=artifact,
            overflows=tuple(tensor for tensor in tensors if tensor.crops),
            near=tuple(tensor for tensor in tensors if not tensor.crops and tensor.largest > LARGEST_HALF / _NEAR),
            scales=tuple(
                misfit
                for misfit in misfits
                # A tensor of zeros says nothing about its scale: what rounds to zero does so before it.
                if misfit.clipped > _CLIPPED or misfit.reach > _TOO_FAR or 0 < misfit.reach < _UNUSED
            ),
            contradictions=found,
            half_tensors=len(tensors),
            quantized_tensors=len(misfits),
        )


def _is_narrow(onnx: Any, model: Any) -> bool:
    """Whether anything is float16 or quantised."""
    half = onnx.TensorProto.FLOAT16
    return any(item.data_type == half for item in model.graph.initializer) or any(
        node.op_type == "QuantizeLinear"
        or (node.op_type == "Cast" and any(entry.name == "to" and entry.i == half for entry in node.attribute))
        for node in model.graph.node
    )


def _half_tensors(onnx: Any, model: Any) -> list[str]:
    """Names of the float16 tensors that nodes make, in the graph's order; those just dequantised hold what int8 can."""
    typed = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
    return [
        output
        for node in model.graph.node
        if node.op_type not in ("DequantizeLinear", "Constant", "Identity")
        for output in node.output
        if types.get(output) == onnx.TensorProto.FLOAT16
    ]


def _more(count: int, words: str) -> str:
    return f" ({count - 1} {words})" if count > 1 else ""
