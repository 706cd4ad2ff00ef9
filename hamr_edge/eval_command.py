"""``hamr-edge eval``."""

from __future__ import annotations

from dataclasses import asdict

import click

from hamr_edge.backend import open_backend
from hamr_edge.dataset import open_dataset
from hamr_edge.dataset_option import dataset_option
from hamr_edge.errors import InputError
from hamr_edge.evaluation import can_be_scored, embed_test
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.ranking import RetrievalScores, score_retrieval
from hamr_edge.similarity import usable_device


@click.command(name="eval")
@click.argument("model")
@click.option("--data", metavar="DIR", required=True, help="The data set's folder.")
@dataset_option("--data")
@click.option("--json", "json_file", metavar="FILE", help="Write the scores as JSON; - is stdout, without text.")
@click.option("--mirror", is_flag=True, help="Average each crop with its mirror image.")
@click.option("--rerank", is_flag=True, help="Score k-reciprocal re-ranking too.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference.  [default: the library's]")
@click.option("--quiet", is_flag=True, help="No progress.")
def evaluate_model(
    model: str,
    data: str,
    dataset_kind: str,
    json_file: str | None,
    mirror: bool,
    rerank: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Score MODEL on the data set's query and gallery: rank-1, rank-5, rank-10, mAP and mINP.

    MODEL is a checkpoint folder or an .onnx file. Single query; gallery images of the query's own camera and identity,
    and junk, are left out. Distances are taken on MODEL's GPU where torch is installed and can use it.
    """
    if json_file is not None:
        check_json_target(json_file)
    dataset = open_dataset(data, dataset_kind)
    if not can_be_scored(dataset.query, dataset.gallery):
        raise InputError(
            f"data set {data} cannot be scored: of {len(dataset.query)} queries none has an image of its identity from "
            f"another camera among the {len(dataset.gallery)} of the gallery"
        )
    with open_backend(model, device, threads) as backend:
        embedded = embed_test(backend, dataset, mirror, quiet)
    ranking_device = usable_device(backend.device)
    scores = score_retrieval(*embedded, device=ranking_device)
    reranked = score_retrieval(*embedded, rerank=True, device=ranking_device) if rerank else None
    if json_file is not None:
        about = {
            "reranked": asdict(reranked) if reranked else None,
            "model": model,
            "backend": backend.name,
            "device": backend.device,
            "ranking_device": ranking_device,
            "precision": backend.sidecar.precision,
            "data": dataset.name,
            "cameras_named": dataset.cameras_named,
            "mirror": mirror,
        }
        write_json({**asdict(scores), **about}, json_file)
    if json_file != STDOUT:
        click.echo(_in_words(scores))
        if reranked:
            click.echo(f"{_in_words(reranked)}   re-ranked")
        click.echo(
            f"{scores.queries} queries, {scores.gallery} gallery images of {dataset.name}; {backend.name}, "
            f"{backend.sidecar.precision}{', mirrored' if mirror else ''}"
        )
        if not dataset.cameras_named:
            click.echo("No file name says a camera: images of the query's own camera count as matches too.")


def _in_words(scores: RetrievalScores) -> str:
    shares = {
        "rank-1": scores.rank1,
        "rank-5": scores.rank5,
        "rank-10": scores.rank10,
        "mAP": scores.map,
        "mINP": scores.minp,
    }
    return "   ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items())
