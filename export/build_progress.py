"""A build with a progress bar, that Ctrl-C ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from rich.progress import Progress, TaskID

from hamr_edge.progress import progress_bar
from hamr_edge.stop_request import StopRequest

_POLL_S = 0.1
_PATIENCE_S = 10.0
_UNDRAWN = (Exception, SystemExit)
"""What drawing may raise; rich ends the program where it meets a broken pipe."""


class BuildProgress:
    """What a builder's progress monitor tells, on a bar; and the wish to stop, which it is asked for.

    The builder calls from threads of its own, where nobody can take an exception, and nothing here raises: a bar that
    cannot be drawn, as on a closed pipe, is left as it is.

    Args:
        bar: Shows the outermost phase, with the innermost one's name behind it.
        stop: Asked after each step.
    """

    def __init__(self, bar: Progress, stop: StopRequest) -> None:
        self._bar = bar
        self._stop = stop
        self._lock = threading.Lock()
        self._task: TaskID | None = None
        self._outermost = ""
        self._steps = 0
        self._phases: list[str] = []

    def phase_start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, inside its parent or alone."""
        with self._lock:
            self._phases.append(name)
            if parent is None:
                self._outermost, self._steps = name, steps
                with suppress(*_UNDRAWN):
                    self._task = self._bar.add_task("building", total=steps, note="")
            self._show()

    def step_complete(self, name: str) -> bool:
        """A step of a phase is done; False ends the build."""
        with self._lock:
            if name == self._outermost and self._task is not None:
                with suppress(*_UNDRAWN):
                    self._bar.advance(self._task)
            return not self._stop.requested

    def phase_finish(self, name: str) -> None:
        """A phase ends."""
        with self._lock:
            if name in self._phases:
                self._phases.remove(name)
            # A phase may end before all its steps are told: TensorRT for RTX never tells the last one.
            if name == self._outermost and self._task is not None and not self._stop.requested:
                with suppress(*_UNDRAWN):
                    self._bar.update(self._task, completed=self._steps)
            self._show()

    def _show(self) -> None:
        if self._task is not None:
            with suppress(*_UNDRAWN):
                self._bar.update(self._task, note=self._phases[-1].lower() if self._phases else "")


def make_monitor(trt: Any, progress: BuildProgress) -> Any:
    """A progress monitor of these bindings that tells ``progress``."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the module is known at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.phase_start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:  # noqa: ARG002
            return progress.step_complete(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            progress.phase_finish(phase_name)

    return Monitor()


def build_watched(
    trt: Any,
    builder_config: Any,
    build: Callable[[], Any],
    current: AbstractContextManager[object] | None = None,
    quiet: bool = True,
) -> Any:
    """Run a build in a thread of its own, so that this one hears Ctrl-C.

    Args:
        trt: The bindings.
        builder_config: Gets the progress monitor.
        build: Gives the plan, or None.
        current: Entered in the thread that builds, such as a GPU's context.
        quiet: No bar.

    Returns:
        What ``build`` gives.

    Raises:
        KeyboardInterrupt: Ctrl-C; the build has ended.
    """
    made: list[Any] = []
    failed: list[BaseException] = []
    ended = threading.Event()

    def run() -> None:
        try:
            with current or nullcontext():
                made.append(build())
        except BaseException as error:  # raised again where the caller waits
            failed.append(error)
        finally:
            ended.set()

    with progress_bar(quiet) as bar, StopRequest() as stop:
        # Held by a name as well: the builder calls it to the end, whatever its configuration keeps.
        monitor = make_monitor(trt, BuildProgress(bar, stop))
        builder_config.progress_monitor = monitor
        thread = threading.Thread(target=run, name="engine build", daemon=True)
        thread.start()
        try:
            # Not one long wait, for Python on Windows takes signals between two. Not thread.join either: up to Python
            # 3.12, one that a signal interrupts takes a running thread for an ended one.
            while not ended.wait(_POLL_S):
                pass
        except KeyboardInterrupt:
            # The second Ctrl-C: the builder is told already. Were Python to end while it is at work, the process would
            # abort; the third does not wait.
            ended.wait(_PATIENCE_S)
            raise
        thread.join()
        if stop.requested:
            raise KeyboardInterrupt
    if failed:
        raise failed[0]
    return made[0]
