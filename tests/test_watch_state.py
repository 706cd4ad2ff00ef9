from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hamr_edge import Embedder
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.frame_source import Frame
from hamr_edge.naming import Named
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.progress import progress_bar
from hamr_edge.watch_state import WatchState
from tests.scripted_source import ScriptedSource

ODD_NAMES = ("hall [/north]", "[fe80::1]:554/main", "[bold]", "büro")


@pytest.fixture
def service(tiny_artifact: Path) -> Iterator[EmbeddingService]:
    with Embedder(tiny_artifact, "cpu", 1) as embedder, EmbeddingService(embedder) as service:
        yield service


@pytest.fixture
def state(service: EmbeddingService) -> WatchState:
    nobody = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    cameras = [Camera(name, ScriptedSource([1]), lambda frame: nobody) for name in ODD_NAMES]
    state = WatchState(ODD_NAMES, CameraPipeline(cameras, service), service)
    nothing = np.zeros((0, 4), np.float32)
    frame = Frame(1, 0.0, np.zeros((4, 4, 3), np.uint8))
    for name in ODD_NAMES:
        state.update(EmbeddedFrame(name, frame, nothing, nothing[:, 0], nothing), [Named("Ada [/staff]", 1, True, 0.9)])
    return state


def test_the_table_shows_names_as_they_are(state: WatchState) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(state)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for name in ODD_NAMES:
        assert f" {name} " in text
    assert text.count("Ada [/staff] 0.90") == len(ODD_NAMES)


def test_the_lines_show_names_as_they_are(state: WatchState) -> None:
    lines = state.lines()
    assert [line.split("  ")[0] for line in lines[:-1]] == list(ODD_NAMES)
    assert all("Ada [/staff] 0.90" in line for line in lines[:-1])


def test_a_bar_shows_words_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as progress:
        progress.add_task("run [/north]", total=1, note="[bold] 1/2")
    shown = capsys.readouterr().err
    assert "run [/north]" in shown
    assert "[bold] 1/2" in shown
