"""What ``hamr-edge embed`` says at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hamr_edge.annotate import format_time
from hamr_edge.camera_report import CameraReport
from hamr_edge.service_metrics import ServiceMetrics

_ENDINGS = {"source": "", "max_frames": " (as many as asked for)", "request": " (stopped on request)"}


@dataclass(frozen=True, slots=True)
class EmbedSummary:
    """What a run did and where its time went."""

    cameras: Mapping[str, CameraReport]
    ending: Literal["source", "max_frames", "request"]
    """What ended the run: the sources were over, enough frames were read, or somebody asked to stop."""
    total_s: float
    stage_seconds: Mapping[str, float]
    """Seconds of work of each stage; they overlap, so their sum may exceed ``total_s``."""
    service: ServiceMetrics

    @property
    def frames(self) -> int:
        """Embedded frames of all cameras."""
        return sum(camera.embedded for camera in self.cameras.values())

    @property
    def people(self) -> int:
        """Embeddings of all cameras."""
        return sum(camera.people for camera in self.cameras.values())

    @property
    def frames_per_s(self) -> float:
        """Frames a second of the whole run, 0 when there was none."""
        return self.frames / self.total_s if self.total_s > 0 else 0.0


def format_report(summary: EmbedSummary, facts: Mapping[str, str], files: list[Path]) -> str:
    """Lines for a person: what was read and found, the files with their sizes, and where the time went.

    Args:
        summary: The run.
        facts: What stands before, such as the model.
        files: What was written.
    """
    last_s = max((camera.last_time_s for camera in summary.cameras.values()), default=0.0)
    frames = f"{summary.frames}, the last at {format_time(last_s)}{_ENDINGS[summary.ending]}"
    lines = [*facts.items(), ("frames", frames), ("embeddings", str(summary.people))]
    if summary.service.batches:
        lines.append(("batches", f"{summary.service.batches}, {summary.service.mean_batch:.1f} crops each"))
    lines += [("" if row else "written", f"{file} ({_size(file)})") for row, file in enumerate(files)]
    lines.append(("speed", f"{summary.frames_per_s:.1f} frames/s, {summary.total_s:.1f} s in all"))
    width = max(len(name) for name, _ in lines)
    text = [f"{name:<{width}}  {value}" for name, value in lines]
    return "\n".join([*text, *_camera_lines(summary), *_stage_lines(summary)])


def _camera_lines(summary: EmbedSummary) -> list[str]:
    """A row a camera, where there are several or something was lost."""
    cameras = summary.cameras
    if len(cameras) == 1 and not any(
        camera.failed or camera.dropped or camera.reconnects or camera.error for camera in cameras.values()
    ):
        return []
    width = max(6, *(len(name) for name in cameras))
    heads = ("state", "decoded", "embedded", "failed", "dropped", "left", "people")
    lines = ["", f"{'camera':<{width}}  {heads[0]:<10}" + "".join(f"{head:>9}" for head in heads[1:])]
    for name, camera in cameras.items():
        counts = (camera.decoded, camera.embedded, camera.failed, camera.dropped, camera.waiting, camera.people)
        lines.append(f"{name:<{width}}  {camera.state:<10}" + "".join(f"{count:>9}" for count in counts))
        if camera.reconnects:
            lines.append(f"{'':<{width}}  opened again {camera.reconnects} times")
        if camera.error:
            lines.append(f"{'':<{width}}  {camera.error}")
    return lines


def _stage_lines(summary: EmbedSummary) -> list[str]:
    if not summary.frames:
        return []
    lines = ["", f"{'stage':<10}{'ms/frame':>10}{'busy':>8}"]
    for name, seconds in summary.stage_seconds.items():
        lines.append(f"{name:<10}{1000 * seconds / summary.frames:>10.2f}{seconds / summary.total_s:>8.1%}")
    at_once = sum(summary.stage_seconds.values()) / summary.total_s
    return [*lines, f"stages work side by side: {at_once:.2f} at a time"]


def _size(file: Path) -> str:
    size = file.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
