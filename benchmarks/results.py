"""What a comparison found, as plain data; JSON keys are the field names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hamr_edge.benchmarks.consistency import BatchConsistency
from hamr_edge.benchmarks.latency import Latency
from hamr_edge.benchmarks.overhead import EmbedOverhead
from hamr_edge.benchmarks.parity import Parity
from hamr_edge.ranking import RetrievalScores

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """The model that the artifacts are held against."""

    artifact: str
    backend: str
    precision: str
    device: str
    embedding_dim: int
    source_sha256: str
    retrieval: RetrievalScores
    latency: tuple[Latency, ...]


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """One artifact beside the reference."""

    artifact: str
    backend: str
    precision: str
    device: str
    size_bytes: int
    latency: tuple[Latency, ...]
    parity: Parity
    batch_consistency: BatchConsistency
    embed_overhead: EmbedOverhead | None
    """None where the artifact does not run on ONNX Runtime."""
    budgets: dict[str, float | None]
    """What had to be kept."""
    failures: tuple[str, ...]
    """One sentence a budget that was missed; none is a pass."""

    @property
    def verdict(self) -> str:
        """``pass`` or ``fail``."""
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
    """Name of the data set, and how many crops of it were compared."""
    reference: ReferenceResult
    results: tuple[ArtifactResult, ...]
    schema: int = field(default=SCHEMA)

    @property
    def failed(self) -> tuple[ArtifactResult, ...]:
        """The artifacts that missed a budget."""
        return tuple(result for result in self.results if result.failures)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold; its keys are stable within a schema."""
        return {
            "schema": self.schema,
            "environment": self.environment,
            "config": self.config,
            "data": self.data,
            "reference": asdict(self.reference),
            "results": [result.to_json() for result in self.results],
        }
