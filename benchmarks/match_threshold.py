"""Where the line between same and different lies, and what a fixed line costs when the model changes."""

from __future__ import annotations

from dataclasses import dataclass

from hamr_edge.benchmarks.retrieval import Retrieval


@dataclass(frozen=True, slots=True)
class MatchThreshold:
    """Cosine at and above which two crops count as one person, at a fixed rate of false accepts. Rates in 0..1.

    Over pairs of a query and a gallery crop; pairs of one person and one camera are left out.
    """

    false_accept_rate: float
    """Aimed at: the share of pairs of different people that are accepted."""
    genuine_pairs: int
    impostor_pairs: int
    reference: float
    """The reference's threshold at that rate."""
    artifact: float
    """The artifact's."""
    shift: float
    """The artifact's less the reference's."""
    kept_false_accept_rate: float
    """The artifact's, where the reference's threshold is kept."""
    reference_true_accept_rate: float
    """Share of pairs of one person that the reference accepts at its own threshold."""
    true_accept_rate: float
    """The artifact's at its own threshold."""
    kept_true_accept_rate: float
    """The artifact's, where the reference's threshold is kept."""


def compare_thresholds(reference: Retrieval, artifact: Retrieval) -> MatchThreshold:
    """Both models' thresholds, and what it costs to keep the reference's.

    Args:
        reference: Of the reference.
        artifact: Of the artifact, measured with the reference's threshold kept.
    """
    return MatchThreshold(
        false_accept_rate=artifact.false_accept_rate,
        genuine_pairs=len(artifact.genuine),
        impostor_pairs=artifact.impostor_pairs,
        reference=reference.threshold,
        artifact=artifact.threshold,
        shift=artifact.threshold - reference.threshold,
        kept_false_accept_rate=artifact.kept_false_accept_rate,
        reference_true_accept_rate=reference.true_accept_rate(reference.threshold),
        true_accept_rate=artifact.true_accept_rate(artifact.threshold),
        kept_true_accept_rate=artifact.true_accept_rate(reference.threshold),
    )
