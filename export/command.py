"""``hamr-edge export``."""

from __future__ import annotations

from pathlib import Path

import click

from hamr_edge.dataset_option import dataset_option
from hamr_edge.export.config import PRECISIONS, ExportConfig
from hamr_edge.export.exporting import export_checkpoint
from hamr_edge.progress import stderr_console


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the artifacts.")
@click.option("--data", type=click.Path(path_type=Path), help="Data set whose crops the check uses.")
@dataset_option("--data")
@click.option("--precision", default="fp32", show_default=True, help=f"Comma-separated: {', '.join(PRECISIONS)}.")
@click.option("--batch", "max_batch", type=int, default=32, show_default=True, help="Largest batch.")
@click.option("--min-cosine", type=float, default=0.99999, show_default=True, help="Least agreement of any crop.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the crops of the check.")
@click.option("--quiet", is_flag=True, help="No progress.")
def export(
    checkpoint: Path,
    output: Path,
    data: Path | None,
    dataset_kind: str,
    precision: str,
    max_batch: int,
    min_cosine: float,
    seed: int,
    quiet: bool,
) -> None:
    """Make artifacts of CHECKPOINT, each checked row by row against PyTorch before it gets its name.

    Without --data the check uses procedural figures: enough to find a wrong graph, but real crops say more.
    """
    config = ExportConfig(tuple(name.strip() for name in precision.split(",")), max_batch, min_cosine, seed)
    with stderr_console(quiet).status("exporting and checking"):
        published = export_checkpoint(checkpoint, output, config, data, dataset_kind)
    for path, sidecar in published.items():
        parity = sidecar.parity
        sizes = ", ".join(str(size) for size in parity["batch_sizes"])
        click.echo(
            f"{path}  {path.stat().st_size / 1e6:.1f} MB  {sidecar.embedding_dim} values; {parity['images']} crops at "
            f"batches {sizes}: cosine with PyTorch at least {parity['min_cosine']:.7f}"
        )
    where = f" --data {data}" if data else " --data DATA"
    click.echo(f"next: hamr-edge bench {' '.join(map(str, published))} --reference {checkpoint}{where}")
