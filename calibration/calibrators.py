"""From a tensor's histogram to its threshold: values beyond it are clipped when the tensor becomes int8.

Each rule takes (2048,) counts of absolute values in equal bins over [0, maximum] and gives a threshold in
(0, maximum], above 0 even where every value is 0. The int8 scale is the threshold over 127.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hamr_edge.calibration.config import CALIBRATORS
from hamr_edge.calibration.ranges import TensorRange
from hamr_edge.errors import InputError

ZERO_THRESHOLD = 2.0**-7
"""Threshold of a tensor that is zero everywhere: any will do, and a 127th of this one is a normal float16."""
PERCENTILE = 99.99
"""As in the examples of NVIDIA's pytorch-quantization. The clipping of least squared error leaves 0.009 % of a Gaussian
distribution outside (3.92 deviations), and 0.005 % of a Laplace distribution (9.89 scales)."""
_LEVELS = 127
_ENTROPY_LEVELS = 128
_ENTROPY_FLOOR = 1e-6
_MSE_STEP = 8


def threshold_minmax(histogram: NDArray[np.int64], maximum: float) -> float:
    """The largest absolute value: nothing is clipped."""
    del histogram
    return maximum or ZERO_THRESHOLD


def threshold_percentile(histogram: NDArray[np.int64], maximum: float, percentile: float = PERCENTILE) -> float:
    """The absolute value that ``percentile`` percent (above 0) of the values do not pass, linear within a bin.

    It is at least one bin's width, so that a tensor of almost only zeros keeps a usable scale.
    """
    total = np.cumsum(histogram)
    if not maximum or not total[-1]:
        return threshold_minmax(histogram, maximum)
    wanted = total[-1] * (percentile / 100)
    last = int(np.searchsorted(total, wanted))
    below = total[last - 1] if last else 0
    bins = last + float((wanted - below) / (total[last] - below))
    return maximum * min(max(bins, 1.0), len(histogram)) / len(histogram)


def threshold_entropy(histogram: NDArray[np.int64], maximum: float) -> float:
    """The threshold that loses least information when the values become 128 levels.

    For every number of bins from 128 to all: P is the histogram up to there with the outliers added to its last bin,
    Q the same bins without the outliers, merged into 128 levels and spread again over the bins that are not empty in
    P; the candidate of the smallest Kullback-Leibler divergence of P from Q wins, the widest of equals (Migacz, "8-bit
    inference with TensorRT", GTC 2017, S7310). The description leaves two things open:

    - The outliers may lie beyond a whole empty level, so that Q is 0 where P is not; Q is a millionth there. Without
      that, one far outlier could not be cut off.
    - The first bin takes the second one's count, as in NVIDIA's pytorch-quantization: it holds the zeros that a ReLU
      makes, which int8 keeps exactly, and they would draw the threshold in.
    """
    counts = histogram.astype(np.float64)
    counts[0] = counts[1]
    total = np.concatenate([[0.0], np.cumsum(counts)])
    if not maximum or not total[-1]:
        return threshold_minmax(histogram, maximum)
    filled = np.concatenate([[0.0], np.cumsum(counts > 0)])
    candidates = np.arange(_ENTROPY_LEVELS, len(counts) + 1)
    candidates = candidates[total[candidates] > 0]
    inside, last = total[candidates], counts[candidates - 1]
    outliers = total[-1] - inside
    # Edges of the levels in bins, (candidates, 129): level k of a candidate of n bins starts at ceil(k * n / 128).
    edges = -(-candidates[:, None] * np.arange(_ENTROPY_LEVELS + 1) // _ENTROPY_LEVELS)
    p_level, q_level = np.diff(total[edges], axis=1), np.diff(total[edges], axis=1)
    p_level[:, -1] += outliers
    filled_of_level = np.diff(filled[edges], axis=1)
    filled_of_level[:, -1] += (last == 0) & (outliers > 0)
    q = q_level / np.maximum(filled_of_level, 1) / inside[:, None]
    # KL = sum of p log p - sum of p log q, where q is the same for all bins of a level.
    p_log_p = np.concatenate([[0.0], np.cumsum(_x_log_x(counts / total[-1]))])
    cross = (p_level / total[-1] * np.log(np.where(q > 0, q, _ENTROPY_FLOOR))).sum(axis=1)
    divergence = p_log_p[candidates - 1] + _x_log_x((last + outliers) / total[-1]) - cross
    best = len(candidates) - 1 - int(np.argmin(divergence[::-1]))
    return maximum * int(candidates[best]) / len(counts)


def _x_log_x(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values * np.log(np.where(values > 0, values, 1.0))


def threshold_mse(histogram: NDArray[np.int64], maximum: float) -> float:
    """The threshold with the smallest mean squared error of rounding and clipping to -127 .. 127.

    Values are taken as spread evenly within a bin, and the error is integrated over each bin exactly: a bin may be
    as wide as a step of the quantiser. 256 candidates, every 8 bins.
    """
    if not maximum or not histogram.any():
        return threshold_minmax(histogram, maximum)
    bins = len(histogram)
    edges = np.arange(bins + 1, dtype=np.float64)
    candidates = np.arange(_MSE_STEP, bins + 1, _MSE_STEP)
    step = candidates[:, None] / _LEVELS
    level = np.minimum(np.rint(edges / step), _LEVELS)
    # The integral from 0 to an edge: each level behind it costs step^3 / 12, and the rest of the way its cube / 3.
    integral = level * step**3 / 12 + (edges - level * step) ** 3 / 3
    error = np.diff(integral, axis=1) @ histogram.astype(np.float64)
    best = len(candidates) - 1 - int(np.argmin(error[::-1]))
    return maximum * int(candidates[best]) / bins


_RULES: dict[str, Callable[[NDArray[np.int64], float], float]] = {
    "minmax": threshold_minmax,
    "percentile": threshold_percentile,
    "entropy": threshold_entropy,
    "mse": threshold_mse,
}


def threshold(calibrator: str, tensor_range: TensorRange) -> float:
    """The threshold that a calibrator chooses for a tensor.

    Raises:
        InputError: There is no calibrator of that name.
    """
    if calibrator not in _RULES:
        raise InputError(f"calibrator must be one of {', '.join(CALIBRATORS)}, got {calibrator!r}")
    return _RULES[calibrator](tensor_range.histogram, tensor_range.maximum)
