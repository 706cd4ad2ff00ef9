"""What a camera gives: its embedded frames, and what became of all the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.video import Frame


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedFrame:
    """A frame with its people."""

    camera: str
    frame: Frame
    boxes: NDArray[np.float32]
    """(N, 4) xyxy pixels."""
    scores: NDArray[np.float32]
    """(N,)."""
    embeddings: NDArray[np.float32]
    """(N, D), rows of unit L2 norm."""


@dataclass(frozen=True, slots=True)
class CameraReport:
    """What became of a camera's frames: ``decoded`` = ``embedded`` + ``failed`` + ``dropped`` + ``waiting``."""

    state: str
    """The reader's, or ``failed`` where people could not be found or embedded."""
    decoded: int
    embedded: int
    failed: int
    """Frames whose people could not be found or embedded."""
    dropped: int
    """Frames given up for newer ones, before detection or after it; and those that were being embedded at a close."""
    waiting: int
    """Frames on their way; after the end, those that a stop left unread."""
    people: int
    reconnects: int
    last_time_s: float
    """Time of the last embedded frame, in the source's own seconds."""
    error: str
    """Why the camera failed, or its last failed frame; empty without one."""
