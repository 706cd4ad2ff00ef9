"""The newest picture of each camera, for a page and a window."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hamr_edge.annotate import draw_people, grey_out
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.mjpeg_page import ALL, MjpegPage
from hamr_edge.mosaic import make_mosaic
from hamr_edge.naming import Named
from hamr_edge.watch_state import WatchState

_PICTURES_PER_S = 12.0
STALE_S = 3.0
"""A picture that is older is greyed: it may no longer be what is before the camera."""


class Shows(Protocol):
    """A window."""

    def show(self, picture: NDArray[np.uint8]) -> bool:
        """Show a (H, W, 3) uint8 BGR picture; False when the user wants to stop."""


class LivePictures:
    """Draws people into frames while somebody looks. To be used from one thread.

    Args:
        cameras: Names.
        state: Says how old frames are, and what stands under the pictures.
        page: Open; None without one.
        window: None without one.
    """

    def __init__(self, cameras: Sequence[str], state: WatchState, page: MjpegPage | None, window: Shows | None) -> None:
        self._state, self._page, self._window = state, page, window
        self._newest: dict[str, tuple[EmbeddedFrame, list[Named]]] = {}
        self._pictures: dict[str, NDArray[np.uint8] | None] = dict.fromkeys(cameras)
        self._drawn: dict[str, tuple[EmbeddedFrame, int]] = {}
        """Which frame each picture shows, and the age that it says."""
        self._next_mosaic_s = 0.0

    def take(self, seen: EmbeddedFrame, people: list[Named]) -> None:
        """Keep a camera's newest frame; :meth:`refresh` draws it."""
        self._newest[seen.camera] = (seen, people)

    def refresh(self) -> bool:
        """Show what has changed, also where no frame came; False when the user wants to stop."""
        if self._window is None and (self._page is None or not self._page.is_watched):
            return True
        for name, (seen, people) in self._newest.items():
            age_s = self._state.age_s(name)
            drawn = (seen, int(age_s) if age_s > STALE_S else 0)
            is_missing = self._page is not None and not self._page.has_picture(name)
            if is_missing or self._drawn.get(name) != drawn:
                self._drawn[name] = drawn
                self._pictures[name] = picture = _draw(seen, people, drawn[1])
                if self._page is not None:
                    self._page.show(name, picture)
        now_s = time.monotonic()
        if now_s < self._next_mosaic_s:
            return True
        self._next_mosaic_s = now_s + 1 / _PICTURES_PER_S
        mosaic = make_mosaic(self._pictures, {name: self._state.caption(name) for name in self._pictures})
        if self._page is not None:
            self._page.show(ALL, mosaic)
        if self._window is not None and not self._window.show(mosaic):
            self._window = None
            return False
        return True


def _draw(seen: EmbeddedFrame, people: list[Named], age_s: int) -> NDArray[np.uint8]:
    numbers = np.array([person.number for person in people], np.int64)
    labels = [f"{p.label} {p.similarity:.2f}" if p.is_known else p.label for p in people]
    picture = draw_people(seen.frame.image, seen.boxes, numbers, labels=labels)
    return grey_out(picture, f"last frame {age_s} s ago") if age_s else picture
