"""A report against an older one: what got better or worse beyond noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from hamr_edge.benchmarks.history_rules import Change, ModelPair, Report, compare_model
from hamr_edge.benchmarks.report_values import entries, number, text_of
from hamr_edge.benchmarks.same_conditions import SameConditions, same_conditions

__all__ = ["Change", "History", "compare_history", "worse"]


@dataclass(frozen=True, slots=True)
class History:
    """Two reports held against each other."""

    changes: tuple[Change, ...]
    """Every quantity that both have, model by model; most are the same."""
    came: tuple[str, ...]
    """Models that only the newer report has."""
    gone: tuple[str, ...]
    """Models that only the older one has."""
    notes: tuple[str, ...]
    """What could not be compared and why, and what else a reader must know."""

    @property
    def moved(self) -> tuple[Change, ...]:
        """What is better or worse."""
        return tuple(change for change in self.changes if change.verdict in ("better", "worse"))

    def count(self, verdict: str) -> int:
        """How many quantities came out so."""
        return sum(change.verdict == verdict for change in self.changes)


def compare_history(old: Mapping[str, Any], new: Mapping[str, Any]) -> History:
    """Hold a report against an older one.

    Models are matched by name, role, precision and backend; file names may differ in folder. What counts as a change,
    and what as noise: :func:`~hamr_edge.benchmarks.history_rules.compare_model`. Fields that one of the two lacks are
    passed over.

    Args:
        old: As :func:`read_report` gives it.
        new: The same, or :meth:`hamr_edge.benchmarks.results.BenchReport.to_json`.
    """
    same = same_conditions(old, new)
    before, after = entries(old, "results"), entries(new, "results")
    pairs = _match(before, after)
    changes = tuple(
        change
        for was, now in pairs
        for change in compare_model(
            ModelPair(_name(now), was, now, old["reference"], new["reference"], same, _role(now) == "artifact")
        )
    )
    matched = {id(result) for pair in pairs for result in pair}
    return History(
        changes,
        came=tuple(_label(result) for result in after if id(result) not in matched),
        gone=tuple(_label(result) for result in before if id(result) not in matched),
        notes=(*_differences(same), *_unmatched_batches(pairs), *_old_format(pairs)),
    )


def worse(history: History) -> list[str]:
    """Why a gate should fail, a sentence each: what got worse of the judged models, or that none was compared."""
    sentences = [change.sentence for change in history.changes if change.verdict == "worse" and change.gated]
    if not any(change.gated and change.verdict != "not comparable" for change in history.changes):
        reasons = "; ".join(history.notes) or "the reports have no model in common"
        sentences.append(f"nothing could be compared: {reasons}; compare with a report of the same models")
    return sentences


def _match(old: list[Report], new: list[Report]) -> list[tuple[Report, Report]]:
    """Pairs in the order of the newer report: by the whole name, else by the file's name if one has it."""
    pairs: dict[int, Report] = {}
    for name_of in (_name, _file_name):
        free_old = [result for result in old if id(result) not in map(id, pairs.values())]
        free_new = [result for result in new if id(result) not in pairs]
        for result in free_new:
            key = _key(result, name_of(result))
            alike = [other for other in free_old if _key(other, name_of(other)) == key]
            rivals = [other for other in free_new if _key(other, name_of(other)) == key]
            if len(alike) == len(rivals) == 1:
                pairs[id(result)] = alike[0]
    return [(pairs[id(result)], result) for result in new if id(result) in pairs]


def _key(result: Report, name: str) -> tuple[str, ...]:
    return name, _role(result), text_of(result, "precision"), text_of(result, "backend")


def _name(result: Report) -> str:
    return text_of(result, "name") or PurePath(text_of(result, "artifact")).name


def _file_name(result: Report) -> str:
    return PurePath(_name(result)).name


def _role(result: Report) -> str:
    """Before roles, every model was judged."""
    return text_of(result, "role") or "artifact"


def _label(result: Report) -> str:
    beside = "" if _role(result) == "artifact" else ", beside"
    return f"{_name(result)} ({text_of(result, 'precision')}, {text_of(result, 'backend')}{beside})"


def _differences(same: SameConditions) -> Iterator[str]:
    if same.crops:
        yield f"{same.crops}; scores, cosines and thresholds are not compared"
    if same.reference:
        yield f"{same.reference}; speeds are ratios to it and are not compared"
    if same.machine:
        yield (
            f"{same.machine}; milliseconds, memory and energy are not compared, and ratios to the reference may differ "
            "for that alone: they are told and do not fail the gate"
        )
    if same.checkpoint:
        yield f"{same.checkpoint}; agreement with it is not compared, and scores must differ by more than chance gives"
    yield from same.cautions


def _unmatched_batches(pairs: list[tuple[Report, Report]]) -> Iterator[str]:
    for group, what in (("latency", "batches of"), ("end_to_end", "frames with boxes:")):
        timed = [{number(entry, "batch") for pair in pairs for entry in entries(pair[side], group)} for side in (0, 1)]
        lone = [f"{size:g}" for size in sorted(size for size in timed[0] ^ timed[1] if size is not None)]
        if timed[0] and timed[1] and lone:
            yield f"timed in one of the two only, {what} {', '.join(lone)}; repeat --batch as it was"


def _old_format(pairs: list[tuple[Report, Report]]) -> Iterator[str]:
    missing = sorted({
        name for was, now in pairs for name in ("cold_start", "end_to_end", "match_threshold", "separation", "energy")
        if now.get(name) and not was.get(name)
    })  # fmt: skip
    if missing:
        yield f"the old report does not tell {', '.join(name.replace('_', ' ') for name in missing)}"
    if any(
        number(latency, "speedup", "median") is not None and number(latency, "speedup", "median_low") is None
        for was, _ in pairs
        for latency in entries(was, "latency")
    ):
        yield (
            "the old report has no interval of its speeds: the spread over its rounds stands for it, so that only a "
            "large change shows"
        )
