"""How the cameras are, for who watches over the service: a line for ``/healthz`` and Prometheus text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from hamr_edge.cameras import CameraPipeline
from hamr_edge.frame_reader import FrameReader
from hamr_edge.prometheus import PREFIX, escape_label, metric_head
from hamr_edge.reader_status import ReaderState
from hamr_edge.watch_state import WatchState

_STATES = (*get_args(ReaderState), "stopped")
_ALIVE = ("opening", "running")


class CameraHealth:
    """What a pipeline says of its cameras. Safe to read from any thread.

    Args:
        pipeline: Says how the cameras are.
        readers: Of the same cameras, in order; each counts its own drops.
        state: Knows when the last frame was through.
    """

    def __init__(self, pipeline: CameraPipeline, readers: Sequence[FrameReader], state: WatchState) -> None:
        self._pipeline, self._readers, self._state = pipeline, readers, state

    def trouble(self) -> str:
        """How each camera is where none runs; empty where one does, or is being opened for the first time."""
        reports = self._pipeline.report()
        if any(report.state in _ALIVE for report in reports.values()):
            return ""
        words = [
            ", ".join(filter(None, (f"{name}: {report.state}", self._state.error(name, report))))
            for name, report in reports.items()
        ]
        return f"no camera runs; {'; '.join(words)}"

    def prometheus_text(self) -> str:
        """The cameras in Prometheus' text format, version 0.0.4, ending in a line break."""
        reports = self._pipeline.report()
        states = {name: report.state for name, report in reports.items()}
        lines = _metric(
            "camera_up",
            "gauge",
            "1 while frames come.",
            {name: int(state == "running") for name, state in states.items()},
        )
        lines += metric_head("camera_state", "gauge", "1 for the state that a camera is in.")
        for name, now in states.items():
            label = f'camera="{escape_label(name)}"'
            lines += [f'{PREFIX}camera_state{{{label},state="{state}"}} {int(state == now)}' for state in _STATES]
        lines += _metric(
            "frames_decoded_total",
            "counter",
            "Frames that came from the source.",
            {name: report.decoded for name, report in reports.items()},
        )
        lines += _metric(
            "frames_dropped_total",
            "counter",
            "Frames that newer ones pushed out before people were looked for.",
            {name: reader.status.dropped for name, reader in zip(reports, self._readers, strict=True)},
        )
        lines += _metric(
            "reconnects_total",
            "counter",
            "How often frames went on after a break.",
            {name: report.reconnects for name, report in reports.items()},
        )
        lines += _metric(
            "last_frame_age_seconds",
            "gauge",
            "Seconds since a frame was through; before the first, since the start.",
            {name: round(self._state.age_s(name), 3) for name in reports},
        )
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, words: str, values: Mapping[str, float]) -> list[str]:
    rows = [f'{PREFIX}{name}{{camera="{escape_label(camera)}"}} {value}' for camera, value in values.items()]
    return [*metric_head(name, kind, words), *rows]
