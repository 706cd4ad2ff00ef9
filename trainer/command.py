"""``hamr-edge train``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from hamr_edge.atomic import make_folder
from hamr_edge.dataset import open_dataset
from hamr_edge.errors import InputError
from hamr_edge.trainer.config import PRESETS, Amp, Optimizer, Schedule, TrainConfig
from hamr_edge.trainer.loop import TrainingStopped
from hamr_edge.trainer.loop import resume as resume_training
from hamr_edge.trainer.loop import train as run_training
from hamr_edge.trainer.resnet import BLOCKS
from hamr_edge.trainer.synthetic_data import write_dataset
from hamr_edge.trainer.torch_backend import choose_device

_NETWORK_OPTIONS = ("backbone", "input_size_hw", "stripes", "reduced_dim", "part_dim", "stride_in_1x1")


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the checkpoint.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Where settings start from.  [default: edge]")
@click.option("--pretrained", metavar="imagenet|FILE", help="First weights of the backbone.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or auto.")
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder, with its own settings.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--backbone", type=click.Choice(list(BLOCKS)))
@click.option("--imgsz", "input_size_hw", type=(int, int), metavar="H W", help="Input size in pixels.")
@click.option("--stripes", type=int, help="K: the finest cut of the body; K (K + 1) / 2 parts.")
@click.option("--reduced-dim", type=int, help="Width inside a part's head.")
@click.option("--part-dim", type=int, help="Values a part gives to the embedding.")
@click.option("--stride-in-1x1/--stride-in-3x3", default=None, help="Where the pretrained bottlenecks stride.")
@click.option("--epochs", type=int)
@click.option("--ids-per-batch", type=int, help="P: identities a batch.")
@click.option("--images-per-id", type=int, help="K: images of each.")
@click.option("--optimizer", type=click.Choice(get_args(Optimizer)))
@click.option("--learning-rate", type=float, help="Peak rate of the backbone.")
@click.option("--head-lr-factor", type=float, help="Rate of all else, relative to it.")
@click.option("--weight-decay", type=float)
@click.option("--schedule", type=click.Choice(get_args(Schedule)))
@click.option("--warmup-epochs", type=int)
@click.option("--margin", type=float, help="Of the triplet loss.")
@click.option("--normalize-triplet/--raw-triplet", default=None, help="Triplet loss on unit vectors or raw features.")
@click.option("--label-smoothing", type=float)
@click.option("--flip", type=float, help="Probability of a flip.")
@click.option("--crop-padding", type=int, help="Random crop: padding in pixels.")
@click.option("--erase", type=float, help="Probability of random erasing.")
@click.option("--eval-every", type=int, help="Score every that many epochs; 0: never.")
@click.option("--seed", type=int)
@click.option("--amp", type=click.Choice(get_args(Amp)), help="Mixed precision.")
def train(
    data: Path | None,
    output: Path,
    preset: str | None,
    pretrained: str | None,
    device: str,
    resume: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a network on DATA, a folder in Market-1501's layout; without DATA, on a procedural set in OUTPUT/data.

    Ctrl-C stops after the step under way, with everything saved; --resume goes on from there.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if resume:
        refused = sorted(given) + [name for name, value in (("preset", preset), ("pretrained", pretrained)) if value]
        if refused:
            options_given = ", ".join(
                "--imgsz" if n == "input_size_hw" else f"--{n.replace('_', '-')}" for n in refused
            )
            raise InputError(f"--resume goes on with the run's own settings; leave out {options_given}")
    choose_device(device)
    config = None if resume else _configure(PRESETS[preset or "edge"], given)
    if data is None:
        data = _own_data(output, resume, quiet)
    try:
        if config is None:
            info = resume_training(open_dataset(data), output, device, quiet)
        else:
            info = run_training(config, open_dataset(data), output, pretrained, device, quiet)
    except TrainingStopped as stopped:
        click.echo(f"{stopped}; go on with: hamr-edge train {data} -o {output} --resume", err=True)
        sys.exit(130)
    scores = info.scores
    if scores:
        click.echo(f"rank-1 {100 * scores['rank1']:.1f}  mAP {100 * scores['map']:.1f}  (epoch {scores['epoch']})")
    click.echo(f"checkpoint: {output}")
    click.echo(f"next: hamr-edge export {output} -o BUILD --data {data}")


def _own_data(output: Path, resume: bool, quiet: bool) -> Path:
    """The procedural set of a run, written if it is not there yet."""
    data = output / "data"
    if not data.exists():
        if resume:
            raise InputError(
                f"name the data set that {output} was trained on: hamr-edge train DATA -o {output} --resume"
            )
        make_folder(output, "run folder")
        write_dataset(data, quiet=quiet)
    return data


def _configure(preset: TrainConfig, given: dict[str, Any]) -> TrainConfig:
    network = {name: value for name, value in given.items() if name in _NETWORK_OPTIONS}
    training = {name: value for name, value in given.items() if name not in _NETWORK_OPTIONS}
    return replace(preset, network=replace(preset.network, **network), **training)
