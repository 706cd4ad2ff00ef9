"""``hamr-edge doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from hamr_edge import __version__
from hamr_edge.doctor import Finding, can_embed, examine_all
from hamr_edge.errors import UnavailableError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.machine import describe_machine
from hamr_edge.progress import stdout_console

_COLOURS = {"works": "green", "missing": "yellow", "broken": "red"}


@click.command()
@click.option(
    "--json",
    "json_file",
    metavar="[FILE]",
    is_flag=False,
    flag_value=STDOUT,
    help="Write the findings as JSON; stdout, without tables, when no file is named.",
)
@click.option("--quiet", is_flag=True, help="Only what does not work.")
def doctor(json_file: str | None, quiet: bool) -> None:
    """What is installed, which devices and backends work, and why the others do not.

    Exit code 4 where the runtime itself cannot work: no backend runs a model.
    """
    if json_file is not None:
        check_json_target(json_file)
    machine, findings = describe_machine(), examine_all()
    works = can_embed(findings)
    if json_file is not None:
        report = {"hamr_edge": __version__, "can_embed": works, "machine": machine}
        write_json({**report, "findings": [asdict(finding) for finding in findings]}, json_file)
    if json_file != STDOUT:
        _print_findings(machine, findings, quiet)
    if not works:
        raise UnavailableError("no backend can run a model here; pip install 'hamr-edge[onnx]'")


def _print_findings(machine: dict[str, object], findings: list[Finding], quiet: bool) -> None:
    console = stdout_console()
    if not quiet:
        gpus = machine["gpus"]
        console.print(f"hamr-edge {__version__}, Python {machine['python']}, {machine['os']}", markup=False)
        console.print(f"CPU {machine['cpu']}, {machine['cores']} cores", markup=False)
        console.print(f"GPU {', '.join(gpus) if isinstance(gpus, list) and gpus else 'none seen'}", markup=False)
    table = Table(box=SIMPLE_HEAD)
    for column in ("what", "", "version", "found", "for"):
        table.add_column(column, overflow="fold")
    shown = [finding for finding in findings if not quiet or finding.status != "works"]
    for finding in shown:
        status = f"[{_COLOURS[finding.status]}]{finding.status}[/]"
        table.add_row(finding.name, status, finding.version, escape(finding.detail), finding.needed_for)
    if shown:
        console.print(table)
    for finding in shown:
        if finding.remedy:
            console.print(f"{finding.name}: {finding.remedy}", markup=False, soft_wrap=True)
