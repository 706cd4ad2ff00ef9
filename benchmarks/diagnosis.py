"""Why an artifact differs from its reference: known faults are tried out, and the one that explains it is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.benchmarks.input_faults import INPUT_FAULTS, input_faults
from hamr_edge.benchmarks.parity import finite_rows, nearest_neighbours, row_cosines
from hamr_edge.benchmarks.resize_rules import RESIZE_RULES
from hamr_edge.benchmarks.scale_repair import ScaleRepair, repair_any_weight, repair_misfit
from hamr_edge.benchmarks.tensor_ranges import MisfitScale, RangeFindings
from hamr_edge.evaluation import embed_images
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import Sidecar

ROWS, RESIZE, SCALE, OVERFLOW, WEIGHTS = (
    "rows mixed",
    "another resize",
    "broken scale",
    "float16 overflow",
    "other weights",
)
FAULTS = (ROWS, *INPUT_FAULTS, RESIZE, SCALE, OVERFLOW, WEIGHTS)
_EXPLAINS = 0.8
"""Share of the way to a cosine of 1 that a fault must account for."""
_CONFIRMS = 0.3
"""As much for a scale whose range does not fit, which is evidence already; int8 leaves a distance of its own."""
_SMALL = 1e-4
"""What needs no explaining."""
_SAME = 0.999
_TRIED_ON = 16
_REPAIRED_ON = 4
_SEARCHED_ON = 2
_EXACT = 0.99
"""Below it, rounding to float16 does not explain a mean cosine."""
_UNRELATED = 0.5
"""Below it, what tells crops apart points elsewhere: rounding to int8 does not do that."""
Images = Sequence[NDArray[np.uint8]]
Embeddings = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Cause:
    """A fault that explains what was measured."""

    fault: str
    """One of ``FAULTS``."""
    sentence: str
    """What was found, the numbers that show it, and what to do."""


def find_causes(backend: Backend, reference: Backend, images: Images, ranges: RangeFindings) -> tuple[Cause, ...]:
    """Try known faults out on some crops, and name those that explain the difference.

    A fault of the input is named if crops that undo it bring the mean cosine 80 % of the way to 1, and further than any
    other such fault; a resize if the artifact agrees better with crops that are resized already; a scale if another
    value for it does as much. Nothing is named for a loss that none of this explains, unless the embeddings are
    unrelated to the reference's: then other weights are what remains.

    Args:
        backend: Of the artifact, open.
        reference: Open. Of another embedding width, only what needs no comparison is looked at.
        images: (H, W, 3) uint8 BGR crops of any size, 8 or more.
        ranges: What flows through the artifact.
    """
    causes = [*_of_overflow(ranges)]
    if rows := _of_rows(backend, images):
        causes.append(rows)
    if backend.sidecar.embedding_dim != reference.sidecar.embedding_dim:
        return (*causes, *_of_contradictions(ranges))
    images = images[:_TRIED_ON]
    trial = _Trial(backend, reference, images, alone=rows is not None)
    explained = [*_of_input(trial), *_of_resize(trial)]
    if not explained:  # values that a wrong input makes do not fit the scales either
        explained = [*_of_scales(trial, ranges)]
    if not explained and not causes:
        explained = [*_of_weights(trial)]
    return (*causes, *explained)


def judge_input(sidecar: Sidecar, reference: Sidecar) -> Iterator[str]:
    """A sentence for each way in which the two models take a crop differently, by their sidecars."""
    for what, own, expected in (
        ("crops of (height, width)", sidecar.input_size_hw, reference.input_size_hw),
        ("crops resized by", sidecar.resize, reference.resize),
    ):
        if own and expected and own != expected:
            yield f"wrong input: it takes {what} {own}, the reference {expected}; export again from the reference"
    if sidecar.resize and reference.resize:  # a sidecar that states no resize states no mean either
        for what, own_values, expected_values in (
            ("mean", sidecar.mean, reference.mean),
            ("deviation", sidecar.std, reference.std),
        ):
            if not np.allclose(own_values, expected_values, atol=1e-4):
                yield (
                    f"wrong input: it is normalised with the {what} {_listed(own_values)} ({sidecar.color_order}), the "
                    f"reference with {_listed(expected_values)}; export again from the reference"
                )


class _Trial:
    """Both models and the crops that faults are tried on."""

    def __init__(self, backend: Backend, reference: Backend, images: Images, alone: bool) -> None:
        self.backend, self.reference, self.images = backend, reference, images
        self._alone = alone
        self.own_crops = stack_crops(images, backend.sidecar.input_size_hw)
        self.crops = stack_crops(images, reference.sidecar.input_size_hw)
        self.own, self.expected = self.embed(backend, self.own_crops), self.embed(reference, self.crops)
        self.base = _mean_cosine(self.own, self.expected)

    def embed(self, backend: Backend, batch: NDArray[np.uint8]) -> Embeddings:
        """Embed crops at the network's size; one by one where rows are mixed, not to hide what else is wrong."""
        batch = np.ascontiguousarray(batch)
        if not self._alone:
            return finite_rows(backend.infer(batch))[1]
        return finite_rows(np.concatenate([backend.infer(batch[[row]]) for row in range(len(batch))]))[1]


def _of_overflow(ranges: RangeFindings) -> Iterator[Cause]:
    if ranges.overflows:
        yield Cause(OVERFLOW, next(ranges.failures()))


def _of_rows(backend: Backend, images: Images) -> Cause | None:
    """Do crops come out otherwise in company?"""
    count = min(len(images), backend.sidecar.max_batch)
    if count < 2:
        return None
    batch = stack_crops(images[:count], backend.sidecar.input_size_hw)
    alone = finite_rows(np.concatenate([backend.infer(batch[[row]]) for row in range(count)]))[1]
    together = finite_rows(backend.infer(batch))[1]
    cosines = row_cosines(alone, together)
    if cosines.min() >= _SAME:
        return None
    nearest = np.argmax(together @ alone.T, axis=1)
    moved = row_cosines(alone[nearest], together).min() >= _SAME and len(set(nearest.tolist())) == count
    what = "the rows come out in another order" if moved else "a row depends on the other crops of its batch"
    return Cause(
        ROWS,
        f"{what}: in a batch of {count} the cosine to the same crop alone falls to {cosines.min():.4f}, in the mean to "
        f"{cosines.mean():.4f}; look for an operation over the batch axis, and export again",
    )


def _of_input(trial: _Trial) -> Iterator[Cause]:
    """The fault of the input that explains most, if it explains enough."""
    if 1 - trial.base <= _SMALL:
        return
    found = []
    for fault in input_faults(trial.reference.sidecar):
        own = trial.embed(trial.backend, fault.for_artifact(trial.own_crops))
        expected = trial.embed(trial.reference, fault.for_reference(trial.crops))
        found.append((_mean_cosine(own, expected), fault))
    cosine, best = max(found, key=lambda tried: tried[0])
    if cosine - trial.base >= _EXPLAINS * (1 - trial.base):
        yield Cause(
            best.fault,
            f"{best.words}. Given {best.shown}, the mean cosine of {len(trial.images)} crops to the reference goes "
            f"from {trial.base:.4f} to {cosine:.4f}",
        )


def _of_resize(trial: _Trial) -> Iterator[Cause]:
    """Does the frame form resize as it should? Crops that need no resizing show what is not the resize's fault."""
    if trial.backend.sidecar.form != "frame":
        return
    # Each second one three times as large, so that resizing is tried both ways.
    images = [_enlarged(image) if row % 2 else image for row, image in enumerate(trial.images)]
    own = finite_rows(np.concatenate([embed_images(trial.backend, [image]) for image in images]))[1]
    size_hw = trial.reference.sidecar.input_size_hw
    expected = trial.embed(trial.reference, stack_crops(images, size_hw))
    ready = _mean_cosine(trial.embed(trial.backend, stack_crops(images, trial.backend.sidecar.input_size_hw)), expected)
    base = _mean_cosine(own, expected)
    gap = ready - base
    if gap <= max(_SMALL, 0.2 * (1 - base)):
        return
    by_rule = {}
    for name, resize in RESIZE_RULES.items():
        by_rule[name] = _mean_cosine(
            own, trial.embed(trial.reference, np.stack([resize(image, size_hw) for image in images]))
        )
    best = max(by_rule, key=lambda name: by_rule[name])
    seen = (
        f"crops that are at the network's size already have a mean cosine of {ready:.4f} to the reference, the same "
        f"crops resized inside the graph {base:.4f}"
    )
    if by_rule[best] - base >= _EXPLAINS * gap:
        yield Cause(
            RESIZE,
            f"the graph resizes another way: {seen}; it is {by_rule[best]:.4f} if the reference's crops are resized by "
            f"{best}. The rule is {trial.reference.sidecar.resize or 'bilinear'}; export the frame form again",
        )
    else:
        yield Cause(
            RESIZE,
            f"the graph cuts or resizes another way: {seen}; of {len(by_rule)} rules that were tried, "
            f"{best} comes nearest, at {by_rule[best]:.4f}, not near enough to name it. Export the frame form again",
        )


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), np.uint8)


def _of_scales(trial: _Trial, ranges: RangeFindings) -> Iterator[Cause]:
    if ranges.artifact is None:
        return
    crops, expected = trial.own_crops[:_REPAIRED_ON], trial.expected[:_REPAIRED_ON]
    if not ranges.scales:
        if ranges.quantized_tensors and not ranges.contradictions and trial.base < _EXACT:
            repair = repair_any_weight(ranges.artifact, crops[:_SEARCHED_ON], expected[:_SEARCHED_ON])
            if _repairs(repair, _EXPLAINS):
                yield Cause(SCALE, f"{_told(repair, _SEARCHED_ON)}. Calibrate again")
        yield from _of_contradictions(ranges)
        return
    first = ranges.scales[0]
    more = f"; {len(ranges.scales) - 1} later ones do not fit either" if len(ranges.scales) > 1 else ""
    found = f"the int8 scale of {first.tensor} does not fit: {_misfit(first, ranges.crops)}{more}"
    repair = repair_misfit(ranges.artifact, first, crops, expected)
    if _repairs(repair, _CONFIRMS):
        yield Cause(SCALE, f"{_told(repair, len(crops))}. It showed because {found}. Calibrate again")
    elif ranges.contradictions:
        yield from _of_contradictions(ranges)
    elif 1 - trial.base > _SMALL:
        yield Cause(
            SCALE,
            f"{found}. No other value for it, or for a weight's scale just before it, brings the reference's "
            "embeddings back: more than one is wrong, or the network is fed with what it was not calibrated on; "
            "calibrate again",
        )


def _repairs(repair: ScaleRepair | None, share: float) -> TypeGuard[ScaleRepair]:
    return repair is not None and repair.after - repair.before >= share * (1 - repair.before)


def _told(repair: ScaleRepair, crops: int) -> str:
    return (
        f"the scale {repair.scale} is wrong: with {repair.factor:.2g} times its value, the mean cosine of {crops} "
        f"crops to the reference goes from {repair.before:.4f} to {repair.after:.4f}"
    )


def _of_contradictions(ranges: RangeFindings) -> Iterator[Cause]:
    if ranges.contradictions:
        more = f" ({len(ranges.contradictions) - 1} pairs more)" if len(ranges.contradictions) > 1 else ""
        yield Cause(SCALE, f"scales contradict each other: {ranges.contradictions[0]}{more}; calibrate again")


def _misfit(scale: MisfitScale, crops: int) -> str:
    if scale.reach > 1:
        what = (
            f"{100 * scale.clipped:.2g} % of its values are cut off, the largest is {scale.reach:.1f} times what fits"
        )
    else:
        what = f"its largest value is {100 * scale.reach:.2g} % of what fits, so few of the steps are used"
    return f"{what} ({scale.node}, {scale.scale}, up to {scale.limit:.4g}, {crops} crops)"


def _of_weights(trial: _Trial) -> Iterator[Cause]:
    """What remains where the embeddings are unrelated, or differ by more than a wide precision explains."""
    centred = _mean_cosine(_centred(trial.own), _centred(trial.expected))
    is_integer = trial.backend.sidecar.precision.startswith("int8")
    differs = centred < _UNRELATED if is_integer else trial.base < _EXACT
    if not differs or not _tells_apart(trial.own):
        return
    before, after = (nearest_neighbours(rows, 1)[:, 0] for rows in (trial.expected, trial.own))
    yield Cause(
        WEIGHTS,
        f"most likely the weights of another checkpoint or epoch: the mean cosine of {len(trial.images)} crops to the "
        f"reference is {trial.base:.4f} ({centred:.4f} without what all crops have in common), "
        f"{int(np.sum(before == after))} of them have the same nearest crop, and none of the known faults of input, "
        "resize, batch and scales explains it; export again from the reference",
    )


def _mean_cosine(first: Embeddings, second: Embeddings) -> float:
    return float(row_cosines(first, second).mean())


def _centred(rows: Embeddings) -> Embeddings:
    return np.asarray(rows - rows.mean(axis=0), np.float32)


def _tells_apart(rows: Embeddings) -> bool:
    """Whether crops come out different at all."""
    return bool(np.mean(rows @ rows.T) < _SAME)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
