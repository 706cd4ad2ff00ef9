"""Torchreid's OSNet x0.25 through our quantiser: a second network, which the quantiser was not written for.

A measurement, no part of the product. Run ``python -m hamr_edge.calibration.osnet_quantization --help``.

Zhou et al., "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019. Torchreid is not imported, only the
file of its network: the rest of it wants torchvision.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from hamr_edge.calibration.blocks import find_blocks
from hamr_edge.calibration.config import CALIBRATORS, CalibrationConfig
from hamr_edge.calibration.crops import calibration_batches, choose_calibration_crops
from hamr_edge.calibration.held_out import HeldOut, embed_model, load_held_out, measure_loss
from hamr_edge.calibration.search import FLAVOURS, clipped_ranges, write_quantised
from hamr_edge.calibration.sensitivity import sites_of
from hamr_edge.calibration.table import calibrate
from hamr_edge.calibration.tensors import tensors_to_calibrate
from hamr_edge.cli import run_and_exit
from hamr_edge.dataset import open_dataset
from hamr_edge.dataset_option import dataset_option
from hamr_edge.errors import InputError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.machine import describe_machine, library_versions
from hamr_edge.onnx_session import open_session
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from hamr_edge.progress import progress_bar, stdout_console
from hamr_edge.similarity import similarity_blocks

INPUT_SIZE_HW = (256, 128)
NETWORK_FILE = Path("torchreid", "models", "osnet.py")
_OPSET = 20
_MAX_BATCH = 64
_TIMED_BATCH = 8
_ROW_FORMATS = {
    "rank-1 %": ("rank1", 100, ".2f"),
    "mAP %": ("map", 100, ".2f"),
    "min cosine": ("min_cosine", 1, ".4f"),
    "1 % cosine": ("p01_cosine", 1, ".4f"),
    "top-1 agreement %": ("top1_agreement", 100, ".2f"),
    "MB": ("file_bytes", 1e-6, ".2f"),
    "speed, x fp32": ("speed", 1, ".2f"),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--torchreid", required=True, type=click.Path(path_type=Path), metavar="CLONE", help="A clone of it.")
@click.option("--weights", required=True, type=click.Path(path_type=Path), metavar="FILE", help="OSNet x0.25's.")
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The data set.")
@dataset_option("--data")
@click.option(
    "--calibrators",
    multiple=True,
    default=CALIBRATORS,
    type=click.Choice(CALIBRATORS),
    help="May be repeated.  [default: all]",
)
@click.option("--calibration-crops", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--max-crops", type=click.IntRange(min=1), help="Score whole identities while they fit.  [default: all]")
@click.option("--rounds", type=click.IntRange(min=1), default=30, show_default=True, help="Of timing, in turns.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "json_file", metavar="FILE", help="Write the figures as JSON; - is stdout, without text.")
def osnet_quantization(
    torchreid: Path,
    weights: Path,
    data: Path,
    dataset_kind: str,
    calibrators: tuple[str, ...],
    calibration_crops: int,
    max_crops: int | None,
    rounds: int,
    seed: int,
    json_file: str | None,
) -> None:
    """Quantise OSNet x0.25 with each calibrator and measure what it loses.

    Every product is quantised but the gates and the embedding layer; no block is given back. The rows int8 are the
    float32 Q/DQ graph, computed as it is written: there is no float16 in them, and on a CPU they are slow.
    """
    if json_file is not None:
        check_json_target(json_file)
    dataset = open_dataset(data, dataset_kind)
    model = network_to_onnx(load_osnet(torchreid, weights))
    config = CalibrationConfig(calibration_crops, seed=seed)
    chosen = choose_calibration_crops(dataset, config.crops, config.seed)
    batches = calibration_batches(chosen, INPUT_SIZE_HW, config.batch_size)
    table = calibrate(model, tensors_to_calibrate(model), batches, config, quiet=False)
    held_out = load_held_out(model, dataset, INPUT_SIZE_HW, max_crops, seed, quiet=False)
    blocks = find_blocks(model)
    sites = sites_of([block for block in blocks if block.quantised])
    models = {("fp32", ""): model}
    for flavour in FLAVOURS:
        for calibrator in dict.fromkeys(calibrators):
            ranges = clipped_ranges(table, calibrator)
            models[flavour, calibrator] = write_quantised(model, flavour, sites, ranges)
    rows = measure_rows(models, held_out, rounds, seed)
    report = {
        "environment": _environment(),
        "seed": seed,
        "dataset": dataset.name,
        "queries": held_out.scores.queries,
        "images": len(held_out.images),
        "calibration_crops": len(chosen),
        "calibration": table.key,
        "float_blocks": [block.name for block in blocks if not block.quantised],
        "timed": {"batch": _TIMED_BATCH, "rounds": rounds},
        "rows": rows,
    }
    if json_file is not None:
        write_json(report, json_file)
    if json_file != STDOUT:
        _print_report(report)


def load_osnet(clone: Path, weights: Path) -> nn.Module:
    """OSNet x0.25 with its weights, in evaluation mode: (N, 3, 256, 128) normalised RGB to (N, 512).

    Raises:
        InputError: The clone or the weights are missing, or are not what they should be.
    """
    source = clone / NETWORK_FILE
    if not source.is_file():
        raise InputError(
            f"--torchreid {clone} holds no {NETWORK_FILE}; clone github.com/KaiyangZhou/deep-person-reid and name its "
            "folder"
        )
    if not weights.is_file():
        raise InputError(f"--weights {weights} is not there; torchreid's model zoo has osnet_x0_25_market1501.pth")
    spec = importlib.util.spec_from_file_location("torchreid_osnet", source)
    if spec is None or spec.loader is None:
        raise InputError(f"{source} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        build = module.osnet_x0_25
    except (ImportError, SyntaxError, AttributeError) as error:
        raise InputError(f"{source} is not torchreid's OSNet: {error}") from error
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network: nn.Module = build(num_classes=len(state["classifier.weight"]), pretrained=False)
        network.load_state_dict(state)
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"--weights {weights} holds no weights of OSNet x0.25: {error}") from error
    return network.eval()


class DeployOsnet(nn.Module):
    """uint8 (N, H, W, 3) BGR crops to float32 embeddings of unit norm; batch normalisation is folded in place."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = fold_batch_norms(network)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN_RGB))
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD_RGB))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) BGR to (N, 512)."""
        pixels = images.float().flip(3)
        unit: Tensor = functional.normalize(self.network(((pixels - self.mean) / self.std).permute(0, 3, 1, 2)))
        return unit


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold every batch normalisation into the convolution or dense layer that stands before it."""
    for module in list(network.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())
            elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                setattr(module, name, fuse_linear_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())
    return network


def network_to_onnx(network: nn.Module) -> onnx.ModelProto:
    """The fp32 ONNX form: ``images`` uint8 (batch, 256, 128, 3) BGR to ``embeddings`` float32 (batch, 512)."""
    images = torch.zeros(2, *INPUT_SIZE_HW, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notes on its own future
        program = torch.onnx.export(
            DeployOsnet(network).eval(),
            (images,),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)}},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    for node in model.graph.node:  # the exporter's notes are longer than the weights
        node.ClearField("metadata_props")
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def measure_rows(
    models: Mapping[tuple[str, str], onnx.ModelProto], held_out: HeldOut, rounds: int, seed: int
) -> list[dict[str, Any]]:
    """What each model scores, how it agrees with the float32 network, its size and its time.

    Args:
        models: By (flavour, calibrator); the float32 network first.
        held_out: The people to measure on.
        rounds: Turns of each model.
        seed: Of the turns' order.
    """
    nearest = _nearest(held_out.embeddings, held_out)
    rows = []
    with progress_bar() as progress:
        task = progress.add_task("models", total=len(models), note="")
        for (flavour, calibrator), model in models.items():
            embeddings = embed_model(model, held_out.images, fuse_quantised=flavour == "int8-cpu")
            rows.append(
                {
                    "flavour": flavour,
                    "calibrator": calibrator,
                    **asdict(measure_loss(embeddings, held_out)),
                    "top1_agreement": float(np.mean(_nearest(embeddings, held_out) == nearest)),
                    "file_bytes": model.ByteSize(),
                }
            )
            progress.advance(task)
    times_ms = _time_rounds(models, held_out.images[:_TIMED_BATCH], rounds, np.random.default_rng(seed))
    for row, own_ms in zip(rows, times_ms.T, strict=True):
        low, speed, high = np.percentile(times_ms[:, 0] / own_ms, (5, 50, 95)).tolist()
        row |= {"ms_a_crop": float(np.median(own_ms)), "speed": speed, "speed_low": low, "speed_high": high}
    return rows


def _nearest(embeddings: NDArray[np.float32], held_out: HeldOut) -> NDArray[np.intp]:
    """(Q,) the gallery row of greatest cosine for each query."""
    query, gallery = np.split(embeddings, [len(held_out.crops.query)])
    return np.concatenate([block.argmax(axis=1) for _, block in similarity_blocks(query, gallery)])


def _time_rounds(
    models: Mapping[tuple[str, str], onnx.ModelProto],
    images: NDArray[np.uint8],
    rounds: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """(rounds, models) milliseconds a crop, all models in random order in every round; a first round is not counted."""
    sessions: Sequence[Any] = [
        open_session(model.SerializeToString(), "cpu", spin=False, fuse_quantised=flavour == "int8-cpu")[0]
        for (flavour, _), model in models.items()
    ]
    times_ms = np.empty((rounds + 1, len(sessions)))
    for number in range(rounds + 1):
        for place in rng.permutation(len(sessions)):
            begun = time.perf_counter()
            sessions[place].run(None, {"images": images})
            times_ms[number, place] = 1e3 * (time.perf_counter() - begun) / len(images)
    return times_ms[1:]


def _environment() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **describe_machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "libraries": library_versions(),
    }


def _print_report(report: dict[str, Any]) -> None:
    console = stdout_console()
    environment = report["environment"]
    console.print(
        f"{environment['cpu']}, load {environment['load_average']}, {environment['date']}; {report['dataset']}: "
        f"{report['queries']} queries, {report['images']} crops; calibrated on {report['calibration_crops']} crops; "
        f"in float: {', '.join(report['float_blocks'])}; batch {report['timed']['batch']}, {report['timed']['rounds']} "
        "rounds in turns",
        markup=False,
        soft_wrap=True,
    )
    table = Table("network", "calibrator", box=SIMPLE_HEAD)
    for title in _ROW_FORMATS:
        table.add_column(title, justify="right")
    for row in report["rows"]:
        figures = [f"{factor * row[key]:{form}}" for key, factor, form in _ROW_FORMATS.values()]
        table.add_row(row["flavour"], row["calibrator"], *figures)
    console.print(table)


if __name__ == "__main__":
    run_and_exit(osnet_quantization, "python -m hamr_edge.calibration.osnet_quantization")
