"""How a report words its figures: numbers, names, and the sentence that sums up a model."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from hamr_edge.benchmarks.latency import STEADY, Latency, Speedup
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport, ReferenceResult

NONE = "-"
"""A cell whose figure was not measured."""


def printable(text: str) -> str:
    """Text on one line that any page or terminal can hold: no control characters, no halves of surrogates.

    File names hold them, and a terminal would obey them. Marks that turn the direction of writing go too.
    """
    spaced = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(letter) in ("Cc", "Cf", "Cs") else letter for letter in spaced)


def shorten(text: str, most: int) -> str:
    """At most so many letters, the middle left out: names tend to differ at their ends."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def percent(share: float) -> str:
    """A share of 1 as per cent, without the sign."""
    return f"{100 * share:.2f}"


def points(change: float) -> str:
    """A change of a share, in percentage points, with its sign; no sign for what rounds to 0."""
    return _signed(f"{100 * change:+.2f}")


def points_between(interval: Sequence[float]) -> str:
    """The two ends of an interval of a change."""
    low, high = interval
    return f"{points(low)} to {points(high)}"


def cosine(value: float | None) -> str:
    """Six decimals: 0.999999 and 1 are not the same."""
    return NONE if value is None else f"{value:.6f}"


def signed(value: float, decimals: int) -> str:
    """With its sign; no sign for what rounds to 0."""
    return _signed(f"{value:+.{decimals}f}")


def milliseconds(value: float) -> str:
    """About three digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 1000 else 0}f}"


def megabytes(size_bytes: int) -> str:
    """In 1e6 bytes; none of a model that is no file."""
    return f"{size_bytes / 1e6:.1f}" if size_bytes else NONE


def _unsure(latency: Latency) -> str:
    return f", not sure: to {100 * latency.uncertainty:.0f} %" if latency.uncertainty > STEADY else ""


def speedup_text(speedup: Speedup) -> str:
    """The median and its 95 % interval."""
    return f"{speedup.median:.2f} ({speedup.median_low:.2f} to {speedup.median_high:.2f})"


def title(report: BenchReport) -> str:
    """Of a page or a document."""
    count = len(report.results)
    models = f"{count} models" if count != 1 else printable(report.results[0].name)
    return f"{models} against {printable(report.reference.name)} on {printable(str(report.data['name']))}"


def whole(report: BenchReport) -> str:
    """What was compared on what."""
    data, reference = report.data, report.reference
    return (
        f"{printable(str(data['name']))}: {data['images']} crops ({data['queries']} query, {data['gallery']} gallery "
        f"without junk); reference {printable(reference.name)} ({printable(reference.backend)}, "
        f"{printable(reference.precision)})"
    )


def answer(report: BenchReport) -> str:
    """One paragraph: who keeps the budgets, and what the fastest of them gives."""
    judged, failed = report.judged, report.failed
    reference = printable(report.reference.name)
    if not judged:
        return f"Nothing was judged; {len(report.results)} models were measured beside {reference}."
    kept = [result for result in judged if not result.failures]
    if not kept:
        verdict = f"{printable(judged[0].name)} misses" if len(judged) == 1 else f"{_all(len(judged))} artifacts miss"
        return f"{verdict} what was asked: do not use in place of {reference}."
    if len(judged) == 1:
        verdict = f"{printable(kept[0].name)} is as good as {reference}, within its budgets"
    elif failed:
        verdict = f"{len(kept)} of {len(judged)} artifacts are as good as {reference}, within their budgets"
    else:
        verdict = f"{_all(len(judged))} artifacts are as good as {reference}, within their budgets"
    best = max(kept, key=_speed)
    gains = _gains(best, report.reference)
    name = "It" if len(judged) == 1 else f"The fastest of them, {printable(best.name)},"
    missed = f" Not so: {', '.join(printable(result.name) for result in failed)}." if failed else ""
    return f"{verdict}. {name} {gains}.{missed}"


def summary(result: ArtifactResult, reference: ReferenceResult) -> str:
    """What one model loses and what it gains, on a line."""
    parity = result.parity
    parts = [
        f"mAP {points(parity.map_delta)} points ({points_between(parity.map_interval)}), "
        f"rank-1 {points(parity.rank1_delta)}"
    ]
    if fast := _main_latency(result):
        where, latency, speedup = fast
        parts.append(f"{speedup_text(speedup)} x the speed {where}{_unsure(latency)}")
    if result.size_bytes:
        parts.append(f"{megabytes(result.size_bytes)} MB of {megabytes(reference.size_bytes)}")
    return "; ".join(parts)


def _all(count: int) -> str:
    return "Both" if count == 2 else f"All {count}"


def _gains(result: ArtifactResult, reference: ReferenceResult) -> str:
    parity = result.parity
    text = f"changes mAP by {points(parity.map_delta)} points (95 % interval {points_between(parity.map_interval)})"
    if fast := _main_latency(result):
        where, latency, speedup = fast
        text += (
            f", runs at {speedup.median:.2f} times the reference's speed {where} (95 % interval "
            f"{speedup.median_low:.2f} to {speedup.median_high:.2f}{_unsure(latency)})"
        )
    if result.size_bytes and reference.size_bytes:
        text += f" and takes {megabytes(result.size_bytes)} MB instead of {megabytes(reference.size_bytes)}"
    return text


def _speed(result: ArtifactResult) -> float:
    fast = _main_latency(result)
    return fast[2].median if fast else 0.0


def _main_latency(result: ArtifactResult) -> tuple[str, Latency, Speedup] | None:
    """Of the largest batch; of the most boxes where no batch was timed."""
    for measured, what in ((result.latency, "at batch {}"), (result.end_to_end, "for a frame with {} boxes")):
        largest: Latency | None = max(measured, key=lambda latency: latency.batch, default=None)
        if largest is not None and largest.speedup is not None:
            return what.format(largest.batch), largest, largest.speedup
    return None


def _signed(text: str) -> str:
    return text.lstrip("+-") if float(text) == 0 else text
