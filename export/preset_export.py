"""``--preset`` of ``hamr-edge export``: which files are made of which artifacts, and what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import InputError
from hamr_edge.export.deepstream_config import require_yaml, write_tracker_config
from hamr_edge.export.triton_repository import write_repository
from hamr_edge.progress import stderr_console
from hamr_edge.sidecar import load_sidecar

PRESETS = ("deepstream", "ultralytics", "ultralytics-square", "triton")


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
        InputError: A preset fits none of the artifacts; the message says why.
        GateError: A file disagrees with its artifact; it was not published.
        UnavailableError: What a preset needs is not installed.
    """
    made: list[Path] = []
    for preset in presets:
        reasons = []
        for artifact in artifacts:
            stderr_console(quiet).print(f"{artifact.name}: {preset}: making and checking")
            try:
                made += (
                    _triton(artifact, output) if preset == "triton" else _float(artifact, output, preset, dataset, seed)
                )
            except InputError as error:
                reasons.append(str(error))
                stderr_console(quiet).print(f"left out: {error}")
        if len(reasons) == len(artifacts):
            raise InputError(f"--preset {preset} fits nothing that was made: {reasons[0]}")
    return made


def _float(artifact: Path, output: Path, preset: str, dataset: ReidDataset | None, seed: int) -> list[Path]:
    float_presets = import_module("hamr_edge.export.presets")  # needs onnx
    float_presets.check_preset(artifact, load_sidecar(artifact), preset)
    if preset == "deepstream":
        require_yaml()  # before minutes are spent
    path, sidecar, difference = float_presets.export_preset(artifact, output, preset, dataset, seed)
    cosine = sidecar.parity["min_cosine"]
    click.echo(f"{path}: lowest cosine with {artifact.name} on the same crops {cosine:.6f}")
    click.echo(f"  {float_presets.describe_difference(difference, preset)}")
    if preset == "deepstream":
        click.echo(f"  {write_tracker_config(path)}: every key agrees with it")
    return [path]


def _triton(artifact: Path, output: Path) -> list[Path]:
    written = write_repository(artifact, output / "triton")
    checked = (
        "every field agrees with Triton's schema and the artifact"
        if written.is_checked
        else "not checked: tritonclient, which has Triton's schema, is not installed"
    )
    click.echo(f"{written.folder}: version {written.version}; {checked}")
    return []
