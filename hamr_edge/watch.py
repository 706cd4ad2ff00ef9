"""The loop of ``hamr-edge watch``: name the people of each frame, and show them where somebody looks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.live import Live

from hamr_edge.cameras import CameraPipeline
from hamr_edge.errors import UnavailableError
from hamr_edge.live_pictures import LivePictures
from hamr_edge.mjpeg_page import MjpegPage
from hamr_edge.naming import Naming
from hamr_edge.progress import stderr_console
from hamr_edge.watch_state import WatchState

_TICK_S = 0.5
"""How often the window hears a key, and pictures tell their age, while no frame comes."""
_TABLE_EVERY_S, _LINES_EVERY_S = 0.25, 5.0
_TITLE = "hamr-edge watch"
_LARGEST_WINDOW_WH = (1600, 900)
"""At first; the user may make it larger."""


class Window:
    """A window of OpenCV's; q or Esc, or its cross, asks to stop. To be used from one thread.

    Raises:
        UnavailableError: There is no display, or this OpenCV has no windows.
    """

    def __init__(self) -> None:
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UnavailableError("there is no display for --window; --http 8080 shows the same in a browser")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise UnavailableError(
                "this OpenCV has no windows (opencv-python-headless?); --http 8080 shows the same in a browser"
            ) from error
        self._has_size = False

    def show(self, picture: NDArray[np.uint8]) -> bool:
        """Show a (H, W, 3) uint8 BGR picture; False when the user wants to stop."""
        if not self._has_size:  # OpenCV's own is 400 x 300; afterwards it is the user's
            height, width = picture.shape[:2]
            shrink = min(1.0, _LARGEST_WINDOW_WH[0] / width, _LARGEST_WINDOW_WH[1] / height)
            cv2.resizeWindow(_TITLE, int(width * shrink), int(height * shrink))
            self._has_size = True
        cv2.imshow(_TITLE, picture)
        key = cv2.waitKey(1) & 0xFF
        return key not in (27, ord("q")) and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()


def watch_cameras(
    pipeline: CameraPipeline, naming: Naming, state: WatchState, page: MjpegPage | None, window: Window | None
) -> None:
    """Show frames until the pipeline ends or the window is closed; where none comes, how long ago the last one was.

    Args:
        pipeline: Open.
        naming: Gives the labels.
        state: Told of each frame.
        page: Open; None without one. Pictures are drawn only while somebody looks.
        window: None without one.
    """
    pictures = LivePictures(list(pipeline.report()), state, page, window)
    for seen in pipeline.frames(_TICK_S):
        if seen is not None:
            people = naming.name(seen.embeddings)
            state.update(seen, people)
            pictures.take(seen, people)
        if not pictures.refresh():
            pipeline.stop()


@contextmanager
def show_state(state: WatchState, quiet: bool) -> Iterator[None]:
    """Show the state on stderr in the ``with`` block: a table that changes, or lines where there is no terminal.

    Args:
        state: What to show.
        quiet: Nothing at all.
    """
    console = stderr_console(quiet)
    if quiet:
        yield
    elif console.is_terminal:
        # Live draws under its lock, and the state takes the readers': a reader that logs meanwhile would hold its own
        # and wait for Live's. So the table is made first.
        live = Live(state.__rich__(), console=console, auto_refresh=False)
        with live, _every(_TABLE_EVERY_S, lambda: live.update(state.__rich__(), refresh=True)):
            yield
    else:
        with _every(_LINES_EVERY_S, lambda: console.print("\n".join(state.lines()), markup=False, soft_wrap=True)):
            yield


@contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Act again and again in a thread of its own, until the ``with`` block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            act()

    thread = threading.Thread(target=run, name="status", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
