"""The loop from frames to embeddings: read, find the people, crop, embed, write; and what it says at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hamr_edge.annotate import AnnotatedVideo
from hamr_edge.detections import Detections
from hamr_edge.detector import PersonDetector
from hamr_edge.embedder import Embedder
from hamr_edge.embedding_table import EmbeddingTable
from hamr_edge.stage_clock import StageClock
from hamr_edge.video import Capture, Frame, FrameSource

FindPeople = Callable[[Frame], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Gives the (N, 4) xyxy boxes and (N,) scores of one frame."""


@dataclass(frozen=True, slots=True)
class EmbedSummary:
    """What a run did and where its time went."""

    frames: int
    people: int
    last_time_s: float
    """Time of the last frame, in seconds since the first."""
    ending: Literal["source", "max_frames", "request"]
    """What ended the run: the source was over, enough frames were read, or somebody asked to stop."""
    total_s: float
    stage_seconds: dict[str, float]
    """Seconds of each stage and of ``other``; they sum to ``total_s``."""

    @property
    def frames_per_s(self) -> float:
        """Frames a second of the whole run, 0 when there was none."""
        return self.frames / self.total_s if self.total_s > 0 else 0.0


def people_of_detector(detector: PersonDetector) -> FindPeople:
    """People as a detector finds them."""
    return lambda frame: detector.detect(frame.image)


def people_of_detections(detections: Detections, source: FrameSource) -> FindPeople:
    """People as a file of detections says; the whole file is held against a video's size at the first frame."""

    def find(frame: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        size_hw = (frame.image.shape[0], frame.image.shape[1])
        if frame.number == 1 and isinstance(source, Capture):
            detections.check_inside(size_hw)
        return detections.in_frame(frame.number, size_hw)

    return find


def embed_source(
    source: FrameSource,
    find_people: FindPeople,
    embedder: Embedder,
    table: EmbeddingTable,
    video: AnnotatedVideo | None = None,
    max_frames: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> EmbedSummary:
    """Embed everyone in a source.

    Args:
        source: Open; read to its end.
        find_people: See :func:`people_of_detector` and :func:`people_of_detections`.
        embedder: Open.
        table: Open; gets a row a person. Its caller closes it, and so publishes or keeps a part.
        video: Open; gets every frame with its people drawn.
        max_frames: Stop after so many frames.
        should_stop: Asked before each frame; True ends the run as the source's end would.
        on_frame: Told after each frame how many frames and people there were so far.

    Raises:
        HamrEdgeError: Whatever a part raises; what came before it is in the table.
    """
    clock = StageClock()
    frames, people, last_time_s = 0, 0, 0.0
    ending: Literal["source", "max_frames", "request"] = "max_frames"
    frames_left = iter(source)
    while max_frames is None or frames < max_frames:
        if should_stop is not None and should_stop():
            ending = "request"
            break
        with clock.stage("decode"):
            frame = next(frames_left, None)
        if frame is None:
            ending = "source"
            break
        with clock.stage("detect"):
            boxes, scores = find_people(frame)
        if embedder.sidecar.form == "frame":  # the artifact crops
            with clock.stage("infer"):
                embeddings = embedder.embed(frame.image, boxes)
        else:
            with clock.stage("crop"):
                batch = embedder.crop(frame.image, boxes)
            with clock.stage("infer"):
                embeddings = embedder.embed_batch(batch)
        with clock.stage("write"):
            table.append(frame.number, frame.time_s, boxes, scores, embeddings)
        if video is not None:
            with clock.stage("annotate"):
                video.append(frame, boxes, embeddings)
        frames, people, last_time_s = frames + 1, people + len(boxes), frame.time_s
        if on_frame is not None:
            on_frame(frames, people)
    clock.stop()
    return EmbedSummary(frames, people, last_time_s, ending, clock.total_s, clock.seconds)
