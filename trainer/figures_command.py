"""``hamr-edge figures``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from hamr_edge.dataset import open_dataset
from hamr_edge.dataset_option import dataset_option
from hamr_edge.errors import InputError
from hamr_edge.trainer.activation_maps import MapSource
from hamr_edge.trainer.figures import FiguresConfig, make_figures

_DEFAULTS = FiguresConfig()


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", metavar="DIR", required=True, help="Data set whose query split and gallery are shown.")
@dataset_option("--data")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the figures.")
@click.option("--baseline", type=click.Path(path_type=Path), help="A second checkpoint, of any network, to compare.")
@click.option("--queries", type=int, help=f"Queries to draw, a third of them bad ones.  [default: {_DEFAULTS.queries}]")
@click.option("--query", "names", metavar="FILE", multiple=True, help="Show this query; may be given several times.")
@click.option("--top", type=int, default=_DEFAULTS.top, show_default=True, help="Best matches of each query.")
@click.option(
    "--map",
    "source",
    type=click.Choice(get_args(MapSource)),
    default=_DEFAULTS.source,
    show_default=True,
    help="Activation maps: of the last stage, attention included; of that stage before it; of all stages fused.",
)
@click.option("--mirror", is_flag=True, help="Average each crop with its mirror image.")
@click.option("--seed", type=int, default=_DEFAULTS.seed, show_default=True, help="Of the drawn queries.")
@click.option("--device", default=_DEFAULTS.device, show_default=True, help="cpu, cuda:N or auto.")
@click.option("--quiet", is_flag=True, help="No progress.")
def figures(
    checkpoint: Path,
    data: str,
    dataset_kind: str,
    output: Path,
    baseline: Path | None,
    queries: int | None,
    names: tuple[str, ...],
    top: int,
    source: MapSource,
    mirror: bool,
    seed: int,
    device: str,
    quiet: bool,
) -> None:
    """Draw what CHECKPOINT finds, where it looks and how it learnt: PNG files and one HTML page.

    Best matches of some queries, activation maps, CMC and training curves; with --baseline, another checkpoint's too.
    Needs Matplotlib: pip install 'hamr-edge[figures]'.
    """
    if names and queries is not None:
        raise InputError("--query names the queries to show; leave out --queries, which draws some")
    config = FiguresConfig(_DEFAULTS.queries if queries is None else queries, names, top, source, mirror, seed, device)
    made = make_figures(checkpoint, open_dataset(data, dataset_kind), output, baseline, config, quiet)
    for model, ranking in zip(made.models, made.rankings, strict=True):
        click.echo(f"{model.name}: rank-1 {100 * ranking.scores.rank1:.2f} %   mAP {100 * ranking.scores.map:.2f} %")
        if model.log is None:
            click.echo(f"{model.folder} has no training log: no curves of the {model.role}", err=True)
    page, *pictures = made.files
    click.echo(f"page: {page}")
    click.echo(f"figures: {', '.join(picture.name for picture in pictures)}")
