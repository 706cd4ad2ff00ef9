"""What a model of others takes, in words: ``rgb-float-imagenet``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB


class _Range(NamedTuple):
    """``(pixel / 255 - mean) / std``, by channel in the order of RGB."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_GREY = (0.5, 0.5, 0.5)
_RAW = "255"
_RANGES = {
    "imagenet": _Range(IMAGENET_MEAN_RGB, IMAGENET_STD_RGB),
    "unit": _Range((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "signed": _Range(_GREY, _GREY),
    _RAW: _Range((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
_DTYPES = {"float": "float32", "half": "float16", "uint8": "uint8"}
_WORDS = (
    "the order of colours (rgb or bgr), the type (float, half or uint8), for float and half the range of pixels "
    "(imagenet: ImageNet's mean and deviation; unit: 0..1; signed: -1..1; 255: 0..255), where channels come last nhwc, "
    "and where the model does not fix it the size, height first, as 256x128"
)


@dataclass(frozen=True, slots=True)
class InputDescription:
    """How crops become the input of a model."""

    words: str
    """As the user wrote it."""
    color_order: str
    """``rgb`` or ``bgr``."""
    dtype: str
    """``float32``, ``float16`` or ``uint8``."""
    pixel_range: str
    """``imagenet``, ``unit``, ``signed`` or ``255``."""
    layout: str = "nchw"
    """``nchw`` or ``nhwc``."""
    size_hw: tuple[int, int] | None = None
    """None: the model fixes it."""
    output: str = ""
    """Which of several outputs is the embedding; empty: the model has one, or one that is called so."""

    @property
    def mean_bgr(self) -> tuple[float, float, float]:
        """What is taken off pixels in 0..1."""
        red, green, blue = _RANGES[self.pixel_range].mean
        return blue, green, red

    @property
    def std_bgr(self) -> tuple[float, float, float]:
        """What they are divided by then."""
        red, green, blue = _RANGES[self.pixel_range].std
        return blue, green, red

    def prepare(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """(N, H, W, 3) uint8 BGR crops as the model takes them: contiguous, a new array or the crops themselves."""
        count, height, width, _ = batch.shape
        if self.layout == "nhwc":
            made = np.empty((count, height, width, 3), _work_type(self.dtype))
            planes = np.moveaxis(made, 3, 1)
        else:
            made = planes = np.empty((count, 3, height, width), _work_type(self.dtype))
        for place, channel in enumerate((2, 1, 0) if self.color_order == "rgb" else (0, 1, 2)):
            if self.dtype == "uint8":
                planes[:, place] = batch[..., channel]
                continue
            # Channel by channel, in one pass each: several times as fast as cv2.dnn.blobFromImages.
            scale = np.float32(1 / (255 * self.std_bgr[channel]))
            np.multiply(batch[..., channel], scale, out=planes[:, place], dtype=np.float32)
            planes[:, place] -= np.float32(self.mean_bgr[channel] / self.std_bgr[channel])
        return made.astype(self.dtype, copy=False)


def parse_input_description(text: str) -> InputDescription:
    """Read ``rgb-float-imagenet``, ``bgr-half-255-nhwc``, ``rgb-uint8-256x128`` or ``rgb-float-unit:features``.

    Args:
        text: Words in any order, joined by ``-``; behind a colon, the output that is the embedding.

    Raises:
        InputError: A word is unknown, missing or doubled; the message lists them all.
    """
    words, _, output = text.partition(":")
    found: dict[str, str] = {}
    for word in words.lower().split("-"):
        kind = _kind_of(word)
        if not kind:
            raise InputError(f"{text!r}: {word!r} is no word for a model's input; the words are {_WORDS}")
        if kind in found:
            raise InputError(f"{text!r} names both {found[kind]} and {word}; the words are {_WORDS}")
        found[kind] = word
    if found.get("dtype") == "uint8" and found.setdefault("range", _RAW) != _RAW:
        raise InputError(
            f"{text!r}: pixels of type uint8 are 0..255; leave {found['range']} out, or say float; the words are "
            f"{_WORDS}"
        )
    for kind, example in (("color", "rgb"), ("dtype", "float"), ("range", "imagenet")):
        if kind not in found:
            raise InputError(f"{text!r} does not name {_MISSING[kind]}, such as {example}; the words are {_WORDS}")
    height, _, width = found.get("size", "").partition("x")
    return InputDescription(
        words=text,
        color_order=found["color"],
        dtype=_DTYPES[found["dtype"]],
        pixel_range=found["range"],
        layout=found.get("layout", "nchw"),
        size_hw=(int(height), int(width)) if height else None,
        output=output,
    )


_MISSING = {"color": "the order of colours", "dtype": "the type of pixels", "range": "the range of pixels"}


def _kind_of(word: str) -> str:
    if word in ("rgb", "bgr"):
        return "color"
    if word in _DTYPES:
        return "dtype"
    if word in _RANGES:
        return "range"
    if word in ("nchw", "nhwc"):
        return "layout"
    return "size" if re.fullmatch(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}", word) else ""


def _work_type(dtype: str) -> str:
    """Half is computed in float: numpy's half is slow, and would round twice."""
    return "uint8" if dtype == "uint8" else "float32"
