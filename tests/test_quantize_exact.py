"""One quantised block in numpy, to the last whole number."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from hamr_edge.calibration.quantize import quantize
from hamr_edge.export.half import to_half
from tests.quantize_models import bottleneck, constants, images, measured_ranges, run


def convolve(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sums of a convolution with stride 1 that keeps the size: (N, in, H, W) by (out, in, k, k), in the type given."""
    edge = weight.shape[-1] // 2
    padded = np.pad(values, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.einsum("nchwyx,ocyx->nohw", windows, weight)


def to_whole(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Quantise as the standard says, in float32: halves to even."""
    return np.clip(np.rint(values.astype(np.float32) / scale.astype(np.float32)), -128, 127).astype(np.int8)


def block_in_numpy(made: onnx.ModelProto, values: np.ndarray) -> dict[str, np.ndarray]:
    """The whole numbers of a bottleneck block.

    They come from integers: int32 sums, then the scales. ONNX Runtime's CPU computes float16 operators in float32 and
    drops the casts between them: of what is not constant, it rounds to float16 only what a Q reads.

    Args:
        made: The quantised model.
        values: The block's input, in the model's type.

    Returns:
        By the name of the tensor: int8 of the block's input and of what the next convolutions read.
    """
    half = values.dtype == np.float16
    known = {name.removesuffix("_half"): value for name, value in constants(made).items()}
    whole = {"x": to_whole(values, known["x_int8_scale"])}
    source = "x"
    for name, result in (("c1", "r1"), ("c2", "r2"), ("c3", "r3")):
        scale, weight_scale = known[f"{source}_int8_scale"], known[f"{name}_scale"][:, None, None, None]
        if half:
            weight = known[f"{name}_int8"].astype(np.float16) * weight_scale
            sums = convolve(whole[source].astype(np.float64), weight.astype(np.float64)) * float(scale)
        else:
            sums = convolve(whole[source].astype(np.int32), known[f"{name}_int8"].astype(np.int32))
            sums = sums * (scale.astype(np.float64) * weight_scale[:, 0])
        product = sums + known[f"{name}_bias"][:, None, None].astype(np.float64)
        if name == "c3":
            product = product + whole["x"] * known["x_int8_scale"].astype(np.float64)
        product = product.astype(values.dtype)
        whole[result] = to_whole(np.maximum(product, 0), known[f"{result}_int8_scale"])
        source = result
    return whole


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_onnx_runtime_and_numpy_agree_exactly_on_a_block(half: bool) -> None:
    model = bottleneck(channels=16)
    made = quantize(model, ["c1", "c2", "c3", "last"], measured_ranges(model))
    if half:
        made = to_half(made)[0]
    values = images(model, rows=16)
    taps = ["x_int8", "r1_int8", "r2_int8", "r3_int8"]
    found = run(made, values, "DISABLE_ALL", taps)
    expected = block_in_numpy(made, np.maximum(values, 0).astype(np.float16 if half else np.float32))
    for tap, got in zip(taps, found, strict=True):
        assert len(np.unique(got)) > 50
        assert np.array_equal(got, expected[tap.removesuffix("_int8")]), tap
