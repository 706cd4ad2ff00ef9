"""``hamr-edge export``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hamr_edge.dataset import ReidDataset, open_dataset
from hamr_edge.dataset_option import dataset_option
from hamr_edge.errors import InputError
from hamr_edge.export.checkpoint_flags import checkpoint_config, checkpoint_flags, refuse_checkpoint_flags
from hamr_edge.export.config import ExportConfig
from hamr_edge.export.engine_export import ENGINE_PRECISIONS, check_precisions, export_engine, inspect_engine
from hamr_edge.export.engine_flags import engine_config, engine_flags, refuse_engine_flags
from hamr_edge.export.engine_report import print_inspection
from hamr_edge.export.preset_export import PRESETS, export_presets, require_tools
from hamr_edge.progress import stderr_console
from hamr_edge.sidecar import Sidecar

if TYPE_CHECKING:
    from hamr_edge.export.exporting import Exported

_FORMATS = ("onnx", "engine")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the artifacts.")
@click.option("--data", type=click.Path(path_type=Path), help="Data set: crops to check, calibrate and judge on.")
@dataset_option("--data")
@click.option("--format", "formats", help="onnx, engine or both, by a comma.  [default: onnx; engine, of an .onnx]")
@click.option("--batch", "max_batch", type=int, help="Largest batch.  [default: 32, or that of the .onnx]")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the crops.")
@click.option("--preset", "presets", help=f"For the tools of others, beside the plain files: {', '.join(PRESETS)}.")
@checkpoint_flags
@engine_flags
@click.option("--quiet", is_flag=True, help="No progress.")
def export(
    model: Path,
    output: Path,
    data: Path | None,
    dataset_kind: str,
    formats: str | None,
    max_batch: int | None,
    seed: int,
    presets: str | None,
    quiet: bool,
    **flags: Any,
) -> None:
    """Make artifacts of MODEL, each checked row by row before it gets its name.

    MODEL is a checkpoint folder: ONNX files are made of it and held against PyTorch, and with --format onnx,engine
    TensorRT engines of those. Or it is such an .onnx file, with --format engine: that is how engines are built on the
    device that will run them, where neither PyTorch nor the checkpoint is needed.

    Without --data the check uses procedural figures: enough to find a wrong graph, but real crops say more.

    --preset makes of each file in the crops form what another tool takes: deepstream, ultralytics, ultralytics-square
    (.onnx with float input) or triton (a model repository). MODEL may be the .onnx file.

    int8 is calibrated on training crops. On people held out, every block of the network is measured alone, and blocks
    go back to float until the budget holds.
    """
    engines = engine_config(flags, max_batch, seed)
    is_onnx = model.suffix == ".onnx" and not model.is_dir()
    asked = _read_presets(presets)
    if is_onnx and asked and formats is None:
        refuse_checkpoint_flags(click.get_current_context())
        refuse_engine_flags(click.get_current_context())
        export_presets([model], output, asked, _open_data(data, dataset_kind), seed, quiet)
        return
    wanted = _read_formats(formats or ("engine" if is_onnx else "onnx"))
    if is_onnx and wanted != {"engine"}:
        raise InputError(f"{model} is an .onnx file already; --format engine builds a TensorRT engine of it")
    require_tools(asked)  # before minutes are spent
    if flags["dry_run"]:
        if asked:
            raise InputError("--dry-run makes nothing that --preset could take; leave one of them out")
        if not is_onnx:
            raise InputError(f"--dry-run parses an .onnx file, got {model}; export the checkpoint to one first")
        refuse_checkpoint_flags(click.get_current_context())
        print_inspection(model, inspect_engine(model, engines))
        return
    if is_onnx:
        refuse_checkpoint_flags(click.get_current_context())
        made, engine_sources, reference = list[Path](), [model], model
    else:
        config = checkpoint_config(flags, max_batch, seed)
        if "engine" in wanted:
            check_precisions(config.precisions)
        artifacts = _export_checkpoint(model, output, config, data, dataset_kind, quiet)
        made = list(artifacts)
        engine_sources = [path for path, sidecar in artifacts.items() if sidecar.precision in ENGINE_PRECISIONS]
        # What a compact artifact reproduces is not the checkpoint.
        reference = model if config.embedding_dim is None else made[0]
    if "engine" in wanted:
        dataset = _open_data(data, dataset_kind)
        for source in engine_sources:
            stderr_console(quiet).print(f"{source.name}: building and checking the engine")
            path, sidecar = export_engine(source, output, engines, dataset, quiet)
            made.append(path)
            if reason := sidecar.parity.get("unchecked"):
                click.echo(f"{path} is unchecked: {reason}; 'hamr-edge bench' checks it where it runs", err=True)
    if asked:
        made += export_presets(made, output, asked, _open_data(data, dataset_kind), seed, quiet)
    where = f" --data {data}" if data else " --data DATA"
    click.echo(f"next: hamr-edge bench {' '.join(map(str, made))} --reference {reference}{where}")


def _export_checkpoint(
    checkpoint: Path, output: Path, config: ExportConfig, data: Path | None, dataset_kind: str, quiet: bool
) -> dict[Path, Sidecar]:
    """Make the ONNX files; what they need is imported here, since engines are built where PyTorch is not."""
    exporting = import_module("hamr_edge.export.exporting")
    export_report = import_module("hamr_edge.export.export_report")
    exported: Exported = exporting.export_checkpoint(checkpoint, output, config, data, dataset_kind, quiet)
    export_report.write_reports(exported, output, quiet)
    return exported.artifacts


def _open_data(data: Path | None, dataset_kind: str) -> ReidDataset | None:
    return None if data is None else open_dataset(data, dataset_kind)


def _read_presets(listed: str | None) -> tuple[str, ...]:
    asked = () if listed is None else tuple(dict.fromkeys(word.strip() for word in listed.split(",")))
    if unknown := set(asked) - set(PRESETS):
        raise InputError(f"preset must be of {', '.join(PRESETS)}, got {', '.join(sorted(unknown)) or 'nothing'}")
    return asked


def _read_formats(listed: str) -> set[str]:
    wanted = {word.strip() for word in listed.split(",")}
    if unknown := wanted - set(_FORMATS):
        raise InputError(f"format must be of {', '.join(_FORMATS)}, got {', '.join(sorted(unknown)) or 'nothing'}")
    return wanted
