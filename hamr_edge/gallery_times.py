"""Times and durations as people write them."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone

from hamr_edge.errors import InputError

_UNITS_S = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_LEAST_UNIX_S = 1e9
"""In 2001. A smaller number is a date without its dashes, or a year."""


def parse_moment(text: str) -> float:
    """A Unix time of one, or of a date with or without a time of day, in UTC where it does not say.

    Raises:
        InputError: It is neither.
    """
    form = "a date is like 2026-03-01 or 2026-03-01T08:30+01:00 (UTC where it does not say), a Unix time has 10 digits"
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(number) or number < _LEAST_UNIX_S:
            raise InputError(f"{text!r} is no time since 2001; {form}")
        return number
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is neither a Unix time nor a date; {form}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def format_moment(time_s: float) -> str:
    """A Unix time as a date and a time of day."""
    return datetime.fromtimestamp(time_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def parse_duration(text: str) -> float:
    """Seconds, of a number with its unit.

    Raises:
        InputError: It is not like that, or zero.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smhd])", text)
    if found is None or float(found[1]) == 0:
        raise InputError(f"{text!r} is not like 12h or 30d; the units are s, m, h, d")
    return float(found[1]) * _UNITS_S[found[2]]


def format_duration(seconds: float) -> str:
    """As :func:`parse_duration` reads it, in the largest unit that gives a whole number."""
    for unit, unit_s in _UNITS_S.items():
        if seconds >= unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:.0f}{unit}"
    return f"{seconds:g}s"
