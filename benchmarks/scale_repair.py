"""Which int8 scale is wrong? Suspects are given other values, and the one that brings the embeddings back is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.benchmarks.inner_tensors import open_inner_tensors, read_model
from hamr_edge.benchmarks.parity import finite_rows, row_cosines
from hamr_edge.benchmarks.scale_table import Constants, scales_of_tensor, weight_scales_before
from hamr_edge.benchmarks.tensor_ranges import MisfitScale

_USUAL_REACH = 0.75
"""Of good networks, the largest value is about this share of what its scale can hold."""
_NEAR_STEPS = (0.5, 0.7, 0.85, 1.2, 1.4, 2.0)
_GUESS = 8.0
_FAR_STEPS = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0, 8.0, 12.5)


@dataclass(frozen=True, slots=True)
class ScaleRepair:
    """A scale that, given another value, brings the artifact nearer to the reference than any other suspect."""

    scale: str
    factor: float
    """What it must be multiplied by."""
    before: float
    """Mean cosine to the reference as the file is."""
    after: float


def repair_misfit(
    artifact: Path, misfit: MisfitScale, batch: NDArray[np.uint8], expected: NDArray[np.float32]
) -> ScaleRepair | None:
    """Try other values for the scale that does not fit, and for those of the weights that feed it.

    Args:
        artifact: The ``.onnx`` file.
        misfit: The first scale in the graph that does not fit.
        batch: (N, H, W, 3) uint8 crops at the network's size.
        expected: (N, D) float32 of the reference for the same crops.

    Returns:
        The best that was found; None where nothing could be tried.
    """
    model = read_model(artifact)
    growth = misfit.reach / _USUAL_REACH
    suspects = [
        (tuple(scales_of_tensor(model, misfit.tensor)), growth),
        *(((name,), 1 / growth) for name in weight_scales_before(model, misfit.tensor, artifact)),
    ]
    return _try(artifact, model, suspects, _NEAR_STEPS, batch, expected)


def repair_any_weight(artifact: Path, batch: NDArray[np.uint8], expected: NDArray[np.float32]) -> ScaleRepair | None:
    """Try other values for each weight's scale: where a branch comes out too small beside another, no range shows it.

    Args:
        artifact: The ``.onnx`` file.
        batch: (N, H, W, 3) uint8 crops at the network's size; few, for a network has many weights.
        expected: (N, D) float32 of the reference for the same crops.

    Returns:
        The best that was found; None where nothing could be tried.
    """
    model = read_model(artifact)
    names = [name for node in model.graph.node for name in weight_scales_before(model, node.output[0], artifact)]
    suspects = [((name,), factor) for name in dict.fromkeys(names) for factor in (_GUESS, 1 / _GUESS)]
    return _try(artifact, model, suspects, _FAR_STEPS, batch, expected)


def _try(
    artifact: Path,
    model: Any,
    suspects: Sequence[tuple[tuple[str, ...], float]],
    steps: Sequence[float],
    batch: NDArray[np.uint8],
    expected: NDArray[np.float32],
) -> ScaleRepair | None:
    """Try a factor for each suspect, and more for the best of them."""
    constants = Constants(model, artifact)
    suspects = [(names, factor) for names, factor in suspects if names and constants.has_inputs(names)]
    if not suspects:
        return None
    changeable = list(dict.fromkeys(name for names, _ in suspects for name in names))
    with open_inner_tensors(artifact, model, [], changeable) as session:

        def score(names: tuple[str, ...], factor: float) -> float:
            changed = {name: np.asarray(constants[name] * factor, constants[name].dtype) for name in names}
            (embeddings,) = session.run(batch, ["embeddings"], changed)
            return float(row_cosines(expected, finite_rows(embeddings)[1]).mean())

        tried = [(score(names, factor), names, factor) for names, factor in suspects]
        _, names, guess = max(tried)
        tried += [(score(names, guess * step), names, guess * step) for step in steps]
        after, names, factor = max(tried)
        return ScaleRepair(names[0], factor, score((), 1.0), after)
