"""Weights to whole numbers: symmetric, one scale an output channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_SCALE = float(np.finfo(np.float16).tiny)
"""A scale must not be 0 and must be a normal float16: TensorRT refuses the first, rounding spoils the second."""

_LARGEST_SUM = 128
"""Largest weight of which any two fit: 2 * 64 * 255 is below 32,767."""
_PAIRED_LEVELS = (64, 72, 80, 90, 100, 112, 127)


def half_scale(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest scales that float16 holds exactly, at least ``SMALLEST_SCALE``; same shape, float32.

    Scales are rounded before anything is quantised with them, so that they mean the same in a float16 graph.
    """
    rounded = np.clip(scale, SMALLEST_SCALE, np.finfo(np.float16).max).astype(np.float16).astype(np.float32)
    return np.asarray(rounded, np.float32)


def quantize_weights(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to int8 with one scale a channel.

    Args:
        weight: Any shape.
        axis: The axis of the output channels.

    Returns:
        int8 weights of the same shape, and (channels,) float32 scales that float16 holds exactly.
    """
    rows = np.moveaxis(weight, axis, 0)
    scale = _channel_scale(rows, 127)
    whole = np.clip(np.rint(rows / _along_rows(scale, rows.ndim)), -127, 127)
    return np.moveaxis(whole.astype(np.int8), 0, axis), scale


def quantize_paired_weights(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to int8 such that the products of neighbours fit into 16 bits.

    On x86 without VNNI, ONNX Runtime multiplies pairs of neighbours, uint8 by int8, and adds each pair in 16 bits,
    which saturate above 32,767 (the instruction VPMADDUBSW). Weights of 7 bits avoid that at the cost of a bit
    everywhere. Here only a pair that could saturate is made smaller; each channel takes the scale of least error.
    Neighbours are those of the kernel's own order: input channels innermost, then the positions of a window.

    Args:
        weight: Two or more dimensions; input channels are the first axis but the output channels'.
        axis: The axis of the output channels.

    Returns:
        As :func:`quantize_weights`.
    """
    rows = np.moveaxis(np.moveaxis(weight, axis, 0), 1, -1)  # (out, *window, in)
    flat = rows.reshape(len(rows), -1)
    error = np.full(len(rows), np.inf)
    scale = np.zeros(len(rows), np.float32)
    whole = np.zeros(flat.shape, np.float32)
    for levels in _PAIRED_LEVELS:
        tried_scale = _channel_scale(flat, levels)
        tried = _fit_pairs(np.clip(np.rint(flat / tried_scale[:, None]), -levels, levels))
        tried_error = np.square(tried * tried_scale[:, None] - flat, dtype=np.float64).sum(axis=1)
        better = tried_error < error
        error = np.where(better, tried_error, error)
        scale = np.where(better, tried_scale, scale)
        whole = np.where(better[:, None], tried, whole)
    made = np.moveaxis(whole.astype(np.int8).reshape(rows.shape), -1, 1)
    return np.ascontiguousarray(np.moveaxis(made, 0, axis)), scale


def _fit_pairs(whole: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make pairs along the second axis smaller where their sum is beyond 128 = 32,767 / 255."""
    first, second = whole[:, : whole.shape[1] // 2 * 2 : 2], whole[:, 1::2]
    total = np.abs(first + second)  # of unlike signs, a pair is at most as large as one of the two
    factor = np.where(total > _LARGEST_SUM, _LARGEST_SUM / np.maximum(total, 1), 1)
    fitted: NDArray[np.float32] = whole.copy()  # the last of an odd number is alone
    fitted[:, : first.shape[1] * 2 : 2], fitted[:, 1::2] = np.trunc(first * factor), np.trunc(second * factor)
    return fitted


def _channel_scale(rows: NDArray[np.float32], levels: int) -> NDArray[np.float32]:
    """Scales (channels,) by which each channel's largest weight becomes ``levels``."""
    peaks = np.abs(rows).reshape(len(rows), -1).max(axis=1)
    return half_scale(np.asarray(peaks / levels, np.float32))


def _along_rows(values: NDArray[Any], dimensions: int) -> NDArray[Any]:
    return values.reshape(-1, *[1] * (dimensions - 1))


def quantize_normalised(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], np.float32, NDArray[np.float32]]:
    """Round the weights of a batched product to int8 with one scale an output channel of each part, in per-tensor form.

    DequantizeLinear has no two axes of scales. So the weights share one scale, and the product is multiplied by what is
    left of each channel's own: ``x @ weight = (x @ (scale * whole)) * rest``.

    Args:
        weight: (P, in, out).

    Returns:
        int8 weights (P, in, out), their one scale, and the rest (P, 1, out) float32, both exact in float16.
    """
    own = np.abs(weight).max(axis=1, keepdims=True) / 127
    # The middle scale keeps the product in the range of the result: float16 must hold both.
    scale = half_scale(np.float32(np.median(own[own > 0])) if (own > 0).any() else np.float32(1))
    rest = half_scale(own / scale)
    whole = np.rint(weight / (scale * rest))
    return np.clip(whole, -127, 127).astype(np.int8), np.float32(scale), rest
