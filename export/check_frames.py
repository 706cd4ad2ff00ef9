"""Frames to check an artifact in the frame form with: real crops in odd places, among noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.preprocess import check_image, crop_boxes, resize_crop

_FRAME_SIZES_HW = ((481, 643), (727, 1283))
_LARGEST_GAP = 13
_HIDDEN = 0.2
_JITTER = 0.45
_SCALES = (None, 0.6, 1.7)
"""Of every three crops, one keeps its size, one is smaller than the network's input and one larger."""


@dataclass(frozen=True, slots=True)
class SourceFrames:
    """What an artifact in the frame form must reproduce."""

    frames: tuple[NDArray[np.uint8], ...]
    """(H, W, 3) uint8 BGR each."""
    boxes: tuple[NDArray[np.float32], ...]
    """(N, 4) xyxy pixels of each frame, not whole, some partly outside."""
    names: tuple[str, ...]
    """What to call each box in a message, frame by frame."""
    embeddings: NDArray[np.float32]
    """(N, D) of the source, rows of unit norm, frame by frame."""
    of: str = "PyTorch"
    """What to call the source in a message."""


def frame_source(
    crops: Sequence[NDArray[np.uint8]],
    names: Sequence[str],
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    size_hw: tuple[int, int],
    seed: int = 0,
) -> SourceFrames:
    """Paste crops into frames of noise, and embed them as the runtime does without the frame form.

    The crops lie in frames of odd sizes, some partly outside, in boxes that are up to 0.45 pixels off. A third keep
    their size; the others are made smaller or larger than the network's input, so that both ways of resizing are seen.
    A wrong edge lets noise in, so that wrong rounding, swapped axes or a window clamped to the frame instead of itself
    change the embedding.

    Args:
        crops: (H, W, 3) uint8 BGR, of any sizes.
        names: What to call each.
        embed: The source: (N, H, W, 3) uint8 at ``size_hw`` to (N, D) rows of unit norm.
        size_hw: The network's input size in pixels.
        seed: Chooses places and noise.

    Raises:
        InputError: There are no crops, or one is not an image.
    """
    if not len(crops):
        raise InputError("frames to check with need crops to paste, got none")
    rng = np.random.default_rng(seed)
    sizes = cycle(_FRAME_SIZES_HW)
    share = max(1, -(-len(crops) // len(_FRAME_SIZES_HW)))
    frames, boxes = [], []
    start = 0
    scaled = []
    for index, crop in enumerate(crops):
        check_image(crop, f"crops[{index}]")
        scale = _SCALES[index % len(_SCALES)]
        scaled.append(crop if scale is None else resize_crop(crop, _scale_size(size_hw, scale)))
    while start < len(scaled):
        frame, found = _paste(scaled[start : start + share], next(sizes), rng)
        frames.append(frame)
        boxes.append(found)
        start += len(found)
    expected = [embed(crop_boxes(frame, found, size_hw)) for frame, found in zip(frames, boxes, strict=True)]
    return SourceFrames(tuple(frames), tuple(boxes), tuple(names), np.concatenate(expected))


def _scale_size(size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def _paste(
    crops: Sequence[NDArray[np.uint8]], size_hw: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """As many crops as fit into one frame, from left to right and top to bottom, and their boxes."""
    height, width = (max(side, size) for side, size in zip(size_hw, crops[0].shape[:2], strict=True))
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    places: list[tuple[int, int, int, int]] = []
    left = top = next_top = 0
    for crop in crops:
        h, w = crop.shape[:2]
        hidden_h, hidden_w = int(h * _HIDDEN), int(w * _HIDDEN)
        if left + w - hidden_w > width:
            left, top = 0, next_top
        x, y = (left or -hidden_w), (top or -hidden_h)
        if y + h - hidden_h > height or x + w - hidden_w > width:
            break
        seen = frame[max(y, 0) : y + h, max(x, 0) : x + w]
        seen[:] = crop[max(-y, 0) :, max(-x, 0) :][: seen.shape[0], : seen.shape[1]]
        places.append((x, y, x + w, y + h))
        left = x + w + int(rng.integers(1, _LARGEST_GAP))
        next_top = max(next_top, y + h + int(rng.integers(1, _LARGEST_GAP)))
    jitter = rng.uniform(-_JITTER, _JITTER, (len(places), 4))
    return frame, (np.array(places) + jitter).astype(np.float32)
