"""Prometheus' text format, version 0.0.4: what every metric begins with."""

from __future__ import annotations

PREFIX = "hamr_edge_"


def metric_head(name: str, kind: str, words: str) -> list[str]:
    """The two lines before a metric's values.

    Args:
        name: Without :data:`PREFIX`.
        kind: ``gauge``, ``counter`` or ``histogram``.
        words: What it measures.
    """
    return [f"# HELP {PREFIX}{name} {words}", f"# TYPE {PREFIX}{name} {kind}"]


def escape_label(value: str) -> str:
    r"""A label's value as it stands between quotes.

    >>> escape_label('the "door"')
    'the \\"door\\"'
    """
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
