"""``hamr-edge train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hamr_edge.atomic import make_folder
from hamr_edge.errors import InputError
from hamr_edge.trainer.data_choice import DataChoice, data_options
from hamr_edge.trainer.distributed import is_first, on_first, own_device, process_count, process_group, together
from hamr_edge.trainer.loop import TrainingStopped
from hamr_edge.trainer.loop import resume as resume_training
from hamr_edge.trainer.loop import train as run_training
from hamr_edge.trainer.settings_options import configure, refuse_settings, settings_options
from hamr_edge.trainer.synthetic_data import write_dataset


@click.command()
@data_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the checkpoint.")
@click.option("--pretrained", metavar="imagenet|FILE", help="First weights of the backbone.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or auto.")
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder, with its own settings.")
@click.option(
    "--save-minutes",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="Save in mid-epoch too, that often; 0: at the ends of epochs only.",
)
@click.option("--tensorboard", is_flag=True, help="Write OUTPUT/tensorboard beside OUTPUT/log.csv.")
@click.option("--quiet", is_flag=True, help="No progress.")
@settings_options("edge")
def train(
    data: Path | None,
    train_on: Path | None,
    test_on: Path | None,
    dataset_kind: str,
    test_dataset_kind: str,
    output: Path,
    pretrained: str | None,
    device: str,
    resume: bool,
    save_minutes: float,
    tensorboard: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a network on DATA, the folder of a data set; without DATA, on a procedural set in OUTPUT/data.

    Known are Market-1501, DukeMTMC-reID, CUHK03-NP and MSMT17, sets named like these, and one folder for each identity:
    train/<identity>/, query/<identity>/, gallery/<identity>/.

    Ctrl-C stops after the step under way, with everything saved; --resume goes on from there.

    On several GPUs or machines: torchrun --nproc-per-node N -m hamr_edge.trainer, with the same arguments. The
    processes share each batch.
    """
    with process_group(device):
        with together():
            if resume:
                refuse_settings({**settings, "pretrained": pretrained})
            own_device(device)
            config = configure(settings, default_preset="edge")
            choice = DataChoice.from_options(data, train_on, test_on, dataset_kind, test_dataset_kind)
        if choice is None:
            choice = DataChoice(on_first(lambda: _own_data(output, resume, quiet)))
        with together():
            dataset = choice.open()
        try:
            if resume:
                info = resume_training(dataset, output, device, quiet, tensorboard, save_minutes)
            else:
                info = run_training(config, dataset, output, pretrained, device, quiet, tensorboard, save_minutes)
        except TrainingStopped as stopped:
            if is_first():
                again = f"{_program()} {choice.as_typed()} -o {output} --resume"
                click.echo(f"{stopped}; go on with: {again}", err=True)
            sys.exit(130)
        if not is_first():
            return
    scores = info.scores
    if scores:
        click.echo(f"rank-1 {100 * scores['rank1']:.1f}  mAP {100 * scores['map']:.1f}  (epoch {scores['epoch']})")
    click.echo(f"checkpoint: {output}")
    click.echo(f"next: hamr-edge export {output} -o BUILD --data {choice.tested}")


def _program() -> str:
    count = process_count()
    return "hamr-edge train" if count == 1 else f"torchrun --nproc-per-node {count} -m hamr_edge.trainer"


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
