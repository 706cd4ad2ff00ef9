"""Checkpoint to checked artifacts."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from hamr_edge import __version__
from hamr_edge.atomic import make_folder, replace_file
from hamr_edge.backend import open_backend
from hamr_edge.calibration.search import QuantisedNetwork
from hamr_edge.dataset import ReidDataset, open_dataset
from hamr_edge.errors import GateError, InputError
from hamr_edge.export.check_source import CheckSource, make_source
from hamr_edge.export.compact import Projection, describe_compact, learn_from_dataset
from hamr_edge.export.compact_report import DIMS, CompactReport, report_dimensions
from hamr_edge.export.config import ExportConfig
from hamr_edge.export.frame_graph import write_frame_form
from hamr_edge.export.half import KeptFloat
from hamr_edge.export.lint import lint
from hamr_edge.export.lint_graph import ALL_TARGETS, ERROR, ONNXRUNTIME
from hamr_edge.export.onnx_export import export_onnx, save_onnx
from hamr_edge.export.precision_models import PrecisionModel, PrecisionModels
from hamr_edge.export.publish import publish
from hamr_edge.export.raw_embeddings import embed_raw
from hamr_edge.export.sensitivity_report import sensitivity_json
from hamr_edge.progress import stderr_console
from hamr_edge.scored_crops import choose_crops
from hamr_edge.sidecar import Sidecar, external_data_path
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.network import Hamr

_FP32 = "model.fp32.onnx"


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made."""

    artifacts: dict[Path, Sidecar]
    searches: dict[Path, QuantisedNetwork] = field(default_factory=dict)
    """How each int8 artifact came about."""
    float_nodes: dict[Path, tuple[KeptFloat, ...]] = field(default_factory=dict)
    """What stays float32 in each float16 graph."""
    compact: CompactReport | None = None


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    config: ExportConfig,
    data: Path | None = None,
    dataset_kind: str = "auto",
    quiet: bool = True,
) -> Exported:
    """Write every artifact asked for, each checked against PyTorch before it gets its name.

    Args:
        checkpoint: A checkpoint folder.
        output: Folder for ``model.<precision>.onnx``, ``model.<precision>.frame.onnx``, sidecars and reports.
        config: What to export.
        data: Data set: the check takes crops of its gallery, or else of its training split; int8 is calibrated on its
            training crops and judged on its query and gallery; compact embeddings are learned on its training crops.
            Procedural figures serve the check without one.
        dataset_kind: What ``data`` is; see :func:`hamr_edge.dataset.open_dataset`.
        quiet: No progress.

    Raises:
        InputError: The checkpoint or the data set cannot be read, or int8 or compact embeddings lack a data set.
        GateError: An artifact disagrees with PyTorch or loses more than its budget; it was not published.
    """
    network, _, _ = load_checkpoint(checkpoint)
    dataset = None if data is None else open_dataset(data, dataset_kind)
    _check_data(dataset, config)
    with open_backend(checkpoint, "cpu") as reference:
        sidecar = replace(
            reference.sidecar,
            max_batch=config.max_batch,
            made_by=f"hamr-edge {__version__}, torch {torch.__version__}, onnx {onnx.__version__}",
        )
        projection, report = _make_compact(network, dataset, config, quiet)
        embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = reference.infer
        if projection is not None and dataset is not None:
            sidecar = describe_compact(sidecar, projection, dataset.name, config.seed)
            embed = _compact_embed(network, projection)
        source = make_source(dataset, embed, sidecar, config.forms, config.seed)
    exported = Exported({}, compact=report)
    make_folder(output, "output folder")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=output) as folder:
        base = Path(folder) / _FP32
        export_onnx(network, base, config.max_batch, projection=projection)
        models = PrecisionModels(onnx.load(base), sidecar, dataset, source.crops.crops, output, config, quiet)
        for precision in config.precisions:
            stderr_console(quiet).print(f"{precision}: making and checking")
            _publish_precision(precision, base, output, sidecar, source, models, config, exported)
    return exported


def _publish_precision(
    precision: str,
    base: Path,
    output: Path,
    sidecar: Sidecar,
    source: CheckSource,
    models: PrecisionModels,
    config: ExportConfig,
    exported: Exported,
) -> None:
    """Publish one precision in every form asked for, and note in ``exported`` what was made."""
    made: PrecisionModel | None = None
    own = base.with_name(f"model.{precision}.onnx")
    if precision != "fp32":
        made = models.make(precision)
        sidecar = replace(sidecar, precision_detail=made.detail)
        save_onnx(made.model, own)
    for form in config.forms:
        judge = models.judge if precision.startswith("int8") and form == config.forms[0] else None
        path = output / (own.name if form == "crops" else f"model.{precision}.frame.onnx")
        write = _linted(precision, _copy(own) if form == "crops" else _reform(own))
        exported.artifacts[path] = publish(
            path,
            replace(sidecar, precision=precision, form=form),
            write,
            source.of_form(form),
            config.least_cosine(precision, form),
            judge,
        )
        if made is not None and made.search is not None:
            exported.searches[path] = made.search
        if made is not None:
            exported.float_nodes[path] = made.float_nodes
    if made is not None and made.search is not None and made.search.blocks:
        report = json.dumps(sensitivity_json(made.search, own.name), indent=1) + "\n"
        replace_file(output / f"model.{precision}.report.json", lambda part: part.write_text(report, encoding="utf-8"))
    if precision != "fp32":
        own.unlink()


def _copy(made: Path) -> Callable[[Path], object]:
    """Writes a model, and its external data where it has any, under another folder's name."""

    def write(path: Path) -> None:
        for source in (made, external_data_path(made)):
            if source.exists():
                shutil.copyfile(source, path.with_name(source.name))

    return write


def _linted(precision: str, write: Callable[[Path], object]) -> Callable[[Path], object]:
    """Writes, and refuses what the precision's targets would refuse or read otherwise."""
    targets = (ONNXRUNTIME,) if precision == "int8-cpu" else ALL_TARGETS

    def write_and_lint(path: Path) -> None:
        write(path)
        errors = [finding for finding in lint(path, targets) if finding.severity == ERROR]
        if errors:
            raise GateError(
                f"{path.name} would not be taken by {', '.join(errors[0].targets)}: {errors[0].name}: "
                f"{errors[0].message} ({len(errors)} such findings); nothing was published"
            )

    return write_and_lint


def _reform(made: Path) -> Callable[[Path], object]:
    return lambda path: write_frame_form(made, path)


def _check_data(dataset: ReidDataset | None, config: ExportConfig) -> None:
    """Say what is missing before minutes are spent."""
    quantised = [name for name in config.precisions if name.startswith("int8")]
    if dataset is None and quantised and not config.calibration.allow_random:
        raise InputError(
            f"{quantised[0]} needs --data: it is calibrated on training crops and judged on people held out; to try "
            "the way with noise, add --allow-random-calibration"
        )
    if dataset is None and config.embedding_dim is not None:
        raise InputError("--embedding-dim needs --data: the projection is learned on training crops")


def _make_compact(
    network: Hamr, dataset: ReidDataset | None, config: ExportConfig, quiet: bool
) -> tuple[Projection | None, CompactReport | None]:
    """The projection to compact embeddings and its report, where they are asked for."""
    if config.embedding_dim is None or dataset is None:
        return None, None
    whole = learn_from_dataset(network, dataset, config.embedding_dim, config.seed, most=max(DIMS), quiet=quiet)
    people = choose_crops(dataset, config.held_out_crops, config.seed)
    report = report_dimensions(
        network, people.query, people.gallery, whole, config.embedding_dim, dataset.name, quiet=quiet
    )
    return whole.first(config.embedding_dim), report


def _compact_embed(network: Hamr, projection: Projection) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    return lambda crops: projection.apply(embed_raw(network, crops))
