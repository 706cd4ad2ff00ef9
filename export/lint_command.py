"""``hamr-edge lint``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from hamr_edge.errors import GateError
from hamr_edge.export.deepstream_config import find_tracker_faults
from hamr_edge.export.lint import lint
from hamr_edge.export.lint_graph import ALL_TARGETS, ERROR, WARNING, Finding
from hamr_edge.export.triton_config import CONFIG_NAME
from hamr_edge.export.triton_repository import find_model_faults
from hamr_edge.json_file import STDOUT, check_json_target, write_json

_SHOWN = 5
"""Findings of one rule in one file that are written out."""


@click.command(name="lint")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--target",
    "targets",
    type=click.Choice(ALL_TARGETS),
    multiple=True,
    default=ALL_TARGETS,
    help="What is to take the model; may be given several times.  [default: all]",
)
@click.option("--json", "json_file", metavar="FILE", help="Write the findings as JSON; - is stdout, without text.")
@click.option("--quiet", is_flag=True, help="Only errors.")
def lint_models(models: tuple[str, ...], targets: tuple[str, ...], json_file: str | None, quiet: bool) -> None:
    """Say what TensorRT or ONNX Runtime would refuse in an .onnx file, or read otherwise, before a builder does.

    A MODEL may also be what --preset of export wrote and somebody edited: a DeepStream tracker's .yml, or a model's
    folder in a Triton repository. It is held against its artifact, whatever --target says.

    Exit code 3 where a target would refuse a MODEL or read it otherwise without a word; warnings do not count.
    """
    if json_file is not None:
        check_json_target(json_file)
    targets = tuple(dict.fromkeys(targets))
    configs = {model for model in models if _is_config(Path(model))}
    found = {model: _lint_config(Path(model)) if model in configs else lint(model, targets) for model in models}
    if json_file is not None:
        listed = [{"model": model, "findings": [asdict(item) for item in items]} for model, items in found.items()]
        write_json({"schema": 1, "targets": targets, "models": listed}, json_file)
    if json_file != STDOUT:
        for model, items in found.items():
            _print_findings(model, items, quiet)
            if model in configs and not items and not quiet:
                click.echo(f"{model}: every field agrees with its artifact")
    failed = [model for model, items in found.items() if _count(items, ERROR)]
    if failed:
        or_choose = "" if configs.issuperset(failed) else ", or name the targets you need: --target"
        raise GateError(f"lint found errors in {', '.join(failed)}; mend them{or_choose}")


def _is_config(path: Path) -> bool:
    return path.suffix in (".yml", ".yaml") or path.name == CONFIG_NAME or (path / CONFIG_NAME).is_file()


def _lint_config(path: Path) -> list[Finding]:
    """Hold a configuration of a preset against its artifact; errors first."""
    if path.suffix in (".yml", ".yaml"):
        tool, place, faults = "deepstream", "ReID", find_tracker_faults(path)
    else:
        folder = path.parent if path.name == CONFIG_NAME else path
        tool, place, faults = "triton", CONFIG_NAME, find_model_faults(folder)
    findings = [
        Finding(fault.field, ERROR if fault.is_error else WARNING, place, (tool,), fault.message) for fault in faults
    ]
    return sorted(findings, key=lambda finding: finding.severity != ERROR)


def _count(findings: list[Finding], severity: str) -> int:
    return sum(finding.severity == severity for finding in findings)


def _print_findings(model: str, findings: list[Finding], quiet: bool) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    shown = [finding for finding in findings if finding.severity == ERROR or not quiet]
    for finding in shown:
        kind = (finding.rule, finding.severity)
        seen[kind] += 1
        if seen[kind] <= _SHOWN:
            where = f"{finding.rule} at {finding.name}" if finding.name else finding.rule
            click.echo(f"{finding.severity}: {where} ({', '.join(finding.targets)}): {finding.message}")
    for (rule, severity), count in seen.items():
        if count > _SHOWN:
            click.echo(f"{severity}: {rule}: {count - _SHOWN} more; --json has them all")
    errors = _count(findings, ERROR)
    click.echo(f"{model}: {errors} errors, {len(findings) - errors} warnings")
