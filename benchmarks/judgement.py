"""One model's verdict: what it missed, why, and what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hamr_edge.benchmarks.accuracy import Accuracy, ReferenceAccuracy
from hamr_edge.benchmarks.budgets import Budgets, budgets_of
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.contestant import ModelContestant
from hamr_edge.benchmarks.diagnosis import Cause, find_causes, judge_input
from hamr_edge.benchmarks.tensor_ranges import inspect_ranges
from hamr_edge.benchmarks.verdict import (
    doubts_of_parity,
    judge_consistency,
    judge_cross_gallery,
    judge_parity,
    judge_separation,
    judge_source,
    judge_threshold,
)
from hamr_edge.dataset import read_crop
from hamr_edge.progress import stderr_console
from hamr_edge.scored_crops import ScoredCrops
from hamr_edge.sidecar import Sidecar

_LOOKED_AT = 32
"""Crops that causes are looked for on."""
_RUN_NODE_BY_NODE = 8


@dataclass(frozen=True, slots=True)
class Judgement:
    """Sentences about one artifact; speed is judged later."""

    budgets: Budgets
    failures: tuple[str, ...]
    causes: tuple[Cause, ...]
    notes: tuple[str, ...]


def judge(
    artifact: ModelContestant,
    accuracy: Accuracy,
    reference: ModelContestant,
    expected: ReferenceAccuracy,
    sidecars: Sequence[Sidecar],
    crops: ScoredCrops,
    config: BenchConfig,
    quiet: bool = True,
) -> Judgement:
    """Hold one artifact against its budgets, and look for the cause of what it missed; opens both models for that.

    Args:
        artifact: To be judged.
        accuracy: What was measured of it.
        reference: What it is held against.
        expected: What was measured of that.
        sidecars: Of all models compared, to follow an engine to its ONNX file.
        crops: What both were measured on.
        config: With the budgets asked for.
        quiet: Do not say that a cause is looked for.
    """
    budgets = budgets_of(artifact.precision, config.budgets)
    scores = expected.retrieval.scores.summary()
    own, expected_input = artifact.backend.sidecar, reference.backend.sidecar
    images = [read_crop(path) for path in _some(crops, config.seed)]
    ranges = inspect_ranges(Path(artifact.model), own, images[:_RUN_NODE_BY_NODE])
    found = [
        *judge_source(own, expected_input, sidecars),
        *judge_input(own, expected_input),
        *judge_parity(accuracy.parity, scores, budgets, artifact.precision),
        *judge_separation(accuracy.separation, expected.retrieval.separation, budgets),
        *judge_threshold(accuracy.match_threshold, budgets),
        *ranges.failures(),
    ]
    if accuracy.batch_consistency is not None:
        found += judge_consistency(accuracy.batch_consistency, budgets)
    if accuracy.cross_gallery is not None:
        found += judge_cross_gallery(accuracy.cross_gallery, scores, budgets, artifact.precision)
    causes: tuple[Cause, ...] = ()
    if found:
        stderr_console(quiet).print(
            f"{artifact.name} failed: looking for the cause, which may take minutes", markup=False
        )
        with reference, artifact:
            causes = find_causes(artifact.backend, reference.backend, images, ranges)
    return Judgement(budgets, tuple(found), causes, (*doubts_of_parity(accuracy.parity, budgets), *ranges.notes()))


def _some(crops: ScoredCrops, seed: int) -> list[Path]:
    rows = np.random.default_rng(seed).permutation(len(crops))[:_LOOKED_AT]
    return [crops.paths[row] for row in rows]
