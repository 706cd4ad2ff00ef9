"""The loop of ``hamr-edge watch``: name the people of each frame, and show them where somebody looks."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.live import Live

from hamr_edge.annotate import draw_people
from hamr_edge.cameras import CameraPipeline
from hamr_edge.errors import UnavailableError
from hamr_edge.mjpeg_page import ALL, MjpegPage
from hamr_edge.mosaic import make_mosaic
from hamr_edge.naming import Naming
from hamr_edge.progress import stderr_console
from hamr_edge.watch_state import WatchState

_PICTURES_PER_S = 12.0
_LINES_EVERY_S = 5.0
_TITLE = "hamr-edge watch"


class Window:
    """A window of OpenCV's; q or Esc, or its cross, asks to stop. To be used from one thread.

    Raises:
        UnavailableError: There is no display, or this OpenCV has no windows.
    """

    def __init__(self) -> None:
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UnavailableError("there is no display for --window; --http 8080 shows the same in a browser")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise UnavailableError(
                "this OpenCV has no windows (opencv-python-headless?); --http 8080 shows the same in a browser"
            ) from error

    def show(self, picture: NDArray[np.uint8]) -> bool:
        """Show a (H, W, 3) uint8 BGR picture; False when the user wants to stop."""
        cv2.imshow(_TITLE, picture)
        key = cv2.waitKey(1) & 0xFF
        return key not in (27, ord("q")) and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()


def watch_cameras(
    pipeline: CameraPipeline, naming: Naming, state: WatchState, page: MjpegPage | None, window: Window | None
) -> None:
    """Show frames until the pipeline ends or the window is closed.

    Args:
        pipeline: Open.
        naming: Gives the labels.
        state: Told of each frame.
        page: Open; None without one. Pictures are drawn only while somebody looks.
        window: None without one.
    """
    names = list(pipeline.report())
    pictures: dict[str, NDArray[np.uint8] | None] = dict.fromkeys(names)
    next_mosaic_s = 0.0
    for seen in pipeline:
        people = naming.name(seen.embeddings)
        state.update(seen, people)
        if window is None and (page is None or not page.is_watched):
            continue
        numbers = np.array([person.number for person in people], np.int64)
        labels = [f"{p.label} {p.similarity:.2f}" if p.is_known else p.label for p in people]
        picture = draw_people(seen.frame.image, seen.boxes, numbers, labels=labels)
        pictures[seen.camera] = picture
        if page is not None:
            page.show(seen.camera, picture)
        now = time.monotonic()
        if now < next_mosaic_s:
            continue
        next_mosaic_s = now + 1 / _PICTURES_PER_S
        mosaic = make_mosaic(pictures, {name: state.caption(name) for name in names})
        if page is not None:
            page.show(ALL, mosaic)
        if window is not None and not window.show(mosaic):
            pipeline.stop()
            window = None


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
        with Live(state, console=console, refresh_per_second=4):
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
