"""What ``export --dry-run`` prints."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from hamr_edge.export.engine_builder import BuildPlan
from hamr_edge.progress import stdout_console

_MIB = 1 << 20


def print_inspection(model: Path, plan: BuildPlan) -> None:
    """What would be built of a model, and by what."""
    table = Table(show_header=False, box=None, title=f"{model.name}: nothing built", title_justify="left")
    rows = {
        "library": plan.built_by,
        **{f"input {name}": words for name, words in plan.inputs.items()},
        **{f"output {name}": words for name, words in plan.outputs.items()},
        "layers": str(plan.layers),
        **({} if plan.dla_layers is None else {"layers for the DLA": str(plan.dla_layers)}),
        **{f"profile {name}": ", ".join(map(str, shapes)) for name, shapes in plan.profile.items()},
        "host memory": _memory(plan.need.host_wanted, plan.need.host_free),
        "GPU memory": "no GPU here"
        if plan.need.device_free is None
        else _memory(plan.need.device_wanted, plan.need.device_free)
        + (", shared with the host" if plan.need.shared else ""),
        "workspace": "the library's own limit" if plan.workspace_mib is None else f"{plan.workspace_mib:,} MiB",
        "enough memory": plan.need.missing or "yes",
        "the library": plan.objection or "would build it",
    }
    for name, words in rows.items():
        table.add_row(name, words)
    stdout_console().print(table)


def _memory(wanted: int, free: int | None) -> str:
    known = "unknown" if free is None else f"{free // _MIB:,} MiB"
    return f"about {wanted // _MIB:,} MiB wanted, {known} free"
