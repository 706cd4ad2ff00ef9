"""``hamr-edge eval``."""

from __future__ import annotations

from dataclasses import asdict

import click

from hamr_edge.backend import open_backend
from hamr_edge.dataset import open_dataset
from hamr_edge.evaluation import evaluate
from hamr_edge.json_file import STDOUT, check_json_target, write_json


@click.command(name="eval")
@click.argument("model")
@click.option("--data", metavar="DIR", required=True, help="Data set in Market-1501's layout.")
@click.option("--json", "json_file", metavar="FILE", help="Write the scores as JSON; - is stdout, without text.")
@click.option("--mirror", is_flag=True, help="Average each crop with its mirror image.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference.  [default: the library's]")
@click.option("--quiet", is_flag=True, help="No progress.")
def evaluate_model(
    model: str, data: str, json_file: str | None, mirror: bool, device: str, threads: int | None, quiet: bool
) -> None:
    """Score MODEL on the data set's query and gallery: rank-1, rank-5, rank-10 and mAP.

    MODEL is a checkpoint folder or an .onnx file.
    """
    if json_file is not None:
        check_json_target(json_file)
    dataset = open_dataset(data)
    with open_backend(model, device, threads) as backend:
        scores = evaluate(backend, dataset, mirror, quiet)
    if json_file is not None:
        about = {
            "model": model,
            "backend": backend.name,
            "device": backend.device,
            "precision": backend.sidecar.precision,
            "data": dataset.name,
            "mirror": mirror,
        }
        write_json({**asdict(scores), **about}, json_file)
    if json_file != STDOUT:
        ranks = (("rank-1", scores.rank1), ("rank-5", scores.rank5), ("rank-10", scores.rank10), ("mAP", scores.map))
        click.echo("   ".join(f"{name} {100 * share:.2f} %" for name, share in ranks))
        click.echo(
            f"{scores.queries} queries, {scores.gallery} gallery images of {dataset.name}; {backend.name}, "
            f"{backend.sidecar.precision}{', mirrored' if mirror else ''}"
        )
