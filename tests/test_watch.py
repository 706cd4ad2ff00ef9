from __future__ import annotations

import io
import logging
import threading

import pytest
from rich.console import Console
from rich.table import Table

from hamr_edge.stderr_log import StderrLog
from hamr_edge.watch import show_state
from tests.scripted_source import wait_until


class Locked:
    """A state behind a lock, as readers have it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.logs = threading.Event()
        self.asked = 0

    def __rich__(self) -> Table:
        self.asked += 1
        if self.asked > 1:
            assert self.logs.wait(10)
        with self.lock:
            return Table("the table")

    def lines(self) -> list[str]:
        return ["door [/north] running"]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=80)
    monkeypatch.setattr("hamr_edge.watch.stderr_console", lambda quiet: console)
    return terminal


def test_a_thread_may_log_while_it_holds_what_the_table_needs(terminal: io.StringIO) -> None:
    state, log = Locked(), logging.Logger("reader")
    log.addHandler(StderrLog())

    def hold_and_log() -> None:
        with state.lock:
            state.logs.set()
            threading.Event().wait(0.2)  # the table waits for the lock now
            log.warning("the camera is gone")

    with show_state(state, quiet=False):  # type: ignore[arg-type]
        wait_until(lambda: state.asked > 1)
        reader = threading.Thread(target=hold_and_log, daemon=True)
        reader.start()
        reader.join(10)
        assert not reader.is_alive()
    assert "WARNING the camera is gone" in terminal.getvalue()
    assert "the table" in terminal.getvalue()


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hamr_edge.watch._LINES_EVERY_S", 0.02)
    with show_state(Locked(), quiet=False):  # type: ignore[arg-type]
        threading.Event().wait(0.5)
    assert capsys.readouterr().err.startswith("door [/north] running\n")
    with show_state(Locked(), quiet=True):  # type: ignore[arg-type]
        threading.Event().wait(0.1)
    assert capsys.readouterr().err == ""
