from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.progress import TaskID

from hamr_edge.errors import InputError
from hamr_edge.export.build_progress import BuildProgress, build_watched
from hamr_edge.export.engine_build import build_network, choose_profile, configure, parse_network
from hamr_edge.progress import progress_bar
from hamr_edge.stop_request import StopRequest
from tests.nvidia_builder import nvidia_builder


def test_the_bar_is_of_the_outermost_phase_and_names_the_innermost() -> None:
    stop = StopRequest()
    with progress_bar(quiet=True) as bar:
        progress = BuildProgress(bar, stop)
        progress.phase_start("Building engine", None, 6)
        progress.phase_start("Timing tactics", "Building engine", 100)
        assert progress.step_complete("Timing tactics")
        (task,) = bar.tasks
        assert (task.completed, task.total, task.fields["note"]) == (0, 6, "timing tactics")
        progress.phase_finish("Timing tactics")
        assert progress.step_complete("Building engine")
        (task,) = bar.tasks
        assert (task.completed, task.fields["note"]) == (1, "building engine")
        progress.phase_finish("Building engine")
        (task,) = bar.tasks
        assert (task.completed, task.fields["note"]) == (6, ""), "done, whatever steps were told"
        progress.phase_start("Building engine", None, 6)
        stop.requested = True
        assert not progress.step_complete("Building engine")
        progress.phase_finish("Building engine")
        progress.phase_finish("never begun")
        assert bar.tasks[-1].completed == 1, "ended, not done"


def test_a_bar_that_cannot_be_drawn_harms_no_build() -> None:
    """On a closed pipe rich ends the program: here it would be from inside the builder."""

    class Undrawable:
        def add_task(self, *args: object, **options: object) -> TaskID:
            raise SystemExit(1)

        def update(self, *args: object, **options: object) -> None:
            raise OSError("no space left on the device")

        advance = update

    bar: Any = Undrawable()
    stop = StopRequest()
    progress = BuildProgress(bar, stop)
    progress.phase_start("Building engine", None, 6)
    assert progress.step_complete("Building engine")
    bar.add_task = lambda *args, **options: TaskID(0)
    progress.phase_start("Building engine", None, 6)
    assert progress.step_complete("Building engine")
    progress.phase_finish("Building engine")
    stop.requested = True
    assert not progress.step_complete("Building engine")


def test_a_real_build_is_watched(tiny_artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trt = nvidia_builder()
    parsed = parse_network(trt, tiny_artifact)
    profile = choose_profile(parsed, 8)
    assert build_network(trt, parsed, profile, configure(trt, parsed, profile), quiet=False)
    assert "building" in capsys.readouterr().err


def test_a_wish_to_stop_ends_a_real_build(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while the builder is at work: its own thread sends it, from inside a step."""
    trt = nvidia_builder()
    parsed = parse_network(trt, tiny_artifact)
    profile = choose_profile(parsed, 8)
    steps: list[bool] = []
    step_complete = BuildProgress.step_complete

    def interrupt(progress: BuildProgress, name: str) -> bool:
        if not steps:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # the main thread takes the signal between two looks at the builder
        steps.append(step_complete(progress, name))
        return steps[-1]

    monkeypatch.setattr(BuildProgress, "step_complete", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_network(trt, parsed, profile, configure(trt, parsed, profile))
    assert steps[0] is False
    assert len(steps) < 5, "the build went on"
    monkeypatch.undo()
    assert build_network(trt, parsed, profile, configure(trt, parsed, profile)), "the network is still good"


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_on_the_command_line_leaves_nothing(times: int, tiny_artifact: Path, tmp_path: Path) -> None:
    """A second one does not end Python under the builder's feet, which would abort the process."""
    nvidia_builder()
    code = (
        "import os, signal, sys, time\n"
        "from hamr_edge.export.build_progress import BuildProgress\n"
        "step = BuildProgress.step_complete\n"
        "def interrupt(progress, name):\n"
        f"    for _ in range({times}):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        for _ in range(100):\n"
        "            time.sleep(0.003)\n"
        "    return step(progress, name)\n"
        "BuildProgress.step_complete = interrupt\n"
        "from hamr_edge.cli import main\n"
        f"sys.argv = ['hamr-edge', 'export', {str(tiny_artifact)!r}, '-o', {str(tmp_path)!r}, '--unchecked']\n"
        "main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 130, run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


def test_the_builder_works_where_the_gpu_is_current() -> None:
    trt = nvidia_builder()
    where: list[tuple[str, threading.Thread]] = []

    class Gpu:
        def __enter__(self) -> None:
            where.append(("enter", threading.current_thread()))

        def __exit__(self, *error: object) -> None:
            where.append(("exit", threading.current_thread()))

    def build() -> str:
        where.append(("build", threading.current_thread()))
        return "plan"

    assert build_watched(trt, SimpleNamespace(), build, Gpu()) == "plan"
    assert [what for what, _ in where] == ["enter", "build", "exit"]
    assert len({thread for _, thread in where}) == 1
    assert where[0][1] is not threading.current_thread()


def test_an_error_of_the_builder_is_the_callers() -> None:
    trt = nvidia_builder()

    def build() -> Any:
        raise InputError("no such thing")

    with pytest.raises(InputError, match="no such thing"):
        build_watched(trt, SimpleNamespace(), build)
