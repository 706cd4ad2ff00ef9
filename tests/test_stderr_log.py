from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import threading

import pytest
from rich.console import Console
from rich.live import Live

from hamr_edge.stderr_log import StderrLog, quiet_log

WITHOUT = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
ENDED = "from hamr_edge.cli import main\ntry: main({arguments})\nexcept SystemExit: pass\n"


@pytest.fixture
def log() -> logging.Logger:
    log = logging.Logger("cameras")
    log.addHandler(StderrLog())
    return log


def test_a_line_has_the_time_of_day_and_its_level(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.warning("%s: gone [/north]", "door")
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING door: gone \[/north\]\n", capsys.readouterr().err)


def test_lines_from_any_thread_stand_above_a_table_that_changes(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    with Live("the table", console=Console(file=terminal, force_terminal=True, width=60), auto_refresh=False):
        threads = [threading.Thread(target=log.warning, args=["door: gone [/north]"]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert capsys.readouterr().err == ""  # nothing went past the table
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", shown) if line]
    assert sum(line.endswith("WARNING door: gone [/north]") for line in lines) == 4
    assert lines[-1] == "the table"


def test_quiet_holds_for_its_block() -> None:
    log = logging.getLogger("hamr_edge.frame_reader")
    with quiet_log():
        assert not log.isEnabledFor(logging.ERROR)
    assert log.isEnabledFor(logging.WARNING)


def test_ffmpeg_and_opencv_write_nothing_of_their_own_under_the_command_line() -> None:
    code = (
        ENDED.format(arguments=["--version"])
        + "import cv2\nfor url in ('rtsp://127.0.0.1:1/x', 'http://127.0.0.1:1/x'):\n"
        "    assert not cv2.VideoCapture(url, cv2.CAP_FFMPEG).isOpened()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=WITHOUT)
    assert run.stderr == ""


def test_what_the_user_has_set_stays_and_an_import_sets_nothing() -> None:
    show = "import os; print(os.environ.get('OPENCV_LOG_LEVEL'), os.environ.get('OPENCV_FFMPEG_LOGLEVEL'))"
    code = ENDED.format(arguments=["--version"]) + show
    own = {**os.environ, "OPENCV_LOG_LEVEL": "WARNING", "OPENCV_FFMPEG_LOGLEVEL": "24"}
    for wanted, environment, program in (
        ("WARNING 24", own, code),
        ("SILENT -8", WITHOUT, code),
        ("None None", WITHOUT, f"import hamr_edge.cli, hamr_edge.watch_command; {show}"),
    ):
        run = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        )
        assert run.stdout.splitlines()[-1] == wanted
