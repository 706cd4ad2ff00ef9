"""``--preset`` of ``hamr-edge export``: which files are made of which artifacts, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import InputError
from hamr_edge.export.deepstream_config import refuse_old_engine, require_yaml, write_tracker_config
from hamr_edge.export.triton_config import require_schema
from hamr_edge.export.triton_repository import check_artifact, choose_name, write_repository
from hamr_edge.progress import stderr_console
from hamr_edge.sidecar import load_sidecar

PRESETS = ("deepstream", "ultralytics", "ultralytics-square", "triton")


def require_tools(presets: Sequence[str]) -> None:
    """Pass where everything is installed that presets are checked with.

    Raises:
        UnavailableError: The message names the extra to install.
    """
    if "deepstream" in presets:
        require_yaml()
    if "triton" in presets:
        require_schema()


def export_presets(
    artifacts: Sequence[Path],
    output: Path,
    presets: Sequence[str],
    dataset: ReidDataset | None,
    seed: int,
    quiet: bool,
) -> list[Path]:
    """Make every preset of every artifact that it fits; what it does not fit is said and left out.

    Args:
        artifacts: As published.
        output: Folder for the files; repositories lie in ``triton`` below it.
        presets: Of :data:`PRESETS`.
        dataset: Crops for the check; drawn figures without one.
        seed: Chooses the crops.
        quiet: No progress.

    Returns:
        The ``.onnx`` files that were made.

    Raises:
        InputError: A preset fits none of the artifacts; the message says why. Or a file cannot be made.
        GateError: A file disagrees with its artifact, or an engine of the file that it replaces lies there; it was not
            published.
        UnavailableError: What a preset needs is not installed.
    """
    require_tools(presets)
    fitting = [(artifact, preset) for preset in presets for artifact in _choose_fitting(artifacts, preset)]
    for artifact, preset in fitting:
        if preset == "deepstream":
            path = import_module("hamr_edge.export.presets").preset_path(artifact, output, preset)
            refuse_old_engine(path, load_sidecar(artifact))
        if preset == "triton":
            choose_name(artifact)  # raises where it has none
    made: list[Path] = []
    for artifact, preset in fitting:
        stderr_console(quiet).print(f"{artifact.name}: {preset}: making and checking")
        if preset == "triton":
            _triton(artifact, output)
        else:
            made.append(_float(artifact, output, preset, dataset, seed))
    return made


def _choose_fitting(artifacts: Sequence[Path], preset: str) -> list[Path]:
    """The artifacts that a preset can be made of; the others are said.

    Raises:
        InputError: There is none.
    """
    reasons = {artifact: _misfit(artifact, preset) for artifact in artifacts}
    fitting = [artifact for artifact, reason in reasons.items() if not reason]
    if not fitting:
        raise InputError(f"--preset {preset} fits nothing that was made: {next(iter(reasons.values()), 'no file was')}")
    for reason in filter(None, reasons.values()):
        click.echo(f"warning: left out: {reason}", err=True)
    return fitting


def _misfit(artifact: Path, preset: str) -> str:
    """Why a preset cannot be made of an artifact; nothing where it can."""
    sidecar = load_sidecar(artifact)
    try:
        if preset == "triton":
            check_artifact(artifact, sidecar)
        else:
            import_module("hamr_edge.export.presets").check_preset(artifact, sidecar, preset)  # needs onnx
    except InputError as error:
        return str(error)
    return ""


def _float(artifact: Path, output: Path, preset: str, dataset: ReidDataset | None, seed: int) -> Path:
    float_presets = import_module("hamr_edge.export.presets")
    path, sidecar, difference = float_presets.export_preset(artifact, output, preset, dataset, seed)
    cosine = sidecar.parity["min_cosine"]
    click.echo(f"{path}: lowest cosine with {artifact.name} on the same crops {cosine:.6f}")
    click.echo(f"  {float_presets.describe_difference(difference, preset)}")
    if preset == "deepstream":
        click.echo(f"  {write_tracker_config(path)}: every key agrees with it")
    return Path(path)


def _triton(artifact: Path, output: Path) -> None:
    written = write_repository(artifact, output / "triton")
    words = (
        "every field agrees with Triton's schema and the artifact"
        if written.is_new
        else f"is {artifact.name} already: no new version"
    )
    kept = (
        f"; config.pbtxt is kept as edited, with max_batch_size {written.max_batch_size}"
        if written.keeps_config
        else ""
    )
    click.echo(f"{written.folder}: version {written.version}; {words}{kept}")
