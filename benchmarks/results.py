"""What a comparison found, as plain data; JSON keys are the field names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hamr_edge.benchmarks.cold_start import ColdStart
from hamr_edge.benchmarks.consistency import BatchConsistency
from hamr_edge.benchmarks.cross_gallery import CrossGallery
from hamr_edge.benchmarks.diagnosis import Cause
from hamr_edge.benchmarks.energy import Energy
from hamr_edge.benchmarks.latency import Latency
from hamr_edge.benchmarks.match_threshold import MatchThreshold
from hamr_edge.benchmarks.parity import CosineHistogram, Parity
from hamr_edge.benchmarks.sensitivity import BlockSensitivity
from hamr_edge.benchmarks.separation import Separation
from hamr_edge.benchmarks.stages import StageSplit
from hamr_edge.benchmarks.worst_crops import WorstCrop
from hamr_edge.ranking import RetrievalScores

SCHEMA = 1
Role = Literal["artifact", "beside"]
"""``artifact``: held against the budgets. ``beside``: measured for comparison, never judged."""


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """The model that the artifacts are held against."""

    artifact: str
    name: str
    """Short, and no other model of the report has it."""
    backend: str
    precision: str
    device: str
    size_bytes: int
    embedding_dim: int
    source_sha256: str
    retrieval: RetrievalScores
    separation: Separation
    latency: tuple[Latency, ...]
    """From a ready batch in host memory to embeddings in host memory."""
    end_to_end: tuple[Latency, ...]
    """From a frame and so many boxes to embeddings."""
    stages: StageSplit | None = None
    cold_start: ColdStart | None = None
    energy: Energy | None = None


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """One model beside the reference."""

    artifact: str
    """File or folder, or the command of a peer."""
    name: str
    """Short, and no other model of the report has it."""
    role: Role
    backend: str
    precision: str
    device: str
    size_bytes: int
    embedding_dim: int
    latency: tuple[Latency, ...]
    """From a ready batch in host memory to embeddings in host memory; none of a peer, which has no such step."""
    end_to_end: tuple[Latency, ...]
    """From a frame and so many boxes to embeddings."""
    parity: Parity
    separation: Separation
    match_threshold: MatchThreshold
    cross_gallery: CrossGallery | None
    """None where embeddings are of another width than the reference's."""
    batch_consistency: BatchConsistency | None
    """None of a peer."""
    cosine_histogram: CosineHistogram | None = None
    """None where embeddings are of another width."""
    worst_crops: tuple[WorstCrop, ...] = ()
    sensitivity: tuple[BlockSensitivity, ...] = ()
    """Empty where calibration wrote none beside the artifact."""
    stages: StageSplit | None = None
    cold_start: ColdStart | None = None
    energy: Energy | None = None
    budgets: dict[str, float | None] = field(default_factory=dict)
    """What had to be kept; empty for a model that is not judged."""
    failures: tuple[str, ...] = ()
    """One sentence a budget that was missed; none is a pass."""
    causes: tuple[Cause, ...] = ()
    """Faults that explain the failures, where one was found."""
    notes: tuple[str, ...] = ()
    """What a reader must know to trust the figures: too few queries, a machine that was busy."""

    @property
    def verdict(self) -> str:
        """``pass``, ``fail``, or ``not judged``."""
        if self.role != "artifact":
            return "not judged"
        return "fail" if self.failures else "pass"

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A whole comparison."""

    environment: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, Any]
    """``name`` and ``folder`` of the data set; ``images``, ``queries`` and ``gallery``: crops that were compared."""
    reference: ReferenceResult
    results: tuple[ArtifactResult, ...]
    notes: tuple[str, ...] = ()
    """What holds for the whole run: the machine was busy, the GPU was throttled."""
    schema: int = field(default=SCHEMA)

    @property
    def judged(self) -> tuple[ArtifactResult, ...]:
        """The artifacts that were held against budgets."""
        return tuple(result for result in self.results if result.role == "artifact")

    @property
    def failed(self) -> tuple[ArtifactResult, ...]:
        """The artifacts that missed a budget."""
        return tuple(result for result in self.judged if result.failures)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold; its keys are stable within a schema."""
        return {
            "schema": self.schema,
            "environment": self.environment,
            "config": self.config,
            "data": self.data,
            "reference": asdict(self.reference),
            "results": [result.to_json() for result in self.results],
            "notes": list(self.notes),
        }
