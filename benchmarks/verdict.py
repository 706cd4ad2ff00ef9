"""Pass or fail: the budgets of each precision, and a sentence for each budget that is missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hamr_edge.benchmarks.budgets import Budgets
from hamr_edge.benchmarks.consistency import BatchConsistency
from hamr_edge.benchmarks.cross_gallery import CrossGallery
from hamr_edge.benchmarks.latency import Latency
from hamr_edge.benchmarks.match_threshold import MatchThreshold
from hamr_edge.benchmarks.parity import Parity
from hamr_edge.benchmarks.separation import Separation
from hamr_edge.ranking import RetrievalScores
from hamr_edge.sidecar import Sidecar

_NORM_TOLERANCE = 5e-3
"""Rounding of a float16 graph stays well below it."""
_ALIKE = 1.0
"""Below this d', the reference itself hardly tells people apart."""


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
    if budgets.cosine is not None and parity.min_cosine is not None and parity.min_cosine < budgets.cosine:
        yield (
            f"cosine of {parity.worst_crop} to the reference is {parity.min_cosine:.6f}, below the "
            f"{budgets.cosine:g} that every crop must keep in {precision} (--budget cosine)"
        )
    if budgets.p01_cosine is not None and parity.p01_cosine is not None and parity.p01_cosine < budgets.p01_cosine:
        yield (
            f"1st percentile of the cosine to the reference is {parity.p01_cosine:.6f}, below the "
            f"{budgets.p01_cosine:g} asked of {precision} (--budget p01-cosine); the worst of {parity.images} crops is "
            f"{parity.worst_crop} at {parity.min_cosine:.6f}; calibrate on more crops, or leave blocks in float"
        )
    yield from _judge_drop(
        "rank-1",
        "rank1",
        reference.rank1,
        parity.rank1,
        budgets.rank1,
        parity.queries,
        precision,
        parity.rank1_interval,
    )
    yield from _judge_drop(
        "mAP", "map", reference.map, parity.map, budgets.map, parity.queries, precision, parity.map_interval
    )


def _judge_drop(
    score: str,
    budget: str,
    before: float,
    after: float,
    allowed: float | None,
    queries: int,
    precision: str,
    interval: tuple[float, float] | None = None,
) -> Iterator[str]:
    if allowed is None:
        return
    if allowed and "rank1" in budget:  # one query more or less tells nothing: a budget above 0 is at least one's worth
        allowed = max(allowed, 100 / queries)
    drop = 100 * (before - after)
    if drop > allowed + 1e-9:
        low, high = (-100 * end + 0.0 for end in interval[::-1]) if interval else (drop, drop)
        known = f"; 95 % interval of the fall {low:.2f} to {high:.2f}" if interval else ""
        one = f", one is {100 / queries:.2f} points" if "rank1" in budget else ""
        yield (
            f"{score} fell {drop:.2f} points, from {100 * before:.2f} to {100 * after:.2f} % ({queries} queries{one}"
            f"{known}); {precision} may lose {allowed:.3g} (--budget {budget})"
        )


def judge_consistency(consistency: BatchConsistency, budgets: Budgets) -> Iterator[str]:
    """A sentence where an embedding depends on the other crops of its batch."""
    if budgets.batch_cosine is not None and consistency.min_cosine < budgets.batch_cosine:
        yield (
            f"rows of a batch are mixed: {consistency.worst_crop} in a batch of {consistency.worst_batch} has cosine "
            f"{consistency.min_cosine:.6f} to itself alone, below {budgets.batch_cosine:g} (--budget batch-cosine)"
        )


def judge_separation(separation: Separation, reference: Separation, budgets: Budgets) -> Iterator[str]:
    """A sentence where different people come out more alike than from the reference."""
    if budgets.separation is None or reference.d_prime <= 0:
        return
    share = separation.d_prime / reference.d_prime
    if share < budgets.separation:
        yield (
            f"people come out alike: the mean cosine of one person's crops is {separation.same:.3f}, of "
            f"others {separation.different:.3f} (reference {reference.same:.3f}, {reference.different:.3f}); they lie "
            f"{separation.d_prime:.2f} deviations apart, {share:.2f} of the reference's {reference.d_prime:.2f}, below "
            f"{budgets.separation:g} (--budget separation)"
        )


def judge_cross_gallery(
    cross: CrossGallery, reference: RetrievalScores, budgets: Budgets, precision: str
) -> Iterator[str]:
    """A sentence for each budget that is missed where the gallery is the reference's."""
    for score, budget, before, after, allowed in (
        ("rank-1", "cross-rank1", reference.rank1, cross.rank1, budgets.cross_rank1),
        ("mAP", "cross-map", reference.map, cross.map, budgets.cross_map),
    ):
        where = f"{score} against the reference's gallery"
        yield from _judge_drop(where, budget, before, after, allowed, reference.queries, precision)


def judge_threshold(threshold: MatchThreshold, budgets: Budgets) -> Iterator[str]:
    """A sentence where the match threshold moves too far."""
    if budgets.threshold_shift is not None and abs(threshold.shift) > budgets.threshold_shift:
        yield (
            f"the match threshold moves by {threshold.shift:+.4f}, from {threshold.reference:.4f} to "
            f"{threshold.artifact:.4f} at a false-accept rate of {threshold.false_accept_rate:g}, more than "
            f"{budgets.threshold_shift:g} (--budget threshold-shift); with the old threshold the rate would be "
            f"{threshold.kept_false_accept_rate:.2g}"
        )


def judge_speed(latency: Iterable[Latency], budgets: Budgets) -> Iterator[str]:
    """A sentence for each batch size that is slower than asked."""
    for measured in latency:
        speedup = measured.speedup
        if budgets.speedup is not None and speedup is not None and speedup.median < budgets.speedup:
            yield (
                f"batch {measured.batch}: {speedup.median:.2f} x the reference's speed (95 % interval "
                f"{speedup.median_low:.2f} to {speedup.median_high:.2f}), below {budgets.speedup:g} (--budget speedup)"
            )


def doubts_of_reference(separation: Separation) -> Iterator[str]:
    """A sentence where verdicts say little, because the reference itself is no good."""
    if separation.d_prime < _ALIKE:
        yield (
            f"the reference itself hardly tells people apart: one person's and different people's cosines lie "
            f"{separation.d_prime:.2f} deviations apart; agreement with it says little"
        )


def doubts_of_parity(parity: Parity, budgets: Budgets) -> Iterator[str]:
    """A sentence where too few queries were scored for what the budget asks."""
    low, high = parity.map_interval
    if budgets.map and 100 * (high - low) / 2 > budgets.map:
        yield (
            f"{parity.queries} queries tell the change of mAP to within {100 * (high - low) / 2:.2f} points, more than "
            f"the budget of {budgets.map:g}: the verdict is on these crops, not on others like them; take more queries"
        )
