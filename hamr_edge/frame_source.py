"""A frame, and what every source of frames has in common."""

from __future__ import annotations

import copy
import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.openable import Openable


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a source."""

    number: int
    """Counts from 1, as MOT text does."""
    time_s: float
    """Seconds since the first frame; never goes back."""
    image: NDArray[np.uint8]
    """(H, W, 3) uint8 BGR; the receiver owns it."""
    unix_time_s: float | None = None
    """Unix time at which a live source's frame was there, by this machine's clock; None for a recording."""
    recorded_number: int | None = None
    """Its number in the recording, where that is played in a loop and ``number`` goes on; None elsewhere."""


class FrameSource(Openable):
    """Frames in order, once. A context manager: building it is cheap, the file or device is taken on entry.

    Attributes:
        name: The source as reports show it; a password in a URL is hidden.
        fps: Frames a second, as a video of these frames should play. Known once open.
        frame_count: Frames that are expected, None when nobody knows. Known once open.
        is_live: True for a camera or a stream: it has no end, and Ctrl-C is the normal way to stop. Known once open.
    """

    name: str
    fps: float
    frame_count: int | None
    is_live: bool

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames that are left, one at a time.

        Raises:
            InputError: A frame cannot be decoded, or there is none at all.
            UnavailableError: A camera or stream gave no frame.
            HamrEdgeError: The source is not open.
        """

    def fresh(self) -> FrameSource:
        """The same source once more, not open: for a reader that gives up on one that hangs.

        The default is a copy; a source that holds something while it is open has to leave that out.
        """
        return copy.copy(self)


_LOGIN = re.compile(
    r"""://(?!(?:[^/?\#:@\s]*\.[^/?\#:@\s]*|localhost):\d{1,5}(?:[/?\#]|$))  # a host and its port are no login
    (?P<user>[^/?\#:\s\[]*):(?P<secret>.+)@""",
    re.VERBOSE | re.DOTALL,
)
_NAMES = r"""(?:password|passwd|passphrase|pwd|token|secret|signature
    |(?:api|access)[_-]?key|(?:login|user|usr|admin)pass?|(?<![a-z])(?:pass|pw|psw|psk|auth|sig|key))"""
_PARAMETER = re.compile(
    rf"{_NAMES}=(?!&|_(?:channel|stream)=)(?P<secret>.+?)(?=&|_(?:channel|stream)=|\Z)",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_PROPERTY = re.compile(
    rf"""{_NAMES}\s*=\s*(?P<secret>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\S+)""", re.VERBOSE | re.IGNORECASE
)


def hide_password(source: str) -> str:
    """A URL or pipeline with ``***`` for what looks like a password or a token; other text as it is.

    Where it is not clear how far a password goes, more is hidden: one with ``/`` or ``@`` in it goes to the last ``@``.

    >>> hide_password("rtsp://me:secret@10.0.0.1/x")
    'rtsp://me:***@10.0.0.1/x'
    >>> hide_password("rtsp://10.0.0.1:554/user=me_password=secret_channel=1_stream=0.sdp")
    'rtsp://10.0.0.1:554/user=me_password=***_channel=1_stream=0.sdp'
    """
    is_pipeline = source.startswith("gst:") or "user-pw" in source
    if "://" not in source and not is_pipeline:
        return source
    hidden = _LOGIN.sub(r"://\g<user>:***@", source)
    return (_PROPERTY if is_pipeline else _PARAMETER).sub(_hide_secret, hidden)


def _hide_secret(found: re.Match[str]) -> str:
    return f"{found[0].removesuffix(found['secret'])}***"
