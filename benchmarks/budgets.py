"""What an artifact must keep: defaults for each precision, and what the user asks for instead."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

from hamr_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class Budgets:
    """What is asked of an artifact; None is not judged. ``--budget`` takes the field names, with - for _."""

    cosine: float | None
    """The least cosine of any crop to the reference."""
    p01_cosine: float | None
    """The least 1st percentile of the crops' cosines."""
    map: float | None
    """Most mAP lost, in percentage points."""
    rank1: float | None
    """Most rank-1 lost, in percentage points; above 0, one query at least."""
    batch_cosine: float | None
    """The least cosine of a crop embedded in company to itself embedded alone."""
    separation: float | None = 0.8
    """The least d', as a share of the reference's: how far different people lie from one person."""
    cross_map: float | None = None
    """Most mAP lost where the gallery is the reference's, in percentage points."""
    cross_rank1: float | None = None
    """Most rank-1 lost where the gallery is the reference's, in percentage points."""
    threshold_shift: float | None = None
    """Most that the match threshold may move, up or down."""
    speedup: float | None = None
    """The least median speedup, at every batch size."""


_RANGES = {
    "cosine": (-1.0, 1.0),
    "p01_cosine": (-1.0, 1.0),
    "batch_cosine": (-1.0, 1.0),
    "map": (0.0, 100.0),
    "rank1": (0.0, 100.0),
    "cross_map": (0.0, 100.0),
    "cross_rank1": (0.0, 100.0),
    "separation": (0.0, math.inf),
    "threshold_shift": (0.0, 2.0),
    "speedup": (0.0, math.inf),
}
BUDGET_NAMES = tuple(field.name.replace("_", "-") for field in fields(Budgets))
_FLOAT32 = Budgets(cosine=0.9999, p01_cosine=None, map=0.1, rank1=0.1, batch_cosine=0.9999)
_HALF = Budgets(cosine=None, p01_cosine=0.999, map=0.1, rank1=0.1, batch_cosine=0.999)
_INT8 = Budgets(cosine=None, p01_cosine=0.98, map=0.5, rank1=0.3, batch_cosine=0.999)
DEFAULT_BUDGETS = {"fp32": _FLOAT32, "fp16": _HALF, "bf16": _INT8, "int8": _INT8, "int8-cpu": _INT8}
"""By precision. bfloat16 has 8 bits of mantissa: it rounds as coarsely as int8."""
_FORM = re.compile(r"(?:(?P<precision>[^:=]+):)?(?P<name>[^:=]+)=(?P<value>[^:=]+)")


def check_budgets(asked: Sequence[str]) -> None:
    """Raise InputError unless each text is ``NAME=VALUE`` or ``PRECISION:NAME=VALUE``; ``none`` is not judged."""
    for text in asked:
        _parse(text)


def budgets_of(precision: str, asked: Sequence[str] = ()) -> Budgets:
    """The budgets of a precision; an unknown one gets fp32's.

    Args:
        precision: As the sidecar has it.
        asked: ``NAME=VALUE`` for every precision, ``PRECISION:NAME=VALUE`` for one, which goes before; of two alike
            the later counts.

    Raises:
        InputError: See :func:`check_budgets`.
    """
    parsed = [_parse(text) for text in asked]
    general = {name: value for of, name, value in parsed if of is None}
    special = {name: value for of, name, value in parsed if of == precision}
    return replace(DEFAULT_BUDGETS.get(precision, _FLOAT32), **{**general, **special})


def budgets_to_json(budgets: Budgets) -> dict[str, float | None]:
    """A dict that JSON can hold."""
    return asdict(budgets)


def _parse(text: str) -> tuple[str | None, str, float | None]:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise InputError(f"--budget must be NAME=VALUE or PRECISION:NAME=VALUE, such as map=0.5, got {text!r}")
    name = match["name"].strip().replace("-", "_")
    if name not in _RANGES:
        raise InputError(f"--budget {text!r}: {match['name']!r} is none; expected one of {', '.join(BUDGET_NAMES)}")
    precision = match["precision"]
    if precision is not None and precision not in DEFAULT_BUDGETS:
        raise InputError(
            f"--budget {text!r}: {precision!r} is no precision; expected one of {', '.join(DEFAULT_BUDGETS)}"
        )
    if match["value"].strip() == "none":
        return precision, name, None
    low, high = _RANGES[name]
    try:
        value = float(match["value"])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        raise InputError(f"--budget {text!r}: {name.replace('_', '-')} must be a number in {low:g}..{high:g}, or none")
    return precision, name, value
