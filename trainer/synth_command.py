"""``hamr-edge synth``."""

from __future__ import annotations

from pathlib import Path

import click

from hamr_edge.atomic import check_target
from hamr_edge.trainer.synthetic_data import write_dataset, write_video


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--ids", type=int, default=48, show_default=True, help="Identities; half of them are for training.")
@click.option("--cameras", type=int, default=4, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same files.")
@click.option("--video", type=click.Path(path_type=Path), help="Also write a video (.avi, .mp4) and its detections.")
@click.option("--quiet", is_flag=True, help="No progress.")
def synth(folder: Path, ids: int, cameras: int, seed: int, video: Path | None, quiet: bool) -> None:
    """Write a procedural data set of pedestrian-like figures to FOLDER, in Market-1501's layout."""
    if video is not None:
        check_target(video, "--video")
    write_dataset(folder, ids, cameras, seed, quiet)
    click.echo(f"data set: {folder}")
    if video is not None:
        detections = write_video(video, seed=seed)
        click.echo(f"video: {video}, detections: {detections}")
