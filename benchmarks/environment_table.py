"""The machine and the settings of a comparison, one line a fact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hamr_edge.benchmarks.report_tables import ReportTable
from hamr_edge.benchmarks.report_text import printable


def environment_table(environment: Mapping[str, Any]) -> ReportTable:
    """Machine, libraries and date; what could not be read is left out."""
    return _facts("Machine", "As found when the comparison ran.", environment)


def settings_table(config: Mapping[str, Any]) -> ReportTable:
    """The comparison's settings; those that were not given are left out."""
    return _facts("Settings", "Options of the command.", config)


def _facts(title: str, caption: str, values: Mapping[str, Any]) -> ReportTable:
    rows = tuple((printable(name), printable(value)) for name, value in _flat(values, ""))
    return ReportTable(title, caption, ("what", "value"), rows, words=frozenset({"value"}))


def _flat(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        label = f"{before}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping):
            if name == "libraries":
                yield label, ", ".join(f"{library} {version}" for library, version in value.items())
            else:
                yield from _flat(value, f"{label}, ")
        elif isinstance(value, list | tuple):
            if any(isinstance(item, Mapping) for item in value):
                for number, item in enumerate(value):
                    yield from _flat({str(number): item}, f"{label} ")
            elif value:
                yield label, ", ".join(map(str, value))
        elif isinstance(value, bool):
            yield label, "yes" if value else "no"
        elif value is not None:
            yield label, str(value)
