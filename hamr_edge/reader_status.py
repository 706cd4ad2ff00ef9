"""What a frame reader says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ReaderState: TypeAlias = Literal["opening", "running", "stalled", "reconnecting", "ended", "failed", "closed"]


@dataclass(frozen=True, slots=True)
class ReaderStatus:
    """A reader at one moment: ``decoded == delivered + dropped + waiting``, always."""

    state: ReaderState
    """``stalled``: no frame came, and no error, for too long. ``closed``: also before it is opened."""
    decoded: int
    """Frames that came from the source."""
    delivered: int
    """Frames that the reader handed on."""
    dropped: int
    """Frames that newer ones pushed out, unread."""
    waiting: int
    """Frames that nobody has read; once the reader is closed, nobody will."""
    reconnects: int
    """How often frames went on after a break."""
    abandoned: int
    """Decode threads that hung in the source and were left behind."""
    error: str
    """The last thing that went wrong, empty when nothing did."""
