"""What counts as a change of one model between two reports, and what is noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hamr_edge.benchmarks.report_values import entries, number, text_of, value_of
from hamr_edge.benchmarks.same_conditions import SameConditions

Report = Mapping[str, Any]
Verdict = Literal["better", "worse", "same", "not comparable"]
_SPEED = 0.03
_POINTS = 0.1
_COSINE, _COSINE_SHARE = 0.0005, 0.1
_SEPARATION = 0.05
_THRESHOLD = 0.005
_SIZE = 0.02
_MEMORY = _ENERGY = 0.1
_START, _START_MS = 1 / 3, 50.0
"""A third of the longer is half of the shorter."""
_FAR = 0.1
"""A ratio that moved so far and is not known well enough is worth telling."""


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity of one model in two reports."""

    model: str
    quantity: str
    old: str
    new: str
    change: str
    """Signed, or a ratio; empty where there is none to tell."""
    noise: str
    """A change up to this one is the same."""
    verdict: Verdict
    gated: bool
    """Whether a worse one fails the gate: not of models that are not judged, nor of ratios on another machine."""
    note: str = ""
    """What a reader should know of this line; of what is not comparable, why."""

    @property
    def sentence(self) -> str:
        """For a message."""
        what = f"{self.model}: {self.quantity}"
        if self.verdict == "not comparable":
            return f"{what} is not comparable: {self.note}"
        is_now = "stayed the same" if self.verdict == "same" else f"got {self.verdict}"
        beyond = f" ({self.change}; noise is up to {self.noise})" if self.change else ""
        note = f"; {self.note}" if self.note else ""
        return f"{what} {is_now}: {self.old} before, {self.new} now{beyond}{note}"


@dataclass(frozen=True, slots=True)
class _Quantity:
    """One number of a model: where it lies, how it reads, and which change of it is noise."""

    title: str
    path: tuple[str, ...]
    unit: str
    scale: float
    """From the report's unit to the one shown."""
    decimals: int
    more_is_better: bool
    share: float = 0.0
    """Noise, as a share of the greater of the two."""
    least: float = 0.0
    """Noise at least, in the unit shown."""
    change_unit: str = ""
    """The unit where it is another one."""
    absolute: bool = False
    """Only its size counts, not its sign."""


_FILE = _Quantity("file size", ("size_bytes",), "MB", 1e-6, 2, False, _SIZE)
_MOVED_THRESHOLD = _Quantity(
    "shift of the match threshold", ("match_threshold", "shift"), "", 1.0, 4, False, least=_THRESHOLD, absolute=True
)
_SEPARATED = _Quantity("d' of people", ("separation", "d_prime"), "", 1.0, 3, True, _SEPARATION)
_OF_THE_MACHINE = (
    _Quantity("peak memory", ("cold_start", "peak_memory_mb"), "MB", 1.0, 0, False, _MEMORY),
    _Quantity("GPU memory", ("cold_start", "gpu_memory_mb"), "MB", 1.0, 0, False, _MEMORY),
    _Quantity("load time", ("cold_start", "load_ms"), "ms", 1.0, 0, False, _START, _START_MS),
    _Quantity("time to the first embedding", ("cold_start", "to_first_embedding_ms"), "ms", 1.0, 0, False, _START,
              _START_MS),
    _Quantity("energy of an image", ("energy", "millijoules_per_image"), "mJ", 1.0, 1, False, _ENERGY),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelPair:
    """One model's entries in two reports, and what the reports have in common."""

    model: str
    old: Report
    new: Report
    old_reference: Report
    new_reference: Report
    same: SameConditions
    judged: bool


def compare_model(pair: ModelPair) -> Iterator[Change]:
    """Every quantity that both reports have of one model. A rule is symmetric: old and new exchanged, better is worse.

    - Verdict: from pass to fail is worse, whatever the data and the machine.
    - Speed, as ratio to the reference of the same rounds, at each batch and number of boxes: the 95 % intervals of the
      two medians do not touch, and the medians are more than 3 % apart, which is how well bench repeats itself. On
      another machine the same, but no gate. Milliseconds are told, not judged.
    - mAP and rank-1, on the same crops: the same files give the same scores, so noise is little, 0.1 points and for
      rank-1 one query. Where the change against the reference is known by an interval over queries, noise is also the
      two half intervals, root of the sum of squares: that is as far as two artifacts that are equally good lie apart.
      Of two checkpoints: 1.96 sqrt(2 m (1 - m) / queries) for a score m, the bound for unrelated models (the variance
      of values in 0..1 is m (1 - m) at most; Bhatia and Davis, 2000), since training again moves scores by points.
    - 1st percentile of the cosine, same crops and checkpoint: 0.0005, and a tenth of its distance from 1.
    - d', same crops and checkpoint: 5 %. Shift of the match threshold, likewise: 0.005 of cosine.
    - File size: 2 %. Peak memory and energy, same machine: 10 %. Load time and time to the first embedding, same
      machine: half as long again, and 50 ms. Shares are of the greater of the two.
    """
    yield from _verdict(pair)
    yield from _scores(pair)
    yield from _agreement(pair)
    for group, what in (("latency", "batch {}"), ("end_to_end", "a frame with {} boxes")):
        yield from _speeds(pair, group, what)
    yield from _number(pair, _FILE)
    for quantity in _OF_THE_MACHINE:
        yield from _number(pair, quantity, pair.same.machine or _another_sensor(pair, quantity))


def _verdict(pair: ModelPair) -> Iterator[Change]:
    was, now = text_of(pair.old, "verdict"), text_of(pair.new, "verdict")
    if {was, now} <= {"pass", "fail"}:
        verdict: Verdict = "same" if was == now else "worse" if now == "fail" else "better"
        note = _other_budgets(pair) if was != now else ""
        yield Change(pair.model, "verdict", was, now, "", "", verdict, pair.judged, note)


def _other_budgets(pair: ModelPair) -> str:
    """Where a verdict changed, a reader must know that other budgets were asked."""
    was, now = (value_of(result, "budgets") for result in (pair.old, pair.new))
    if not isinstance(was, Mapping) or not isinstance(now, Mapping):
        return ""
    differ = [f"{name} was {was[name]}, is {now[name]}" for name in was if name in now and was[name] != now[name]]
    return f"other budgets: {', '.join(differ)}" if differ else ""


def _scores(pair: ModelPair) -> Iterator[Change]:
    queries = number(pair.new, "parity", "queries") or 1.0
    for title, group, name in (
        ("mAP", "parity", "map"),
        ("rank-1", "parity", "rank1"),
        ("mAP against the reference's gallery", "cross_gallery", "map"),
    ):
        # A little more than one query: scores are written with a rounding of their own.
        least = max(_POINTS, 100.01 / queries if name == "rank1" else 0.0)
        noise = _interval_noise(pair, name)
        if pair.same.checkpoint is not None:
            scores = [number(result, group, name) or 0.0 for result in (pair.old, pair.new)]
            middle = sum(scores) / 2
            noise = 196 * math.sqrt(2 * max(middle * (1 - middle), 0.0) / queries)
        rule = _Quantity(title, (group, name), "%", 100.0, 2, True, least=max(least, noise), change_unit="points")
        yield from _number(pair, rule, pair.same.crops)


def _interval_noise(pair: ModelPair, name: str) -> float:
    """Points of a score, by the two intervals over queries; a report without one knows as little as the other."""
    halves = [_half_interval(result, name) for result in (pair.old, pair.new)]
    known = [half for half in halves if half is not None]
    return 100 * math.hypot(*(known[0] if half is None else half for half in halves)) if known else 0.0


def _half_interval(result: Report, name: str) -> float | None:
    ends = value_of(result, "parity", f"{name}_interval")
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return None
    low, high = (number({"end": end}, "end") for end in ends)
    return None if low is None or high is None else abs(high - low) / 2


def _agreement(pair: ModelPair) -> Iterator[Change]:
    """How near the reference's embeddings it lies."""
    doubt = pair.same.crops or pair.same.checkpoint
    cosines = [number(result, "parity", "p01_cosine") for result in (pair.old, pair.new)]
    farthest = 1 - min((cosine for cosine in cosines if cosine is not None), default=1.0)
    least = max(_COSINE, _COSINE_SHARE * farthest)
    title = "1st percentile of the cosine"
    yield from _number(pair, _Quantity(title, ("parity", "p01_cosine"), "", 1.0, 6, True, least=least), doubt)
    yield from _number(pair, _SEPARATED, doubt)
    yield from _number(pair, _MOVED_THRESHOLD, doubt)


def _another_sensor(pair: ModelPair, quantity: _Quantity) -> str | None:
    names = [(group, name) for group, name in (("energy", "sensor"), ("energy", "batch")) if group == quantity.path[0]]
    differ = any(value_of(pair.old, *path) != value_of(pair.new, *path) for path in names)
    return "another sensor or batch size" if differ else None


def _number(pair: ModelPair, quantity: _Quantity, doubt: str | None = None) -> Iterator[Change]:
    """One number that both reports have; ``doubt``, where there is one, says why it is not comparable."""
    raw = [number(result, *quantity.path) for result in (pair.old, pair.new)]
    if raw[0] is None or raw[1] is None:
        return
    was, now = raw[0] * quantity.scale, raw[1] * quantity.scale
    change = now - was
    if quantity.absolute:
        change = abs(now) - abs(was)
    noise = max(quantity.least, quantity.share * max(abs(was), abs(now)))
    verdict: Verdict = "same"
    if doubt is not None:
        verdict = "not comparable"
    elif abs(change) > noise * (1 + 1e-9):
        verdict = "better" if (change > 0) == quantity.more_is_better else "worse"
    decimals, unit = quantity.decimals, quantity.change_unit or quantity.unit
    yield Change(
        model=pair.model,
        quantity=quantity.title,
        old=f"{was:.{decimals}f} {quantity.unit}".rstrip(),
        new=f"{now:.{decimals}f} {quantity.unit}".rstrip(),
        change=f"{change:+.{decimals}f} {unit}".rstrip(),
        noise=f"{noise:.{decimals}f} {unit}".rstrip(),
        verdict=verdict,
        gated=pair.judged,
        note=doubt or "",
    )


def _speeds(pair: ModelPair, group: str, what: str) -> Iterator[Change]:
    before = {number(latency, "batch"): latency for latency in entries(pair.old, group)}
    for latency in entries(pair.new, group):
        batch = number(latency, "batch")
        was, now = (_ratio(timed) for timed in (before.get(batch, {}), latency))
        if batch is None or was is None or now is None:
            continue
        factor = now.median / was.median
        apart = now.low > was.high or now.high < was.low
        moved = not 1 / (1 + _SPEED) <= factor <= 1 + _SPEED
        verdict: Verdict = "same"
        note = pair.same.reference or ""
        if note:
            verdict = "not comparable"
        elif apart and moved:
            verdict = "better" if factor > 1 else "worse"
            note = "on another machine" if pair.same.machine else _reference_time(pair, group, batch)
        elif abs(factor - 1) > _FAR:
            note = f"moved by {100 * (factor - 1):+.0f} %, but is not known well enough to tell; see --max-seconds"
        yield Change(
            model=pair.model,
            quantity=f"speed against the reference, {what.format(f'{batch:g}')}",
            old=was.text(before[batch]),
            new=now.text(latency),
            change=f"{100 * (factor - 1):+.1f} %",
            noise=f"{100 * _SPEED:g} %, or intervals that touch",
            verdict=verdict,
            gated=pair.judged and pair.same.machine is None,
            note=note,
        )


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A median and its interval."""

    median: float
    low: float
    high: float

    def text(self, latency: Report) -> str:
        p50_ms = number(latency, "p50_ms")
        time = "" if p50_ms is None else f", {p50_ms:.4g} ms"
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}){time}"


def _ratio(latency: Report) -> _Ratio | None:
    """The speedup; where an older report has no interval of its median, the spread over the rounds, which is wider."""
    median = number(latency, "speedup", "median")
    low = number(latency, "speedup", "median_low") or number(latency, "speedup", "low")
    high = number(latency, "speedup", "median_high") or number(latency, "speedup", "high")
    return None if median is None or median <= 0 or low is None or high is None else _Ratio(median, low, high)


def _reference_time(pair: ModelPair, group: str, batch: float) -> str:
    """Told, for a ratio moves with either of its two times."""
    times_ms = [
        number(latency, "p50_ms")
        for reference in (pair.old_reference, pair.new_reference)
        for latency in entries(reference, group)
        if number(latency, "batch") == batch
    ]
    if len(times_ms) != 2 or times_ms[0] is None or times_ms[1] is None:
        return ""
    return f"the reference's own p50 was {times_ms[0]:.4g} ms, is {times_ms[1]:.4g} ms"
