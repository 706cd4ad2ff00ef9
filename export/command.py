"""``hamr-edge export``."""

from __future__ import annotations

from pathlib import Path

import click

from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CALIBRATORS, CalibrationConfig
from hamr_edge.dataset_option import dataset_option
from hamr_edge.export.config import FORMS, PRECISIONS, ExportConfig
from hamr_edge.export.export_report import write_reports
from hamr_edge.export.exporting import export_checkpoint


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the artifacts.")
@click.option("--data", type=click.Path(path_type=Path), help="Data set: crops to check, calibrate and judge on.")
@dataset_option("--data")
@click.option("--precision", default="fp32", show_default=True, help=f"Comma-separated: {', '.join(PRECISIONS)}.")
@click.option("--form", default="crops", show_default=True, help=f"Comma-separated: {', '.join(FORMS)}.")
@click.option("--batch", "max_batch", type=int, default=32, show_default=True, help="Largest batch.")
@click.option("--min-cosine", type=float, help="Least agreement of any crop; as well as the precision allows.")
@click.option("--embedding-dim", type=int, help="Compact embeddings of so many values (PCA-whitening); needs --data.")
@click.option(
    "--calibrator",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *CALIBRATORS]),
    help="How int8 ranges are chosen; auto tries all.",
)
@click.option("--calibration-crops", type=int, default=512, show_default=True, help="Training crops int8 is made on.")
@click.option("--allow-random-calibration", is_flag=True, help="int8 from noise, without --data: to try the way only.")
@click.option("--max-map-drop", type=float, default=0.5, show_default=True, help="Points of mAP int8 may lose.")
@click.option("--max-rank1-drop", type=float, default=0.3, show_default=True, help="Points of rank-1 int8 may lose.")
@click.option("--min-p01-cosine", type=float, default=0.98, show_default=True, help="Least 1st percentile, int8.")
@click.option("--held-out-crops", type=int, default=2000, show_default=True, help="Most crops int8 is judged on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the crops.")
@click.option("--quiet", is_flag=True, help="No progress.")
def export(
    checkpoint: Path,
    output: Path,
    data: Path | None,
    dataset_kind: str,
    precision: str,
    form: str,
    max_batch: int,
    min_cosine: float | None,
    embedding_dim: int | None,
    calibrator: str,
    calibration_crops: int,
    allow_random_calibration: bool,
    max_map_drop: float,
    max_rank1_drop: float,
    min_p01_cosine: float,
    held_out_crops: int,
    seed: int,
    quiet: bool,
) -> None:
    """Make artifacts of CHECKPOINT, each checked row by row against PyTorch before it gets its name.

    Without --data the check uses procedural figures: enough to find a wrong graph, but real crops say more.

    int8 is calibrated on training crops. On people held out, every block of the network is measured alone, and blocks
    go back to float until the budget holds.
    """
    config = ExportConfig(
        precisions=_names(precision),
        forms=_names(form),
        max_batch=max_batch,
        min_cosine=min_cosine,
        seed=seed,
        embedding_dim=embedding_dim,
        calibration=CalibrationConfig(calibration_crops, calibrator, seed, allow_random_calibration),
        budget=Budget(max_map_drop, max_rank1_drop, min_p01_cosine),
        held_out_crops=held_out_crops,
    )
    exported = export_checkpoint(checkpoint, output, config, data, dataset_kind, quiet)
    write_reports(exported, output, quiet)
    where = f" --data {data}" if data else " --data DATA"
    reference = checkpoint if embedding_dim is None else next(iter(exported.artifacts))
    click.echo(f"next: hamr-edge bench {' '.join(map(str, exported.artifacts))} --reference {reference}{where}")


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(","))
