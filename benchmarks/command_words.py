"""A comparison's settings as the command that repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.results import BenchReport

_REPEATED = {"batches": "--batch", "budgets": "--budget", "beside": "--beside", "peers": "--peer"}
_RENAMED = {"torch_modes": "--torch", "input_description": "--input"}


def command_words(report: BenchReport) -> str:
    """``hamr-edge bench ...`` with what differs from the defaults; options that this version lacks are left out."""
    artifacts = [result.artifact for result in report.judged]
    words = [*artifacts, "--reference", report.reference.artifact, "--data", str(report.data["folder"])]
    return shlex.join(["hamr-edge", "bench", *words, *_options(report.config)])


def _options(config: dict[str, Any]) -> Iterator[str]:
    defaults = BenchConfig().to_json()
    for name, value in config.items():
        if name not in defaults or value == defaults[name] or value is None:
            continue
        option = _REPEATED.get(name) or _RENAMED.get(name) or f"--{name.replace('_', '-')}"
        if name in _REPEATED:
            for item in value:
                yield from (option, str(item))
        elif isinstance(value, list):
            yield from (option, ",".join(map(str, value)))
        elif isinstance(value, bool):
            yield option
        else:
            yield from (option, str(value))
