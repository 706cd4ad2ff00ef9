"""Which models no other beats in both accuracy and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hamr_edge.benchmarks.report_tables import all_models
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport


@dataclass(frozen=True, slots=True)
class TradeOffPoint:
    """One model's accuracy and time."""

    model: int
    """Its place in the report, the reference 0."""
    milliseconds: float
    map: float
    """0..1."""
    map_delta: float = 0.0
    map_interval: tuple[float, float] | None = None
    """95 % interval of ``map_delta``; None for the reference."""


@dataclass(frozen=True, slots=True)
class TradeOff:
    """All models timed on the same work."""

    batch: int
    of: str
    """What the time is of."""
    points: tuple[TradeOffPoint, ...]


def trade_offs(report: BenchReport) -> list[TradeOff]:
    """Accuracy and time for the fewest and for the most boxes that every model was timed with.

    Of whole frames, which peers have too; of ready batches where no frame was timed.
    """
    models = all_models(report)
    for whole in (True, False):
        timed = [{one.batch: one for one in (model.end_to_end if whole else model.latency)} for model in models]
        timed = [times for times in timed if times]
        shared = set.intersection(*map(set, timed)) if timed else set()
        if shared:
            return [_trade_off(report, batch, whole) for batch in sorted({min(shared), max(shared)})]
    return []


def pareto_front(points: Sequence[TradeOffPoint]) -> list[int]:
    """Places of the points that no other point dominates: as good in both, and better in one."""
    return [
        place
        for place, point in enumerate(points)
        if not any(
            other.milliseconds <= point.milliseconds
            and other.map >= point.map
            and (other.milliseconds < point.milliseconds or other.map > point.map)
            for other in points
        )
    ]


def _trade_off(report: BenchReport, batch: int, whole: bool) -> TradeOff:
    points = []
    for number, model in enumerate(all_models(report)):
        times = [one.p50_ms for one in (model.end_to_end if whole else model.latency) if one.batch == batch]
        if not times:
            continue
        if isinstance(model, ArtifactResult):
            parity = model.parity
            points.append(TradeOffPoint(number, times[0], parity.map, parity.map_delta, parity.map_interval))
        else:
            points.append(TradeOffPoint(number, times[0], model.retrieval.map))
    plural = "" if batch == 1 else "es" if whole else "s"
    of = f"a frame with {batch} box{plural}" if whole else f"a ready batch of {batch} crop{plural}"
    return TradeOff(batch, of, tuple(points))
