"""Read bench's JSON reports, also such as an older version wrote: what is missing or of another kind is None."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hamr_edge.benchmarks.results import SCHEMA
from hamr_edge.errors import InputError

_WRITE = "name a file that 'hamr-edge bench --json' wrote"


def read_report(path: str | Path) -> dict[str, Any]:
    """Read a report that ``bench --json`` wrote; fields that an older version did not write are missing.

    Raises:
        InputError: The file cannot be read, is no JSON, is no report, or is of another schema.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"report {path} cannot be read: {error.strerror or error}; {_WRITE}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"report {path} is no JSON: {error}; {_WRITE}") from error
    if not isinstance(values, dict) or "schema" not in values or "results" not in values:
        keys = ", ".join(list(values)[:5]) if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{path} is no report of bench: expected schema, reference and results, got {keys}; {_WRITE}")
    if values["schema"] != SCHEMA:
        raise InputError(
            f"report {path} is of schema {values['schema']!r}, this version reads {SCHEMA}; write it again with this "
            "version's bench, on the same artifacts"
        )
    if not isinstance(values.get("reference"), dict):
        raise InputError(f"report {path} names no reference: it is not whole; write it again")
    for place, result in enumerate(values["results"] if isinstance(values["results"], list) else [None]):
        if not (isinstance(result, dict) and isinstance(result.get("artifact"), str)):
            raise InputError(f"report {path}: entry {place} of results names no artifact: it is not whole")
    return values


def value_of(values: Mapping[str, Any], *path: str) -> Any:
    """What lies at the end of nested names; None where one is missing."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def number(values: Mapping[str, Any], *path: str) -> float | None:
    """A finite number, or None."""
    found = value_of(values, *path)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def text_of(values: Mapping[str, Any], *path: str) -> str:
    """A text; empty where there is none."""
    found = value_of(values, *path)
    return found if isinstance(found, str) else ""


def entries(values: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The mappings in a list; empty where there is none."""
    found = values.get(name)
    listed = found if isinstance(found, Sequence) and not isinstance(found, str) else ()
    return [entry for entry in listed if isinstance(entry, Mapping)]
