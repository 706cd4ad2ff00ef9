"""Pass or fail: the budgets of each precision, and a sentence for each budget that is missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.consistency import BatchConsistency
from hamr_edge.benchmarks.latency import Latency
from hamr_edge.benchmarks.parity import Parity
from hamr_edge.ranking import RetrievalScores
from hamr_edge.sidecar import Sidecar

_NORM_TOLERANCE = 5e-3
"""Rounding of a float16 graph stays well below it."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """What an artifact must keep; None is not checked."""

    min_cosine: float | None
    p01_cosine: float | None
    max_map_drop: float
    """Percentage points."""
    max_rank1_drop: float
    """Percentage points."""
    batch_cosine: float
    """The least cosine of a crop embedded in company to itself embedded alone."""
    min_speedup: float | None = None


_FP32 = Budgets(min_cosine=0.9999, p01_cosine=None, max_map_drop=0.1, max_rank1_drop=0.1, batch_cosine=0.9999)
_INT8 = Budgets(min_cosine=None, p01_cosine=0.98, max_map_drop=0.5, max_rank1_drop=0.3, batch_cosine=0.999)
DEFAULT_BUDGETS = {
    "fp32": _FP32,
    "fp16": Budgets(min_cosine=None, p01_cosine=0.999, max_map_drop=0.1, max_rank1_drop=0.1, batch_cosine=0.999),
    "int8": _INT8,
    "int8-cpu": _INT8,
}


def budgets_of(precision: str, config: BenchConfig) -> Budgets:
    """The precision's budgets, with those that the settings name in their place; an unknown precision gets fp32's."""
    asked = {
        name: value
        for name in ("min_cosine", "p01_cosine", "max_map_drop", "max_rank1_drop", "min_speedup")
        if (value := getattr(config, name)) is not None
    }
    return replace(DEFAULT_BUDGETS.get(precision, _FP32), **asked)


def judge_source(sidecar: Sidecar, reference: Sidecar, artifacts: Iterable[Sidecar]) -> Iterator[str]:
    """Is the artifact made of the reference? An engine is where its ONNX file is.

    Args:
        sidecar: The artifact's.
        reference: The reference's.
        artifacts: Sidecars of all artifacts compared, to follow an engine to its ONNX file.
    """
    sources = {artifact.artifact_sha256: artifact.source_sha256 for artifact in artifacts}
    if sidecar.engine is not None and sidecar.engine.checkpoint_sha256:
        sources.setdefault(sidecar.source_sha256, sidecar.engine.checkpoint_sha256)
    source, seen = sidecar.source_sha256, set[str]()
    while source in sources and source not in seen:
        seen.add(source)
        source = sources[source]
    if source not in (reference.source_sha256, reference.artifact_sha256):
        yield (
            f"made of another checkpoint: its sidecar names source {source[:12]}..., the reference is "
            f"{reference.source_sha256[:12]}...; export again from the reference, or name the right one"
        )


def judge_parity(parity: Parity, reference: RetrievalScores, budgets: Budgets, precision: str) -> Iterator[str]:
    """A sentence for each budget of parity and retrieval that is missed."""
    if parity.not_finite:
        yield (
            f"embeddings of {parity.not_finite} of {parity.images} crops hold NaN or infinity; "
            "a range overflows, so keep the layer before it in a wider type"
        )
    if parity.max_norm_error > _NORM_TOLERANCE:
        yield f"rows are not of unit L2 norm: one is {parity.max_norm_error:.4f} away, at most {_NORM_TOLERANCE} may be"
    if budgets.min_cosine is not None and parity.min_cosine < budgets.min_cosine:
        yield (
            f"cosine of {parity.worst_crop} to the reference is {parity.min_cosine:.6f}, below the "
            f"{budgets.min_cosine:g} that every crop must keep in {precision} (--min-cosine)"
        )
    if budgets.p01_cosine is not None and parity.p01_cosine < budgets.p01_cosine:
        yield (
            f"1st percentile of the cosine to the reference is {parity.p01_cosine:.6f}, below the "
            f"{budgets.p01_cosine:g} asked of {precision} (--p01-cosine); the worst of {parity.images} crops is "
            f"{parity.worst_crop} at {parity.min_cosine:.6f}"
        )
    # One query more or less tells nothing: a budget above 0 is at least one query's worth.
    rank1_drop = max(budgets.max_rank1_drop, 100 / parity.queries) if budgets.max_rank1_drop else 0.0
    for name, option, before, after, allowed in (
        ("rank-1", "--max-rank1-drop", reference.rank1, parity.rank1, rank1_drop),
        ("mAP", "--max-map-drop", reference.map, parity.map, budgets.max_map_drop),
    ):
        drop = 100 * (before - after)
        if drop > allowed + 1e-9:
            yield (
                f"{name} fell {drop:.2f} points, from {100 * before:.2f} to {100 * after:.2f} % "
                f"({parity.queries} queries, one is {100 / parity.queries:.2f} points); "
                f"{precision} may lose {allowed:.3g} ({option})"
            )


def judge_consistency(consistency: BatchConsistency, budgets: Budgets) -> Iterator[str]:
    """A sentence where an embedding depends on the other crops of its batch."""
    if consistency.min_cosine < budgets.batch_cosine:
        yield (
            f"rows of a batch are mixed: {consistency.worst_crop} in a batch of {consistency.worst_batch} has cosine "
            f"{consistency.min_cosine:.6f} to itself alone, below {budgets.batch_cosine:g}"
        )


def judge_speed(latency: Iterable[Latency], budgets: Budgets) -> Iterator[str]:
    """A sentence for each batch size that is slower than asked."""
    for measured in latency:
        speedup = measured.speedup
        if budgets.min_speedup is not None and speedup is not None and speedup.median < budgets.min_speedup:
            yield (
                f"batch {measured.batch}: {speedup.median:.2f} x the reference's speed ({speedup.low:.2f} to "
                f"{speedup.high:.2f}), below {budgets.min_speedup:g} (--min-speedup)"
            )
