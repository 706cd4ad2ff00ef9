"""Artifacts to a verdict: as good as the model they came from, and how much faster. Needs no torch."""

from hamr_edge.benchmarks.compare import compare
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport

__all__ = ["ArtifactResult", "BenchConfig", "BenchReport", "compare"]
