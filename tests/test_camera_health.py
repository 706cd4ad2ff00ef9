from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from hamr_edge import Embedder
from hamr_edge.camera_health import CameraHealth
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.errors import UnavailableError
from hamr_edge.frame_reader import FrameReader
from hamr_edge.frame_source import Frame
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.watch_state import WatchState
from tests.scripted_source import AT_ONCE, ScriptedSource, wait_until

GONE = UnavailableError("the camera is gone")


def find_nobody(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


@pytest.fixture
def service(tiny_artifact: Path) -> Iterator[EmbeddingService]:
    with Embedder(tiny_artifact, "cpu", 1) as embedder, EmbeddingService(embedder) as service:
        yield service


class Watched:
    """Cameras at work and their health; a frame is noted as ``watch`` does."""

    def __init__(self, service: EmbeddingService, **sources: ScriptedSource) -> None:
        cameras = [Camera(name, source, find_nobody) for name, source in sources.items()]
        self.readers = [FrameReader(camera.source, ahead=2, reconnect=AT_ONCE) for camera in cameras]
        self.pipeline = CameraPipeline(cameras, service, readers=self.readers)
        self.state = WatchState(list(sources), self.pipeline, service, self.readers)
        self.health = CameraHealth(self.pipeline, self.readers, self.state)

    def watch(self) -> None:
        for seen in self.pipeline:
            self.state.update(seen, [])

    def read(self) -> dict[str, dict[tuple[str, ...], float]]:
        families = text_string_to_metric_families(self.health.prometheus_text())
        return {
            family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
            for family in families
        }


def test_there_is_no_trouble_while_one_camera_runs(service: EmbeddingService, never: threading.Event) -> None:
    watched = Watched(service, door=ScriptedSource([1, never], is_live=True), yard=ScriptedSource([1, ValueError("x")]))
    assert watched.health.trouble() == "no camera runs; door: closed; yard: closed"
    with watched.pipeline:
        wait_until(lambda: watched.pipeline.report()["yard"].state == "failed")
        wait_until(lambda: watched.pipeline.report()["door"].state == "running")
        assert watched.health.trouble() == ""
        never.set()
    assert watched.health.trouble() == "no camera runs; door: stopped; yard: failed, x"


def test_a_source_that_is_away_says_why(service: EmbeddingService) -> None:
    watched = Watched(service, door=ScriptedSource(GONE))
    with watched.pipeline:
        wait_until(lambda: watched.pipeline.report()["door"].state == "reconnecting")
        assert watched.health.trouble() == "no camera runs; door: reconnecting, the camera is gone"
        assert watched.state.lines()[0].endswith("the camera is gone")
        console = Console(file=io.StringIO(), width=140)
        console.print(watched.state)
        assert "the camera is gone" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_service_that_stopped_is_trouble(service: EmbeddingService) -> None:
    watched = Watched(service, door=ScriptedSource([9]))
    service.close()
    with watched.pipeline:
        watched.watch()
        assert watched.health.trouble() == "no camera runs; door: failed, the embedding service was closed"


def test_prometheus_reads_how_the_cameras_are(service: EmbeddingService, never: threading.Event) -> None:
    waiting = threading.Event()
    watched = Watched(
        service,
        door=ScriptedSource([3, GONE], GONE, [30, never], is_live=True),
        yard=ScriptedSource([waiting], is_live=True),
    )
    started = time.monotonic()
    with watched.pipeline:
        thread = threading.Thread(target=watched.watch)
        thread.start()
        wait_until(lambda: watched.pipeline.report()["door"].decoded == 33)
        wait_until(lambda: watched.pipeline.report()["door"].waiting == 0)
        time.sleep(0.3)
        read, since_s = watched.read(), time.monotonic() - started
        assert read["hamr_edge_camera_up"] == {("door",): 1, ("yard",): 0}
        states = read["hamr_edge_camera_state"]
        assert {labels for labels, value in states.items() if value} == {("door", "running"), ("yard", "opening")}
        assert ("door", "stalled") in states
        assert read["hamr_edge_frames_decoded"] == {("door",): 33, ("yard",): 0}
        dropped = watched.readers[0].status.dropped
        assert read["hamr_edge_frames_dropped"] == {("door",): dropped, ("yard",): 0}
        assert read["hamr_edge_reconnects"] == {("door",): 1, ("yard",): 0}
        ages = read["hamr_edge_last_frame_age_seconds"]
        assert 0.25 < ages["door",] < ages["yard",] <= since_s  # the yard has given none yet
        never.set()
        waiting.set()
        watched.pipeline.stop()
        thread.join(10)
