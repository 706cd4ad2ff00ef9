from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hamr_edge.calibration.calibrators import (
    ZERO_THRESHOLD,
    threshold,
    threshold_entropy,
    threshold_minmax,
    threshold_mse,
    threshold_percentile,
)
from hamr_edge.calibration.config import CALIBRATORS, CalibrationConfig
from hamr_edge.calibration.ranges import BINS, TensorRange
from hamr_edge.errors import InputError

RNG = np.random.default_rng(0)
GAUSSIAN = RNG.normal(size=400_000)
LAPLACE = RNG.laplace(size=400_000)


def histogram_of(values: np.ndarray) -> tuple[np.ndarray, float]:
    maximum = float(np.abs(values).max())
    return np.histogram(np.abs(values), BINS, (0, maximum))[0], maximum


@st.composite
def histograms(draw: st.DrawFn) -> np.ndarray:
    """Histograms as measuring gives them: the largest value is in the last bin."""
    shape = draw(st.sampled_from(["dense", "sparse", "decaying"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.integers(0, 1000, BINS)
    if shape == "sparse":
        counts *= rng.random(BINS) < draw(st.sampled_from([0.001, 0.01, 0.3]))
    elif shape == "decaying":
        counts = (1e6 * np.exp(-np.arange(BINS) / draw(st.integers(3, 500)))).astype(np.int64)
    counts[0] += draw(st.integers(0, 10**7))
    counts[-1] = draw(st.integers(1, 1000))
    return counts.astype(np.int64)


def test_minmax_clips_nothing() -> None:
    assert threshold_minmax(*histogram_of(GAUSSIAN)) == np.abs(GAUSSIAN).max()


def test_the_percentile_of_even_values_is_that_part_of_the_range() -> None:
    even = np.full(BINS, 1000)
    assert threshold_percentile(even, 8.0, 50) == pytest.approx(4.0)
    assert threshold_percentile(even, 8.0, 33.3) == pytest.approx(8.0 * 0.333)
    assert threshold_percentile(even, 8.0) == pytest.approx(8.0 * 0.9999)
    assert threshold_percentile(even, 8.0, 100) == 8.0


def test_the_percentile_is_that_of_the_samples() -> None:
    found = threshold_percentile(*histogram_of(LAPLACE))
    assert found == pytest.approx(np.percentile(np.abs(LAPLACE), 99.99), abs=np.abs(LAPLACE).max() / BINS)


def test_the_percentile_of_almost_only_zeros_is_a_whole_bin() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0], counts[-1] = 10**6, 1
    assert threshold_percentile(counts, 1.0) == 1 / BINS


def mean_squared_error(values: np.ndarray, clip: float) -> float:
    """Of symmetric rounding to -127 .. 127, sample by sample."""
    step = clip / 127
    return float(np.mean((values - np.clip(np.rint(values / step), -127, 127) * step) ** 2))


@pytest.mark.parametrize("values", [GAUSSIAN, LAPLACE, np.maximum(LAPLACE, 0), RNG.uniform(-1, 1, 100_000)])
def test_mse_finds_the_best_clipping_of_the_samples(values: np.ndarray) -> None:
    maximum = np.abs(values).max()
    candidates = np.linspace(0.2, 1, 81) * maximum
    best = min(mean_squared_error(values, clip) for clip in candidates)
    assert mean_squared_error(values, threshold_mse(*histogram_of(values))) <= 1.005 * best


def test_mse_finds_the_known_optima() -> None:
    # Banner et al. (2019, "Post training 4-bit quantization", eq. 5): clipping at a costs a Laplace distribution of
    # scale 1 2 exp(-a), rounding in steps of a / 127 costs a^2 / (12 * 127^2); the sum is least where its slope is 0.
    clip = np.linspace(5, 15, 100_001)
    laplace = clip[np.argmin(2 * np.exp(-clip) + clip**2 / (12 * 127**2))]
    edges = np.linspace(0, 16, BINS + 1)
    exact = np.round(1e12 * (np.exp(-edges[:-1]) - np.exp(-edges[1:]))).astype(np.int64)
    assert laplace == pytest.approx(9.89, abs=0.01)
    assert math.exp(-laplace) == pytest.approx(5e-5, rel=0.05)  # what PERCENTILE is held against
    assert threshold_mse(exact, 16.0) == pytest.approx(laplace, abs=8 * 16 / BINS)

    def beyond(a: float) -> float:  # what clipping at a costs a standard normal
        return (a * a + 1) * math.erfc(a / math.sqrt(2)) - a * math.sqrt(2 / math.pi) * math.exp(-a * a / 2)

    clip = np.linspace(3, 5, 20_001)
    gaussian = clip[np.argmin([beyond(a) + a * a / (12 * 127**2) for a in clip])]
    assert gaussian == pytest.approx(3.92, abs=0.01)
    assert math.erfc(gaussian / math.sqrt(2)) == pytest.approx(9e-5, rel=0.05)
    edges = np.linspace(0, 8, BINS + 1)
    below = np.array([math.erf(edge / math.sqrt(2)) for edge in edges])
    exact = np.round(1e12 * np.diff(below)).astype(np.int64)
    assert threshold_mse(exact, 8.0) == pytest.approx(gaussian, abs=8 * 8 / BINS)


def entropy_as_described(histogram: np.ndarray, maximum: float) -> float:
    """The description of 2017 step by step, with NVIDIA's first bin and our floor."""
    bins = histogram.astype(float)
    bins[0] = bins[1]
    best, found = math.inf, 0
    for count in range(128, BINS + 1):
        p = bins[:count].copy()
        outliers = bins[count:].sum()
        p[-1] += outliers
        level = np.arange(count) * 128 // count
        sums, filled = np.bincount(level, bins[:count]), np.bincount(level, p > 0)
        q = np.where(p > 0, sums[level] / np.maximum(filled[level], 1), 0.0)
        if not q.sum():
            continue
        p, q = p / p.sum(), q / q.sum()
        q[(q == 0) & (p > 0)] = 1e-6
        full = p > 0
        divergence = float((p[full] * np.log(p[full] / q[full])).sum())
        if divergence <= best + 1e-12:
            best, found = min(best, divergence), count
    return maximum * found / BINS


@pytest.mark.parametrize(
    "values",
    [GAUSSIAN, LAPLACE, np.maximum(GAUSSIAN, 0), LAPLACE**3, np.append(GAUSSIAN, 100), np.append(GAUSSIAN[:99], 30)],
    ids=["gaussian", "laplace", "relu", "long tail", "far outlier", "few values"],
)
def test_entropy_does_as_the_description_says(values: np.ndarray) -> None:
    counts, maximum = histogram_of(values)
    assert threshold_entropy(counts, maximum) == pytest.approx(entropy_as_described(counts, maximum))


def test_entropy_cuts_one_far_outlier_away() -> None:
    counts, maximum = histogram_of(np.append(GAUSSIAN, 100))
    assert threshold_minmax(counts, maximum) == 100
    assert np.abs(GAUSSIAN).max() <= threshold_entropy(counts, maximum) < 10


def test_entropy_keeps_nearly_all_of_even_values() -> None:
    assert threshold_entropy(*histogram_of(RNG.uniform(-1, 1, 10**6))) > 0.99


def test_entropy_has_more_than_one_candidate() -> None:
    # ONNX Runtime's calibrator has 128 bins for 128 levels: its threshold is always the maximum.
    assert threshold_entropy(*histogram_of(LAPLACE)) < 0.9 * np.abs(LAPLACE).max()


def test_entropy_does_not_mind_the_zeros_of_a_relu() -> None:
    counts, maximum = histogram_of(np.maximum(GAUSSIAN, 0))
    without = threshold_entropy(counts, maximum)
    counts[0] *= 100
    assert threshold_entropy(counts, maximum) == without


@given(histograms(), st.floats(1e-30, 1e30), st.sampled_from(CALIBRATORS))
def test_a_threshold_lies_within_the_range(counts: np.ndarray, maximum: float, calibrator: str) -> None:
    assert 0 < threshold(calibrator, TensorRange(-maximum, maximum / 2, counts)) <= maximum


@given(histograms(), st.integers(1, 20), st.sampled_from(CALIBRATORS))
def test_more_crops_of_the_same_kind_change_nothing(counts: np.ndarray, doublings: int, calibrator: str) -> None:
    once, often = (TensorRange(0, 3.0, counts * factor) for factor in (1, 2**doublings))
    assert threshold(calibrator, once) == threshold(calibrator, often)


@given(histograms(), st.floats(1e-6, 1e6), st.sampled_from(CALIBRATORS))
def test_a_threshold_grows_with_the_values(counts: np.ndarray, factor: float, calibrator: str) -> None:
    one, other = (threshold(calibrator, TensorRange(0, maximum, counts)) for maximum in (1.0, factor))
    assert other == pytest.approx(factor * one, rel=1e-12)


@given(hnp.arrays(np.int64, BINS, elements=st.integers(0, 3)), st.sampled_from(CALIBRATORS))
def test_any_counts_give_a_usable_threshold(counts: np.ndarray, calibrator: str) -> None:
    assert 0 < threshold(calibrator, TensorRange(-1.0, 0.0, counts)) <= 1


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_a_tensor_of_zeros_has_a_threshold_whose_scale_float16_holds(calibrator: str) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0] = 5
    found = threshold(calibrator, TensorRange(0.0, 0.0, counts))
    assert found == ZERO_THRESHOLD
    assert np.float16(found / 127) >= np.finfo(np.float16).smallest_normal


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_a_constant_tensor_keeps_its_value(calibrator: str) -> None:
    counts = np.zeros(BINS, np.int64)
    counts[-1] = 100
    assert threshold(calibrator, TensorRange(2.5, 2.5, counts)) == pytest.approx(2.5, rel=0.001)


def test_an_unknown_calibrator_is_refused() -> None:
    with pytest.raises(InputError, match="one of minmax, percentile, entropy, mse, got 'max'"):
        threshold("max", TensorRange(0, 1, np.ones(BINS, np.int64)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"calibrator": "max"}, "auto or one of minmax"),
        ({"crops": 0}, "at least 1, got 0"),
        ({"seed": -1}, "at least 0, got -1"),
        ({"batch_size": 0}, "1..1024, got 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CalibrationConfig(**settings)  # type: ignore[arg-type]


def test_settings_go_to_json_and_back() -> None:
    config = CalibrationConfig(64, "mse", 3, True, 8)
    assert CalibrationConfig(**config.to_json()) == config
