"""The run behind ``hamr-edge embed``: from cameras to a table and annotated videos."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from hamr_edge.annotate import AnnotatedVideo
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.embed_report import EmbedSummary
from hamr_edge.embedding_table import EmbeddingTable
from hamr_edge.errors import InputError
from hamr_edge.frame_reader import FrameReader
from hamr_edge.identities import Identities
from hamr_edge.output_file import OutputFile
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.timeline import Timeline

_TICK_S = 10.0


class AnnotatedVideos:
    """A video a camera, in which alike people have one colour across cameras. A context manager.

    Args:
        path: The ``.mp4`` to make; of several cameras, ``NAME.CAMERA.mp4`` beside it.
        cameras: Whose frames come.
        readers: One for each; says how fast its video plays.
        identities: Gives the numbers.

    Attributes:
        paths: The file of each camera, by its name; no two are the same.

    Raises:
        InputError: A file cannot be made there.
    """

    def __init__(
        self, path: Path, cameras: Sequence[Camera], readers: Sequence[FrameReader], identities: Identities
    ) -> None:
        if len(cameras) == 1:
            self.paths = {cameras[0].name: path}
        else:
            files = _name_files([camera.name for camera in cameras])
            self.paths = {name: path.with_name(f"{path.stem}.{file}{path.suffix}") for name, file in files.items()}
        for file in self.paths.values():
            OutputFile(file, ".mp4")
        self._readers = {camera.name: reader for camera, reader in zip(cameras, readers, strict=True)}
        self._identities = identities
        self._videos: dict[str, AnnotatedVideo] = {}
        self._stack = ExitStack()

    def __enter__(self) -> AnnotatedVideos:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def append(self, seen: EmbeddedFrame) -> None:
        """Draw one frame's people into its camera's video; see :meth:`AnnotatedVideo.append`."""
        video = self._videos.get(seen.camera)
        if video is None:  # how fast it plays is known once its source is open
            fps = self._readers[seen.camera].source.fps
            video = AnnotatedVideo(self.paths[seen.camera], self._identities, fps)
            self._videos[seen.camera] = self._stack.enter_context(video)
        video.append(seen.frame, seen.boxes, seen.embeddings)

    def written(self, is_part: bool) -> list[Path]:
        """The videos that were made: whole, or parts after an error."""
        return [video.partial if is_part else self.paths[name] for name, video in self._videos.items()]


def _name_files(names: Sequence[str]) -> dict[str, str]:
    """What each camera's file is called; two names may be one where signs are replaced, or case does not count."""
    files: dict[str, str] = {}
    taken = set()
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name)
        unique, count = plain, 1
        while unique.casefold() in taken:
            count += 1
            unique = f"{plain}-{count}"
        taken.add(unique.casefold())
        files[name] = unique
    return files


@dataclass(frozen=True, slots=True)
class EmbedRun:
    """How a run ended."""

    summary: EmbedSummary
    failure: BaseException | None
    """See :meth:`CameraPipeline.failure`."""


def embed_cameras(
    cameras: Sequence[Camera],
    readers: Sequence[FrameReader],
    service: EmbeddingService,
    table: EmbeddingTable,
    timeline: Timeline,
    *,
    videos: AnnotatedVideos | None = None,
    max_frames: int | None = None,
    detect_lanes: int = 1,
    should_stop: Callable[[], bool] | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> EmbedRun:
    """Embed everyone that the cameras see. A frame with an embedding that cannot be kept counts as failed.

    Args:
        cameras: Their sources are read to their ends.
        readers: One for each.
        service: Open; gives spans to ``timeline`` too.
        table: Open; gets a row a person. Its caller closes it, and so publishes or keeps a part.
        timeline: Gets the stages' spans; stopped at the end.
        videos: Open; get every frame with its people drawn.
        max_frames: Of each camera.
        detect_lanes: See :class:`CameraPipeline`.
        should_stop: Asked several times a second; True ends the run as the sources' end would.
        on_frame: Told after each frame how many frames and people there were so far.

    Raises:
        HamrEdgeError: A result cannot be written; what came before it is in the table.
    """
    frames = people = 0
    pipeline = CameraPipeline(
        cameras,
        service,
        readers=readers,
        max_frames=max_frames,
        detect_lanes=detect_lanes,
        should_stop=should_stop,
        timeline=timeline,
    )
    with pipeline:
        for seen in pipeline.frames(_TICK_S):
            if seen is None:
                table.save_when_due()
                continue
            try:
                with timeline.span("write", seen.camera):
                    table.append(seen)
            except InputError as error:  # what the frame holds; the disk's errors end the run
                pipeline.frame_failed(seen, error)
                continue
            if videos is not None:
                with timeline.span("annotate", seen.camera):
                    videos.append(seen)
            frames, people = frames + 1, people + len(seen.boxes)
            if on_frame is not None:
                on_frame(frames, people)
    timeline.stop()
    ending: Literal["source", "max_frames", "request"] = "source"
    if should_stop is not None and should_stop():
        ending = "request"
    elif pipeline.has_reached_max_frames:
        ending = "max_frames"
    summary = EmbedSummary(pipeline.report(), ending, timeline.total_s, timeline.stage_seconds, service.metrics())
    return EmbedRun(summary, pipeline.failure())
