"""What values the tensors inside a network take: extremes and histograms over calibration crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from hamr_edge.calibration.activations import MEMORY_BOUND, Activations
from hamr_edge.errors import InputError
from hamr_edge.progress import progress_bar

BINS = 2048
"""Bins of a histogram, as many as NVIDIA's description of entropy calibration has (Migacz, GTC 2017, S7310)."""
_CHUNK = 1 << 16  # values binned at once: their temporary arrays stay in the cache


@dataclass(frozen=True, slots=True)
class TensorRange:
    """The values that one tensor took."""

    low: float
    high: float
    histogram: NDArray[np.int64]
    """(2048,) counts of the absolute values in equal bins over [0, maximum]."""

    @property
    def maximum(self) -> float:
        """The largest absolute value."""
        return max(abs(self.low), abs(self.high))


def measure_extremes(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[np.uint8]],
    quiet: bool = True,
    memory_bound: int = MEMORY_BOUND,
) -> dict[str, tuple[float, float]]:
    """Find the smallest and largest value of every float32 tensor that a node of the graph puts out.

    Args:
        model: A network with one input, uint8 (N, H, W, 3); it is not changed.
        batches: (N, H, W, 3) uint8 BGR crops.
        quiet: Show no progress.
        memory_bound: Bytes of activations to hold at once; larger batches are run in pieces.

    Returns:
        (low, high) of each tensor, in the order of the graph.

    Raises:
        InputError: There is no batch, one is not what the network takes, or a tensor holds NaN or infinity.
    """
    activations = Activations(model, None, memory_bound)
    return _find_extremes(activations, list(batches), quiet)


def measure_ranges(
    model: onnx.ModelProto,
    names: Sequence[str],
    batches: Iterable[NDArray[np.uint8]],
    quiet: bool = True,
    memory_bound: int = MEMORY_BOUND,
) -> dict[str, TensorRange]:
    """Measure extremes and histograms of the named tensors: two passes, as the bins need the extremes.

    Args:
        model: A network with one input, uint8 (N, H, W, 3); it is not changed.
        names: float32 tensors that nodes put out.
        batches: (N, H, W, 3) uint8 BGR crops.
        quiet: Show no progress.
        memory_bound: Bytes of activations to hold at once; larger batches are run in pieces.

    Returns:
        The range of each named tensor, in the order of the graph.

    Raises:
        InputError: A name is not in the network, there is no batch, one is not what the network takes, or a tensor
            holds NaN or infinity.
    """
    activations = Activations(model, names, memory_bound)
    batches = list(batches)
    ranges = {
        name: TensorRange(low, high, np.zeros(BINS, np.int64))
        for name, (low, high) in _find_extremes(activations, batches, quiet).items()
    }

    def count(name: str, values: NDArray[np.float32], _: str) -> None:
        _count(values, ranges[name].maximum, ranges[name].histogram)

    _for_each_tensor(activations, batches, count, "histograms", quiet)
    return ranges


def _find_extremes(
    activations: Activations, batches: list[NDArray[np.uint8]], quiet: bool
) -> dict[str, tuple[float, float]]:
    extremes = dict.fromkeys(activations.names, (np.inf, -np.inf))

    def widen(name: str, values: NDArray[np.float32], where: str) -> None:
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())  # NaN comes through both
        if not (np.isfinite(low) and np.isfinite(high)):
            what = "NaN" if np.isnan(low) else "infinity"
            raise InputError(
                f"{activations.describe(name)} holds {what} in calibration {where}; "
                "the network overflows or is broken: check it in float32 first"
            )
        extremes[name] = (min(extremes[name][0], low), max(extremes[name][1], high))

    _for_each_tensor(activations, batches, widen, "ranges", quiet)
    return {name: (low, high) if low <= high else (0.0, 0.0) for name, (low, high) in extremes.items()}


def _for_each_tensor(
    activations: Activations,
    batches: list[NDArray[np.uint8]],
    visit: Callable[[str, NDArray[np.float32], str], None],
    description: str,
    quiet: bool,
) -> None:
    """Call ``visit`` with each tensor's name, its values and which batch they are of."""
    if not batches:
        raise InputError("calibration needs at least one batch of crops, got none")
    with progress_bar(quiet) as progress:
        task = progress.add_task(description, total=len(batches), note="")
        for number, batch in enumerate(batches, start=1):
            for name, values in activations.read(batch):
                visit(name, values, f"batch {number} of {len(batches)}")
            progress.advance(task)


def _count(values: NDArray[np.float32], maximum: float, histogram: NDArray[np.int64]) -> None:
    """Add absolute values to the bins of a histogram over [0, maximum]; an empty range has one bin, the first."""
    flat = values.reshape(-1)
    divisor = np.float32(maximum or 1.0)
    for start in range(0, flat.size, _CHUNK):
        scaled = np.abs(flat[start : start + _CHUNK])
        scaled /= divisor  # a division, as the inverse of a tiny maximum is infinite
        scaled *= BINS
        np.minimum(scaled, BINS - 1, out=scaled)
        histogram += np.bincount(scaled.astype(np.intp), minlength=BINS)
