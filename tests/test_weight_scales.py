"""Weights to whole numbers: what is stored, how far it is off, and that it fits the kernels that read it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hamr_edge.calibration.weight_scales import (
    SMALLEST_SCALE,
    half_scale,
    quantize_normalised,
    quantize_paired_weights,
    quantize_weights,
)

VALUES = st.floats(-4, 4, width=32, allow_subnormal=False)


def weights(*shape: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    return st.tuples(*shape).flatmap(lambda sizes: arrays(np.float32, sizes, elements=VALUES))


def squared_error(whole: np.ndarray, scale: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of each row (channels, ...)."""
    shaped = scale.reshape(-1, *[1] * (rows.ndim - 1))
    return np.square(whole.astype(np.float32) * shaped - rows, dtype=np.float64).reshape(len(rows), -1).sum(axis=1)


@given(st.floats(0, 2.0**120, width=32, allow_subnormal=False))
def test_a_scale_is_a_normal_float16_and_near_what_it_should_be(wanted: float) -> None:
    found = half_scale(np.asarray(wanted, np.float32))
    assert found == np.float16(found)
    assert SMALLEST_SCALE <= found < np.inf
    if SMALLEST_SCALE <= wanted <= float(np.finfo(np.float16).max):
        assert abs(found - wanted) <= wanted * 2**-11


@given(weights(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)), st.integers(0, 2))
def test_each_channel_is_rounded_to_its_own_127_levels(weight: np.ndarray, axis: int) -> None:
    whole, scale = quantize_weights(weight, axis)
    assert whole.dtype == np.int8
    assert whole.shape == weight.shape
    assert scale.shape == (weight.shape[axis],)
    rows, whole_rows = np.moveaxis(weight, axis, 0), np.moveaxis(whole, axis, 0)
    for row, whole_row, own in zip(rows, whole_rows, scale, strict=True):
        assert np.abs(whole_row.astype(int)).max() <= 127
        # Half a step; the largest may lose a little more, where float16 rounds its scale down.
        assert np.abs(whole_row * own - row).max() <= own / 2 + np.abs(row).max() * 2**-10
        assert not whole_row[row == 0].any()


@given(weights(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3)))
def test_no_two_neighbours_saturate_16_bits(weight: np.ndarray) -> None:
    whole = quantize_paired_weights(weight, 0)[0].astype(int)
    # The order of the kernel: input channels innermost, then the window; an odd one out meets a 0.
    flat = np.moveaxis(whole, 1, -1).reshape(len(whole), -1)
    flat = np.pad(flat, ((0, 0), (0, flat.shape[1] % 2)))
    first, second = flat[:, 0::2], flat[:, 1::2]
    assert 255 * (np.maximum(first, 0) + np.maximum(second, 0)).max() <= 32767
    assert 255 * (np.minimum(first, 0) + np.minimum(second, 0)).min() >= -32768


def test_pairs_lie_along_the_input_channels_of_either_layout() -> None:
    rows = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    rows[:, 1::2] = 0  # nothing is added to the others
    for weight, axis in ((rows, 0), (rows.T, 1), (rows[:, :, None, None], 0)):
        whole, _ = quantize_paired_weights(weight, axis)
        assert np.abs(whole).max() > 100
    beside = np.ones((2, 4), np.float32)
    assert np.abs(quantize_paired_weights(beside, 0)[0]).max() == 64


def test_pairs_of_an_odd_number_of_channels_go_on_at_the_next_position() -> None:
    whole, _ = quantize_paired_weights(np.ones((1, 3, 1, 2), np.float32), 0)
    np.testing.assert_array_equal(whole, np.full((1, 3, 1, 2), 64))
    flat = np.random.default_rng(0).normal(size=(1, 18)).astype(np.float32)
    flat[:, 1::2] = 0  # nothing is added to the others
    whole, _ = quantize_paired_weights(flat.reshape(1, 6, 3).transpose(0, 2, 1), 0)
    assert np.abs(whole).max() > 100


@given(weights(st.integers(1, 3), st.integers(1, 6)))
def test_paired_weights_are_never_worse_than_7_bits(weight: np.ndarray) -> None:
    peaks = np.abs(weight).max(axis=1)
    scale7 = half_scale(np.asarray(peaks / 64, np.float32))
    whole7 = np.clip(np.rint(weight / scale7[:, None]), -64, 64)
    whole, scale = quantize_paired_weights(weight, 0)
    assert (squared_error(whole, scale, weight) <= squared_error(whole7, scale7, weight)).all()


def test_paired_weights_are_better_than_7_bits_on_noise() -> None:
    weight = np.random.default_rng(0).normal(size=(16, 64)).astype(np.float32)
    whole, scale = quantize_paired_weights(weight, 0)
    scale7 = half_scale(np.abs(weight).max(axis=1) / np.float32(64))
    whole7 = np.rint(weight / scale7[:, None])
    assert squared_error(whole, scale, weight).sum() < 0.6 * squared_error(whole7, scale7, weight).sum()


@given(weights(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))
def test_the_batched_form_is_per_channel_rounding_of_each_part(weight: np.ndarray) -> None:
    whole, scale, rest = quantize_normalised(weight)
    assert whole.shape == weight.shape
    assert rest.shape == (weight.shape[0], 1, weight.shape[2])
    for values in (scale, rest):
        assert (values >= SMALLEST_SCALE).all()
        assert np.array_equal(values, np.asarray(values, np.float16).astype(np.float32))
    for part, part_whole, part_rest in zip(weight, whole, rest, strict=True):
        own = scale * part_rest[0]
        assert np.array_equal(part_whole, np.clip(np.rint(part / own), -127, 127))
        expected = np.abs(part).max(axis=0) / 127
        normal = expected / scale >= SMALLEST_SCALE
        assert (np.abs(own - expected)[normal] <= expected[normal] * 2**-10).all()


def test_channels_of_very_unlike_size_keep_their_own_scale() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 16, 4)).astype(np.float32) * np.float32([1e-3, 1, 10, 1e2])
    whole, scale, rest = quantize_normalised(weight)
    error = np.abs(whole * scale * rest - weight).max(axis=1)
    assert (error <= np.abs(weight).max(axis=1) / 127 * 0.51 + np.abs(weight).max(axis=1) * 2**-10).all()


@pytest.mark.parametrize("quantizer", [quantize_weights, quantize_paired_weights])
def test_zeros_stay_zeros_with_a_scale(quantizer) -> None:  # type: ignore[no-untyped-def]
    whole, scale = quantizer(np.zeros((2, 4), np.float32), 0)
    assert not whole.any()
    assert (scale == np.float32(SMALLEST_SCALE)).all()
    assert not quantize_normalised(np.zeros((2, 4, 3), np.float32))[0].any()
