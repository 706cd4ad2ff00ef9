"""The command ``hamr-edge embed``."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

import click

from hamr_edge.annotate import AnnotatedVideo
from hamr_edge.detections import load_detections
from hamr_edge.detector import open_detector
from hamr_edge.embed_report import format_report
from hamr_edge.embed_source import embed_source, people_of_detections, people_of_detector
from hamr_edge.embedder import Embedder
from hamr_edge.embedding_table import EmbeddingTable, import_pyarrow, table_metadata
from hamr_edge.identities import DEFAULT_IDENTITY_THRESHOLD, Identities
from hamr_edge.nms import DEFAULT_NMS_IOU
from hamr_edge.output_file import OutputFile
from hamr_edge.progress import progress_bar
from hamr_edge.stop_request import StopRequest
from hamr_edge.video import DEFAULT_FOLDER_FPS, hide_password, open_source

_log = logging.getLogger(__name__)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("source")
@click.option("--model", "-m", required=True, type=click.Path(path_type=Path), help="Artifact or checkpoint folder.")
@click.option("--detections", type=_FILE, help="Boxes in MOT text: frame,id,x,y,w,h,score; frames from 1.")
@click.option("--detector", help="'hog', or a YOLOX model's .onnx file.")
@click.option("--output", "-o", required=True, type=_FILE, help="Parquet file to write.")
@click.option("--video", type=_FILE, help="Annotated .mp4 to write: alike people have one colour.")
@click.option("--device", default="auto", show_default=True, help="Of the model: auto, cpu or cuda:N.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of one inference.")
@click.option("--max-frames", type=click.IntRange(1), help="Stop after so many frames.")
@click.option("--fps", type=float, help=f"Frames a second of a folder of images.  [default: {DEFAULT_FOLDER_FPS:g}]")
@click.option("--detections-scale", type=float, help="Factor for the boxes of --detections.  [default: 1]")
@click.option(
    "--min-score",
    type=float,
    help="Leave out boxes below it.  [default: 0.4 for YOLOX, 0.8 for hog, none for --detections]",
)
@click.option("--nms-iou", type=float, help=f"Overlap at which the better box wins.  [default: {DEFAULT_NMS_IOU:g}]")
@click.option(
    "--min-height",
    type=float,
    help="Leave out detections lower than this many pixels.  [default: 0 for YOLOX, a seventh of the frame for hog]",
)
@click.option("--detector-device", help="Of a YOLOX model: auto, cpu or cuda:N.  [default: auto]")
@click.option(
    "--identity-threshold",
    type=float,
    help=f"Least cosine for one colour in --video.  [default: {DEFAULT_IDENTITY_THRESHOLD:g}]",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def embed(
    source: str,
    model: Path,
    detections: Path | None,
    detector: str | None,
    output: Path,
    video: Path | None,
    device: str,
    threads: int | None,
    max_frames: int | None,
    fps: float | None,
    detections_scale: float | None,
    min_score: float | None,
    nms_iou: float | None,
    min_height: float | None,
    detector_device: str | None,
    identity_threshold: float | None,
    quiet: bool,
) -> None:
    """Embed the people in SOURCE: a video file, a folder of images, a camera's number or a URL.

    Writes one row a person to a Parquet file: frame (from 1), time (seconds), box (x1, y1, x2, y2 in pixels), score,
    embedding. Ctrl-C ends the run and keeps what was embedded; a live source knows no other end. An error keeps it as
    OUT.partial.parquet.
    """
    if (detections is None) == (detector is None):
        raise click.UsageError("give either --detections FILE or --detector hog|FILE.onnx")
    _refuse("--detections", detections is None, {"--detections-scale": detections_scale})
    _refuse(
        "--detector",
        detector is None,
        {"--nms-iou": nms_iou, "--min-height": min_height, "--detector-device": detector_device},
    )
    _refuse("--video", video is None, {"--identity-threshold": identity_threshold})
    # All that can be wrong is found before the long work.
    import_pyarrow()
    for path, suffix in ((output, ".parquet"), (video, ".mp4")):
        if path is not None:
            OutputFile(path, suffix)
            if path.exists() and Path(source).exists() and path.samefile(source):
                raise click.UsageError(f"{path} is the source; write to another file")
    frames = open_source(source, fps)
    embedder = Embedder(model, device, threads)
    found_by = str(detections) if detections is not None else str(detector)
    if detections is not None:
        boxes = load_detections(detections, 1.0 if detections_scale is None else detections_scale, min_score)
        find_people = people_of_detections(boxes, frames)
    else:
        finder = open_detector(
            str(detector),
            detector_device or "auto",
            threads,
            min_score,
            DEFAULT_NMS_IOU if nms_iou is None else nms_iou,
            min_height,
        )
        found_by, find_people = finder.name, people_of_detector(finder)
    sidecar = embedder.sidecar
    metadata = table_metadata(sidecar, model=str(model), source=hide_password(source), people=found_by)
    threshold = DEFAULT_IDENTITY_THRESHOLD if identity_threshold is None else identity_threshold
    identities = Identities(sidecar.embedding_dim, threshold)
    with ExitStack() as stack:
        stack.enter_context(frames)
        stack.enter_context(embedder)
        stop = stack.enter_context(StopRequest())
        picture = None if video is None else stack.enter_context(AnnotatedVideo(video, identities, frames.fps))
        table = stack.enter_context(EmbeddingTable(output, sidecar.embedding_dim, metadata))
        progress = stack.enter_context(progress_bar(quiet))
        total = min(max_frames or frames.frame_count or 0, frames.frame_count or max_frames or 0) or None
        task = progress.add_task("embedding", total=total, note="")

        def show(done: int, people: int) -> None:
            speed = progress.tasks[0].speed or 0.0
            progress.update(task, completed=done, note=f"{speed:.1f} frames/s, {people} people")

        summary = embed_source(frames, find_people, embedder, table, picture, max_frames, lambda: stop.requested, show)
    if detections is not None and summary.ending == "source":
        unused = boxes.count_after(summary.frames)
        if unused:
            _log.warning("%s: %d boxes are of frames after the last, %d", detections, unused, summary.frames)
    facts = {
        "source": frames.name,
        "model": f"{model} ({sidecar.precision}, {sidecar.embedding_dim} values, {embedder.backend_name})",
        "people by": found_by,
    }
    click.echo(format_report(summary, facts, [path for path in (output, video) if path is not None]))
    if summary.ending == "request" and not frames.is_live:
        raise click.Abort


def _refuse(needs: str, absent: bool, options: dict[str, float | str | None]) -> None:
    """An option that would do nothing is a mistake."""
    for name, value in options.items():
        if absent and value is not None:
            raise click.UsageError(f"{name} is for {needs} only")
