"""Reading a source in a thread of its own: ahead of its reader, over breaks of the stream, and never hanging."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Literal

from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.frame_source import Frame, FrameSource
from hamr_edge.frame_times import FrameTimes
from hamr_edge.openable import Openable
from hamr_edge.reader_status import ReaderState, ReaderStatus
from hamr_edge.reconnect import Reconnect, ReconnectAttempts

__all__ = ["FrameReader", "ReaderState", "ReaderStatus"]

_log = logging.getLogger(__name__)
_CLOSE_WAIT_S = 1.0
_MOST_HANGING_THREADS = 8
_LONGEST_WAIT_S = 3600.0


class FrameReader(Openable):
    """Reads one source in a daemon thread and hands its frames over, in order, a few ahead.

    The reader opens and closes the source. Times and numbers of frames go on after a reconnect. A source that lets no
    frame come for ``stall_after_s`` (stuck in a driver or on a dead network) is given up: a live one with ``reconnect``
    is opened anew in a fresh thread, anything else fails. The thread that hangs cannot be ended; what it still gives is
    ignored. Stalls are acted on while somebody waits in :meth:`read`.

    Safe to read from several threads: each frame goes to one of them.

    Args:
        source: Not to be used by others while the reader is open.
        ahead: Frames that may wait, at least 1.
        when_full: ``block`` lets the source wait, ``drop_oldest`` drops the frame that waited longest and counts it.
            None blocks for a recording and drops for a live source.
        reconnect: How a live source that ends, breaks or stalls is opened again, and any source that is not available
            at first; never when None. A recording that has begun is never opened again.
        stall_after_s: How long opening, or one frame, may take; ``math.inf`` for as long as it likes, as for a camera
            that sends only when something moves.
        paced: A recording's frames come at their own times, as if it were live. Waiting for them is no stall.

    Attributes:
        source: The one that was opened last: as given, or after a stall a fresh one of it. What it says of itself is
            known after the first frame.

    Raises:
        InputError: A limit makes no sense.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        ahead: int = 2,
        when_full: Literal["block", "drop_oldest"] | None = None,
        reconnect: Reconnect | None = None,
        stall_after_s: float = 10.0,
        paced: bool = False,
    ) -> None:
        if ahead < 1:
            raise InputError(f"ahead must be at least 1 frame, got {ahead}")
        if when_full not in (None, "block", "drop_oldest"):
            raise InputError(f"when_full must be block, drop_oldest or None, got {when_full!r}")
        if not stall_after_s > 0:
            raise InputError(f"stall_after_s must be above 0, got {stall_after_s:g}")
        self.source = source
        self._ahead, self._when_full = ahead, when_full
        self._stall_after_s, self._paced = stall_after_s, paced
        self._may_reconnect = reconnect is not None
        self._attempts = ReconnectAttempts(reconnect)
        self._changed = threading.Condition()
        """Guards all below: what it says is written and read by the decode thread and the readers."""
        self._state: ReaderState = "closed"
        self._was_opened = False
        self._frames: deque[Frame] = deque()
        self._times = FrameTimes()
        self._decoded = self._delivered = self._dropped = self._unread = self._reconnects = 0
        self._failure: BaseException | None = None
        self._last_error = ""
        self._session = 0
        """The thread that carries this number may hand over; others were given up."""
        self._thread: threading.Thread | None = None
        self._current = source
        self._abandoned = 0
        self._hanging: list[threading.Thread] = []
        self._in_source_since_s = math.inf
        """Since when the decode thread is inside the source; inf while it is not."""
        self._is_live: bool | None = None
        """None until the source was open once."""
        self._first_frame_s: float | None = None
        """When the first frame of this session came."""

    @property
    def status(self) -> ReaderStatus:
        """How it stands now."""
        with self._changed:
            waits = self._state in ("opening", "running", "reconnecting")
            return ReaderStatus(
                state="stalled" if waits and time.monotonic() >= self._stalls_at_s() else self._state,
                decoded=self._decoded,
                delivered=self._delivered,
                dropped=self._dropped,
                waiting=len(self._frames) + self._unread,
                reconnects=self._reconnects,
                abandoned=self._abandoned,
                error=self._last_error,
            )

    def open(self) -> None:
        """Start the thread; it opens the source. What goes wrong there, :meth:`read` raises."""
        with self._changed:
            if self._was_opened and self._state == "closed":
                raise HamrEdgeError(f"the reader of {self.source.name} was closed; make another, with another source")
            if self._was_opened:
                return
            self._was_opened, self._state = True, "opening"
            self._start_thread()

    def close(self) -> None:
        """Let the source go and wake who waits in :meth:`read`; waits a moment for the thread, never for ever."""
        with self._changed:
            if self._state == "closed":
                return
            self._state = "closed"
            self._session += 1
            self._unread = len(self._frames)
            self._frames.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_WAIT_S)
            if thread.is_alive():
                _log.warning(
                    "%s is in the middle of a read; its thread is left behind and closes it when that returns",
                    self.source.name,
                )

    def read(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame.

        Args:
            timeout_s: How long to wait for it; as long as the source may take when None.

        Returns:
            The frame, which is the caller's; None at the clear end of the source, and once the reader is closed.

        Raises:
            TimeoutError: The time is over; the frame may still come.
            UnavailableError: The source hangs, or is not there.
            HamrEdgeError: Whatever else went wrong in the source, as it was raised there; or the reader is not open.
        """
        give_up_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            if not self._was_opened:
                raise HamrEdgeError(
                    f"the reader of {self.source.name} is not open; use 'with FrameReader(...) as reader:' or .open()"
                )
            while not self._frames:
                if self._state in ("ended", "closed"):
                    return None
                if self._failure is not None:
                    raise self._failure
                now_s = time.monotonic()
                if now_s >= self._stalls_at_s():
                    self._give_up_session()
                    continue
                if now_s >= give_up_s:
                    raise TimeoutError(f"{self.source.name} gave no frame within {timeout_s:g} s")
                # The thread may enter the source while we wait, so no wait is longer than a stall.
                self._changed.wait(
                    min(give_up_s - now_s, self._stalls_at_s() - now_s, self._stall_after_s, _LONGEST_WAIT_S)
                )
            self._delivered += 1
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def __iter__(self) -> Iterator[Frame]:
        """The frames until the end, as :meth:`read` gives them."""
        while (frame := self.read()) is not None:
            yield frame

    # What follows, down to _start_thread, is called with the lock held.

    def _stalls_at_s(self) -> float:
        return self._in_source_since_s + self._stall_after_s

    def _drops_oldest(self) -> bool:
        return self._when_full == "drop_oldest" or (self._when_full is None and self._is_live is True)

    def _give_up_session(self) -> None:
        """Leave the thread that hangs behind."""
        error = UnavailableError(
            f"{self.source.name} hangs: no frame and no error for {self._stall_after_s:g} s; a source that may take "
            "longer needs a larger stall_after_s, a camera that may come back needs reconnect"
        )
        self._session += 1
        self._in_source_since_s = math.inf
        self._abandoned += 1
        if self._thread is not None:
            self._hanging = [thread for thread in (*self._hanging, self._thread) if thread.is_alive()]
            self._thread = None
        if len(self._hanging) < _MOST_HANGING_THREADS and self._tries_again(error):
            self._current = self._current.fresh()
            self._start_thread()
        else:
            self._finish(error)

    def _tries_again(self, error: BaseException) -> bool:
        """Whether another session follows; then the state says so."""
        if self._is_live is False or not isinstance(error, (UnavailableError, OSError)):
            return False
        came_for_s = 0.0 if self._first_frame_s is None else time.monotonic() - self._first_frame_s
        if not self._attempts.take_next(came_for_s):
            return False
        self._state, self._last_error = "reconnecting", str(error)
        return True

    def _finish(self, error: BaseException | None) -> None:
        self._state = "ended"
        if error is not None:
            self._state, self._failure, self._last_error = "failed", error, str(error)
        self._changed.notify_all()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(self._session, self._current), name=f"decode {self.source.name}", daemon=True
        )
        self._thread.start()

    # What follows runs in the decode thread.

    def _run(self, session: int, source: FrameSource) -> None:
        """One opening of the source after another, until its end or until the session is given up."""
        while self._wait_for_attempt(session):
            error = self._play(session, source)
            with self._changed:
                if session != self._session:
                    return
                self._in_source_since_s = math.inf
                if error is None and self._is_live and self._may_reconnect:
                    error = UnavailableError(f"{self.source.name} stopped giving frames")
                if error is None or not self._tries_again(error):
                    self._finish(error)
                    return

    def _wait_for_attempt(self, session: int) -> bool:
        """The back-off, if any; False when the session was given up."""
        with self._changed:
            delay_s = self._attempts.delay_s()
            if self._attempts.count and session == self._session:
                _log.warning(
                    "%s; attempt %d to open it again in %.1f s", self._last_error, self._attempts.count, delay_s
                )
                self._changed.wait_for(lambda: session != self._session, delay_s)
            if session != self._session:
                return False
            self._times.restart()
            self._first_frame_s = None
            self._in_source_since_s = time.monotonic()
            return True

    def _play(self, session: int, source: FrameSource) -> BaseException | None:
        """Open the source, hand its frames over, close it; gives what went wrong."""
        try:
            with source:
                with self._changed:
                    if session == self._session:
                        self.source, self._is_live = source, source.is_live
                for frame in source:
                    if not self._hand_over(session, frame):
                        break
        except BaseException as error:
            return error
        return None

    def _hand_over(self, session: int, frame: Frame) -> bool:
        """Put a frame where readers find it; False when the session was given up."""
        with self._changed:
            if session != self._session:
                return False
            self._in_source_since_s = math.inf
            self._state = "running"
            if self._first_frame_s is None:
                self._first_frame_s = time.monotonic()
                self._reconnects += self._decoded > 0
            frame = self._times.place(frame)
            if self._paced and not self._is_live and not self._wait_until_due(session, frame):
                return False
            while len(self._frames) >= self._ahead:
                if self._drops_oldest():
                    self._frames.popleft()
                    self._dropped += 1
                else:
                    self._changed.wait()
                    if session != self._session:
                        return False
            self._frames.append(frame)
            self._decoded += 1
            self._changed.notify_all()
            self._in_source_since_s = time.monotonic()
            return True

    def _wait_until_due(self, session: int, frame: Frame) -> bool:
        """Let a frame wait for its time, with the lock held; False when the session was given up."""
        while session == self._session and (early_s := self._times.due_s(frame) - time.monotonic()) > 0:
            self._changed.wait(min(early_s, _LONGEST_WAIT_S))
        return session == self._session
