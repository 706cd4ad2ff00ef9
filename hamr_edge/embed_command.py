"""The command ``hamr-edge embed``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from hamr_edge.arrow_spill import import_pyarrow
from hamr_edge.camera_flags import (
    ChosenCameras,
    camera_flags,
    check_camera_flags,
    choose_cameras,
    choose_threads,
    make_readers,
    refuse_options,
)
from hamr_edge.embed_cameras import AnnotatedVideos, EmbedRun, embed_cameras
from hamr_edge.embed_report import format_report
from hamr_edge.embedder import Embedder
from hamr_edge.embedding_table import EmbeddingTable, table_metadata
from hamr_edge.frame_reader import FrameReader
from hamr_edge.identities import DEFAULT_IDENTITY_THRESHOLD, Identities
from hamr_edge.malloc_arenas import limit_malloc_arenas
from hamr_edge.output_file import OutputFile
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.progress import progress_bar
from hamr_edge.stop_request import StopRequest
from hamr_edge.text_file import to_writable
from hamr_edge.timeline import Timeline
from hamr_edge.video import hide_password

_log = logging.getLogger(__name__)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@camera_flags
@click.option("--output", "-o", required=True, type=_FILE, help="Parquet file to write.")
@click.option(
    "--video", type=_FILE, help="Annotated .mp4 to write: alike people have one colour. Of several: NAME.CAMERA.mp4."
)
@click.option("--timeline", "trace", type=_FILE, help="Trace of the stages to write, .json; ui.perfetto.dev shows it.")
@click.option("--max-frames", type=click.IntRange(1), help="Stop after so many frames of each SOURCE.")
@click.option(
    "--identity-threshold",
    type=float,
    help=f"Least cosine for one colour in --video.  [default: {DEFAULT_IDENTITY_THRESHOLD:g}]",
)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def embed(
    sources: tuple[str, ...],
    output: Path,
    video: Path | None,
    trace: Path | None,
    max_frames: int | None,
    identity_threshold: float | None,
    quiet: bool,
    **flags: Any,
) -> None:
    """Embed the people in each SOURCE: a video file, a folder of images, a camera's number, a URL or 'gst:PIPELINE'.

    Several sources run side by side, and their people share the model's batches. Writes one row a person to a Parquet
    file: camera, frame (from 1), time (seconds), unix_time (of live sources), box (x1, y1, x2, y2 in pixels), score,
    embedding. Ctrl-C ends the run and keeps what was embedded; a live source knows no other end.

    A source that fails leaves the others running. The rows are then kept as OUT.partial.parquet, as after any error;
    those of a run that was killed, the next run keeps as OUT.recovered.parquet.
    """
    check_camera_flags(flags, sources)
    limit_malloc_arenas()
    refuse_options("--video", video is None, {"--identity-threshold": identity_threshold})
    # All that can be wrong is found before the long work.
    import_pyarrow()
    for path, suffix in ((output, ".parquet"), (video, ".mp4"), (trace, ".json")):
        if path is not None:
            OutputFile(path, suffix)
    embedder = Embedder(flags["model"], flags["device"], choose_threads(flags))
    chosen = choose_cameras(sources, flags)
    sidecar = embedder.sidecar
    all_sources = ", ".join(hide_password(source) for source in sources)
    metadata = table_metadata(sidecar, model=str(flags["model"]), source=all_sources, people=chosen.found_by)
    threshold = DEFAULT_IDENTITY_THRESHOLD if identity_threshold is None else identity_threshold
    identities = Identities(sidecar.embedding_dim, threshold)
    table, timeline = EmbeddingTable(output, sidecar.embedding_dim, metadata), Timeline()
    readers = make_readers(chosen.cameras, flags, timeline)
    videos = None if video is None else AnnotatedVideos(video, chosen.cameras, readers, identities)
    for path in (output, trace, *(videos.paths.values() if videos is not None else ())):
        _refuse_to_overwrite(path, sources)
    run: EmbedRun | None = None
    try:
        with ExitStack() as stack:
            stack.enter_context(embedder)
            stop = stack.enter_context(StopRequest())
            if videos is not None:
                stack.enter_context(videos)
            progress = stack.enter_context(progress_bar(quiet))
            stack.enter_context(table)
            service = EmbeddingService(
                embedder, max_delay_ms=flags["max_delay_ms"], max_batch=flags["max_batch"], timeline=timeline
            )
            stack.enter_context(service)
            task = progress.add_task("embedding", total=None, note="")

            def show(done: int, people: int) -> None:
                speed = progress.tasks[0].speed or 0.0
                note = f"{speed:.1f} frames/s, {people} people"
                progress.update(task, completed=done, total=_expected_frames(readers, max_frames), note=note)

            run = embed_cameras(
                chosen.cameras,
                readers,
                service,
                table,
                timeline,
                videos=videos,
                max_frames=max_frames,
                detect_lanes=flags["detect_lanes"],
                should_stop=lambda: stop.requested,
                on_frame=show,
            )
            progress.update(task, description="writing")  # the table's copy may take minutes
            if run.failure is not None:
                raise run.failure
    finally:
        if trace is not None:
            timeline.write_trace(trace)
        if run is not None and run.summary.frames:
            is_part = run.failure is not None
            written = [table.partial if is_part else output] + (videos.written(is_part) if videos is not None else [])
            facts = {
                "source": all_sources,
                "model": f"{flags['model']} ({sidecar.precision}, {sidecar.embedding_dim} values, "
                f"{embedder.backend_name})",
                "people by": chosen.found_by,
            }
            files = [path for path in [*written, trace] if path is not None and path.exists()]
            click.echo(to_writable(format_report(run.summary, facts, files)))
    if run.summary.ending == "source":
        _warn_of_unused_boxes(chosen, run)
    if run.summary.ending == "request" and not any(reader.source.is_live for reader in readers):
        raise click.Abort


def _expected_frames(readers: Sequence[FrameReader], max_frames: int | None) -> int | None:
    """Frames of all sources, None while one of them does not say."""
    total = 0
    for reader in readers:
        count = getattr(reader.source, "frame_count", None)  # known once it is open
        if count is None and max_frames is None:
            return None
        total += min(count or max_frames or 0, max_frames or count or 0)
    return total


def _refuse_to_overwrite(path: Path | None, sources: Sequence[str]) -> None:
    for source in sources:
        if path is not None and path.exists() and Path(source).exists() and path.samefile(source):
            raise click.UsageError(f"{path} is the source; write to another file")


def _warn_of_unused_boxes(chosen: ChosenCameras, run: EmbedRun) -> None:
    for name, boxes in chosen.detections.items():
        last = run.summary.cameras[name].embedded
        if unused := boxes.count_after(last):
            _log.warning("%s: %d boxes are of frames after the last, %d", boxes.path, unused, last)
