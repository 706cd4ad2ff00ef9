"""The command ``hamr-edge watch``."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from hamr_edge.camera_flags import (
    FOREVER,
    camera_flags,
    check_camera_flags,
    choose_cameras,
    choose_threads,
    reconnect_rule,
    refuse_options,
)
from hamr_edge.camera_health import CameraHealth
from hamr_edge.cameras import CameraPipeline
from hamr_edge.embed_report import EmbedSummary, format_report
from hamr_edge.embedder import Embedder
from hamr_edge.errors import UnavailableError
from hamr_edge.followed_gallery import FollowedGallery
from hamr_edge.frame_reader import FrameReader
from hamr_edge.gallery_index import IndexKind
from hamr_edge.identities import DEFAULT_IDENTITY_THRESHOLD, Identities
from hamr_edge.looped_source import LoopedSource
from hamr_edge.malloc_arenas import limit_malloc_arenas
from hamr_edge.mjpeg_page import LOCAL_HOSTS, MjpegPage
from hamr_edge.naming import Naming
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.progress import stderr_console
from hamr_edge.stderr_log import quiet_log
from hamr_edge.stop_request import StopRequest
from hamr_edge.timeline import TimedSource, Timeline
from hamr_edge.video import hide_password
from hamr_edge.watch import Window, show_state, watch_cameras
from hamr_edge.watch_state import WatchState


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@camera_flags
@click.option(
    "--gallery",
    "gallery_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Known people; read again when the file changes, so who is forgotten there loses the name here.",
)
@click.option(
    "--threshold",
    type=float,
    help="Least cosine for a name of --gallery; 'hamr-edge bench' measures one for a model.  "
    f"[default: {DEFAULT_IDENTITY_THRESHOLD:g}]",
)
@click.option(
    "--index",
    type=click.Choice(["exact", "flat", "codes"]),
    help="How --gallery is searched; codes serves a million embeddings and needs FAISS.  [default: exact]",
)
@click.option(
    "--allow-mixed",
    is_flag=True,
    help="Accept a --gallery of a precision that is not known to agree with the model's.",
)
@click.option("--http", metavar="[HOST:]PORT", help="A page with the pictures; on this machine only without HOST.")
@click.option("--window", is_flag=True, help="A window with the pictures; q ends.")
@click.option("--loop", is_flag=True, help="Recordings begin again at their end.")
@click.option("--fast", is_flag=True, help="Recordings as fast as they are read, not at their own speed.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after so long.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on stderr but what ends the run.")
def watch(
    sources: tuple[str, ...],
    gallery_file: Path | None,
    threshold: float | None,
    index: IndexKind | None,
    allow_mixed: bool,
    http: str | None,
    window: bool,
    loop: bool,
    fast: bool,
    seconds: float | None,
    quiet: bool,
    **flags: Any,
) -> None:
    """Watch each SOURCE live: who is there, by the names of a gallery, else by numbers, the same on all cameras.

    SOURCE is as for embed; recordings play at their own speed, and frames that the machine cannot follow are dropped.
    The terminal shows a line a camera; --http and --window show pictures. Nothing is recorded. Ctrl-C ends.

    --http without a HOST is for this machine. With one, whoever reaches it sees people, without a password. It also has
    /metrics for Prometheus, and /healthz, which answers 503 while no camera runs.

    A camera that is away is waited for (--reconnect). When every camera has failed, watch ends with an error.
    """
    check_camera_flags(flags, sources)
    limit_malloc_arenas()
    if quiet:
        click.get_current_context().with_resource(quiet_log())
    refuse_options(
        "--gallery",
        gallery_file is None,
        {"--threshold": threshold, "--index": index, "--allow-mixed": allow_mixed or None},
    )
    embedder = Embedder(flags["model"], flags["device"], choose_threads(flags))
    sidecar = embedder.sidecar
    gallery = None
    if gallery_file is not None:
        gallery = FollowedGallery(gallery_file, sidecar, index or "exact", allow_mixed=allow_mixed)
    least = DEFAULT_IDENTITY_THRESHOLD if threshold is None else threshold
    naming = Naming(Identities(sidecar.embedding_dim), gallery, least)
    chosen = choose_cameras(sources, flags)
    timeline = Timeline()
    sources_timed = [TimedSource(camera.source, timeline, camera.name) for camera in chosen.cameras]
    readers = [
        FrameReader(
            LoopedSource(source) if loop else source,
            when_full="block" if fast else "drop_oldest",
            reconnect=reconnect_rule(flags, FOREVER),
            stall_after_s=flags["stall_after"],
            paced=not fast,
        )
        for source in sources_timed
    ]
    names = [camera.name for camera in chosen.cameras]
    deadline = None if seconds is None else time.monotonic() + seconds
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        shown = Window() if window else None
        stack.enter_context(embedder)
        service = stack.enter_context(
            EmbeddingService(
                embedder,
                max_delay_ms=flags["max_delay_ms"],
                max_batch=flags["max_batch"],
                queue_size=2,
                when_full="block" if fast else "drop_oldest",
                timeline=timeline,
            )
        )
        pipeline = CameraPipeline(
            chosen.cameras,
            service,
            readers=readers,
            in_flight=3,
            detect_lanes=flags["detect_lanes"],
            should_stop=lambda: stop.requested or (deadline is not None and time.monotonic() >= deadline),
            timeline=timeline,
        )
        state = WatchState(names, pipeline, service, readers)
        health = CameraHealth(pipeline, readers, state)
        page = None if http is None else stack.enter_context(_page(http, names, service, health, quiet))
        with pipeline, show_state(state, quiet):
            watch_cameras(pipeline, naming, state, page, shown)
        if shown is not None:
            shown.close()
    timeline.stop()
    reports = pipeline.report()
    summary = EmbedSummary(
        reports,
        "source" if all(report.state in ("ended", "failed") for report in reports.values()) else "request",
        timeline.total_s,
        timeline.stage_seconds,
        service.metrics(),
    )
    facts = {
        "source": ", ".join(hide_password(source) for source in sources),
        "model": f"{flags['model']} ({sidecar.precision}, {sidecar.embedding_dim} values, {embedder.backend_name})",
        "people by": chosen.found_by,
        "gallery": "none" if gallery is None else f"{gallery_file}, {len(gallery.gallery.people())} people",
    }
    click.echo(format_report(summary, facts, []))
    failure = pipeline.failure()
    lost = [
        report.state == "failed" or (report.state == "ended" and reader.source.is_live)
        for report, reader in zip(reports.values(), readers, strict=True)
    ]
    if all(lost):
        raise failure or UnavailableError("every camera stopped giving frames")
    if failure is not None and not any(report.embedded for report in reports.values()):
        raise failure


def _page(http: str, names: list[str], service: EmbeddingService, health: CameraHealth, quiet: bool) -> MjpegPage:
    """The page that ``--http`` asks for, listening."""
    host, _, port = http.rpartition(":")
    if not port.isdecimal():
        raise click.UsageError(f"--http is [HOST:]PORT, such as 8080 or 127.0.0.1:8080; got {http!r}")
    page = MjpegPage(
        names,
        lambda: service.prometheus_text() + health.prometheus_text(),
        host.strip("[]") or "127.0.0.1",
        int(port),
        health.trouble,
    )
    page.open()
    console = stderr_console(quiet)
    console.print(f"watch at {page.url}", markup=False, soft_wrap=True)
    if page.host not in LOCAL_HOSTS:
        console.print(
            f"whoever reaches {page.host} sees these people: there is no encryption and no password",
            style="yellow",
            markup=False,
        )
    return page
