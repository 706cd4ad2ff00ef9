from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder
from hamr_edge.annotate import grey_out
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.frame_source import Frame
from hamr_edge.identities import Identities
from hamr_edge.mjpeg_page import ALL, MjpegPage
from hamr_edge.naming import Naming
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.watch import watch_cameras
from hamr_edge.watch_state import WatchState
from tests.scripted_source import ScriptedSource, wait_until


class Colourful(ScriptedSource):
    """Frames that are red."""

    def fresh(self) -> Colourful:
        raise AssertionError("nothing here is opened anew")

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            yield Frame(frame.number, frame.time_s, np.full((120, 160, 3), (0, 0, 200), np.uint8))


class Page(MjpegPage):
    """Keeps the newest picture of each name; somebody looks where a test says so."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names, str, port=0)
        self.newest: dict[str, np.ndarray] = {}
        self.counts: dict[str, int] = {}

    def show(self, name: str, picture: np.ndarray) -> None:
        super().show(name, picture)
        self.newest[name] = picture
        self.counts[name] = self.counts.get(name, 0) + 1


class Window:
    """A window that notes its pictures, until the user has enough."""

    def __init__(self, stays: Callable[[], bool]) -> None:
        self.pictures: list[np.ndarray] = []
        self._stays = stays

    def show(self, picture: np.ndarray) -> bool:
        self.pictures.append(picture)
        return self._stays()


def is_grey(picture: np.ndarray) -> bool:
    return bool((picture[..., :1] == picture).all())


@pytest.fixture
def watch(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CameraPipeline]]:
    """Starts watching in a thread: ``watch(page, window, name=source, ...)``."""
    monkeypatch.setattr("hamr_edge.watch._TICK_S", 0.05)
    threads: list[threading.Thread] = []
    pipelines: list[CameraPipeline] = []
    with Embedder(tiny_artifact, "cpu", 1) as embedder, EmbeddingService(embedder, max_delay_ms=0) as service:

        def start(page: MjpegPage | None, window: Window | None, **sources: ScriptedSource) -> CameraPipeline:
            nobody = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
            pipeline = CameraPipeline(
                [Camera(name, source, lambda _: nobody) for name, source in sources.items()], service
            )
            naming = Naming(Identities(embedder.sidecar.embedding_dim), None, 0.5)
            state = WatchState(list(sources), pipeline, service)
            pipeline.open()
            threads.append(threading.Thread(target=watch_cameras, args=(pipeline, naming, state, page, window)))
            pipelines.append(pipeline)
            threads[-1].start()
            return pipeline

        yield start
        for pipeline in pipelines:
            pipeline.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_the_window_hears_a_key_while_no_frame_comes(
    watch: Callable[..., CameraPipeline], never: threading.Event
) -> None:
    enough = threading.Event()
    window = Window(lambda: not enough.is_set())
    pipeline = watch(None, window, door=Colourful([1, never], is_live=True))
    wait_until(lambda: len(window.pictures) > 3)
    enough.set()
    wait_until(lambda: pipeline.report()["door"].state == "stopped")
    shown = len(window.pictures)
    time.sleep(0.2)
    assert len(window.pictures) == shown  # it is closed
    never.set()


def test_the_picture_of_a_camera_that_is_silent_is_greyed_and_its_age_counts(
    watch: Callable[..., CameraPipeline], never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamr_edge.live_pictures.STALE_S", 1.0)
    page = Page(["door"])
    assert page.enter()
    watch(page, None, door=Colourful([1, never], is_live=True))
    wait_until(lambda: "door" in page.newest)
    assert not is_grey(page.newest["door"])
    wait_until(lambda: is_grey(page.newest["door"]))
    np.testing.assert_array_equal(
        page.newest["door"], grey_out(np.full((120, 160, 3), (0, 0, 200), np.uint8), "last frame 1 s ago")
    )
    wait_until(lambda: is_grey(page.newest[ALL]))
    count = page.counts["door"]
    wait_until(lambda: page.counts["door"] > count)
    np.testing.assert_array_equal(
        page.newest["door"], grey_out(np.full((120, 160, 3), (0, 0, 200), np.uint8), "last frame 2 s ago")
    )
    never.set()


def test_nothing_is_drawn_before_somebody_looks_and_then_all_cameras_are(
    watch: Callable[..., CameraPipeline], never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamr_edge.live_pictures.STALE_S", 1e9)  # nothing but the page's emptiness asks for a picture
    page = Page(["door", "yard"])
    pipeline = watch(page, None, door=Colourful([1, never], is_live=True), yard=Colourful([1, never], is_live=True))
    wait_until(lambda: all(report.embedded for report in pipeline.report().values()))
    time.sleep(0.2)
    assert page.newest == {}
    for _ in range(2):  # the second time, too: the page forgets its pictures when the last one goes
        assert page.enter()
        wait_until(lambda: page.has_picture("door") and page.has_picture("yard") and page.has_picture(ALL))
        page.leave()
        assert not page.has_picture("door")
    never.set()
