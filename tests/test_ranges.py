from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.calibration.activations import Activations
from hamr_edge.calibration.ranges import BINS, measure_extremes, measure_ranges
from hamr_edge.errors import InputError
from tests.artifacts import INPUT_SIZE_HW


@pytest.fixture(scope="module")
def model(tiny_artifact: Path) -> onnx.ModelProto:
    return onnx.load(tiny_artifact)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, *INPUT_SIZE_HW, 3), np.uint8)


def split(crops: np.ndarray, size: int) -> list[np.ndarray]:
    return [crops[start : start + size] for start in range(0, len(crops), size)]


def tensors_by_numpy(model: onnx.ModelProto, crops: np.ndarray) -> dict[str, np.ndarray]:
    """What the tiny artifact's nodes put out."""
    weight = numpy_helper.to_array(model.graph.initializer[0])
    values = {"float": crops.astype(np.float32)}
    values["centred"] = values["float"] - np.float32(110)
    values["nchw"] = values["centred"].transpose(0, 3, 1, 2)
    height, width = INPUT_SIZE_HW
    values["pooled"] = values["nchw"].reshape(len(crops), 3, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
    values["flat"] = values["pooled"].reshape(len(crops), -1)
    values["product"] = values["flat"] @ weight
    values["embeddings"] = values["product"] / np.linalg.norm(values["product"], axis=1, keepdims=True)
    return values


def elementwise_model(nodes: list[onnx.NodeProto], constants: dict[str, float] | None = None) -> onnx.ModelProto:
    """A network of the given nodes over ``float``, the (N, 2, 2, 3) crops as float32, and ``images``."""
    cast = helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [cast, *nodes],
        "elementwise",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 2, 2, 3])],
        [helper.make_tensor_value_info("float", TensorProto.FLOAT, ["batch", 2, 2, 3])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_extremes_are_those_of_every_tensor_in_order(model: onnx.ModelProto, crops: np.ndarray) -> None:
    expected = tensors_by_numpy(model, crops)
    extremes = measure_extremes(model, split(crops, 4))
    assert list(extremes) == list(expected)
    for name, values in expected.items():
        assert extremes[name] == pytest.approx((values.min(), values.max()), rel=1e-4), name


def test_the_histograms_are_numpys(model: onnx.ModelProto, crops: np.ndarray) -> None:
    expected = tensors_by_numpy(model, crops)
    ranges = measure_ranges(model, ["pooled", "nchw"], split(crops, 4))
    assert list(ranges) == ["nchw", "pooled"]
    for name, found in ranges.items():
        values = np.abs(expected[name]).astype(np.float64)
        assert found.maximum == pytest.approx(values.max(), rel=1e-6)
        assert found.histogram.sum() == values.size
        # Rounding may carry a value that is on the edge of two bins to the other side, and no further.
        places = BINS * values / values.max()
        on_edge = np.abs(places - np.rint(places)) < 1e-3
        counts = np.histogram(values, BINS, (0, values.max()))[0]
        assert (
            np.abs(np.cumsum(found.histogram - counts)).max() <= np.bincount(np.rint(places[on_edge]).astype(int)).max()
        )
    assert ranges["nchw"].low == -110
    assert ranges["nchw"].high == 145


def test_whole_numbers_fall_into_their_bins() -> None:
    model = elementwise_model([helper.make_node("Neg", ["float"], ["negative"])])
    values = np.array([0, 0, 1, 2, 2, 2, 128, 254, 255, 255, 255, 255], np.uint8).reshape(1, 2, 2, 3)
    found = measure_ranges(model, ["negative"], [values])["negative"]
    assert (found.low, found.high, found.maximum) == (-255, 0, 255)
    filled = {place: int(found.histogram[place]) for place in np.flatnonzero(found.histogram).tolist()}
    assert filled == {0: 2, 2048 // 255: 1, 2 * 2048 // 255: 3, 128 * 2048 // 255: 1, 254 * 2048 // 255: 1, 2047: 4}


@pytest.mark.parametrize("size", [1, 3, 11])
def test_how_crops_are_split_into_batches_does_not_matter(model: onnx.ModelProto, crops: np.ndarray, size: int) -> None:
    whole = measure_ranges(model, ["centred", "pooled"], [crops])
    parts = measure_ranges(model, ["centred", "pooled"], split(crops, size))
    for name, found in whole.items():
        assert (parts[name].low, parts[name].high) == (found.low, found.high)
        np.testing.assert_array_equal(parts[name].histogram, found.histogram)


def test_little_memory_gives_the_same(model: onnx.ModelProto, crops: np.ndarray) -> None:
    names = ["centred", "pooled"]
    crop_bytes = 4 * (3 * 32 * 16 + 3 * 8 * 4)
    assert len(list(Activations(model, names, 4 * crop_bytes).read(crops))) == 2 * 3  # pieces of 4, 4 and 3 crops
    whole, parts = (measure_ranges(model, names, [crops], memory_bound=bound) for bound in (2**30, 1))
    for name, found in whole.items():
        np.testing.assert_array_equal(parts[name].histogram, found.histogram)
    assert measure_extremes(model, [crops], memory_bound=1).keys() == measure_extremes(model, [crops]).keys()


def test_a_tensor_of_zeros_is_no_trouble(crops: np.ndarray) -> None:
    model = elementwise_model([helper.make_node("Sub", ["float", "float"], ["zero"])])
    found = measure_ranges(model, ["zero"], [crops[:, :2, :2]])["zero"]
    assert (found.low, found.high, found.maximum) == (0, 0, 0)
    assert found.histogram[0] == 11 * 12
    assert found.histogram.sum() == 11 * 12


def test_tiny_values_are_binned() -> None:
    model = elementwise_model([helper.make_node("Mul", ["float", "tiny"], ["small"])], {"tiny": 1e-38})
    crops = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    found = measure_ranges(model, ["small"], [crops])["small"]
    assert np.flatnonzero(found.histogram).tolist()[-1] == BINS - 1
    assert found.histogram.sum() == 12


@pytest.mark.parametrize(
    ("op", "values", "what"),
    [("Sqrt", [4, 9], "NaN"), ("Log", [110, 111], "infinity")],
)
def test_a_tensor_that_is_not_finite_is_named(op: str, values: list[int], what: str) -> None:
    nodes = [
        helper.make_node("Sub", ["float", "hundred"], ["centred"]),
        helper.make_node(op, ["centred"], ["broken"], name="culprit"),
        helper.make_node("Relu", ["broken"], ["after"]),
    ]
    model = elementwise_model(nodes, {"hundred": 110})
    good, bad = np.full((1, 2, 2, 3), 200, np.uint8), np.full((1, 2, 2, 3), 200, np.uint8)
    bad[0, 1, 1, :2] = values
    message = rf"tensor broken \(output of {op} culprit\) holds {what} in calibration batch 2 of 2"
    with pytest.raises(InputError, match=message):
        measure_ranges(model, ["broken"], [good, bad])
    with pytest.raises(InputError, match=message):
        measure_extremes(model, [good, bad])


def test_only_float32_tensors_are_measured() -> None:
    nodes = [
        helper.make_node("Shape", ["float"], ["size"]),
        helper.make_node("Cast", ["float"], ["half"], to=TensorProto.FLOAT16),
    ]
    model = elementwise_model(nodes)
    crops = np.zeros((1, 2, 2, 3), np.uint8)
    assert list(measure_extremes(model, [crops])) == ["float"]
    with pytest.raises(InputError, match=r"tensor half must be float32, it is tensor\(float16\)"):
        measure_ranges(model, ["half"], [crops])


def test_a_name_that_is_not_there_is_refused_with_the_nearest(model: onnx.ModelProto, crops: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"tensor centered is no output of a node.*did you mean centred"):
        measure_ranges(model, ["centered"], [crops])
    with pytest.raises(InputError, match="tensor weight is no output"):
        measure_ranges(model, ["weight"], [crops])


def test_batches_are_checked(model: onnx.ModelProto, crops: np.ndarray) -> None:
    with pytest.raises(InputError, match="at least one batch"):
        measure_extremes(model, [])
    with pytest.raises(InputError, match=r"got float32 \(11, 32, 16, 3\)"):
        measure_extremes(model, [crops.astype(np.float32)])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"at least one crop, got uint8 \(0, 32, 16, 3\)"):
        measure_extremes(model, [crops[:0]])
    with pytest.raises(InputError, match=r"batch \(1, 16, 32, 3\) cannot be run"):
        measure_extremes(model, [crops[:1].reshape(1, 16, 32, 3)])


def test_a_broken_network_is_refused(crops: np.ndarray) -> None:
    model = elementwise_model([helper.make_node("Add", ["float", "missing"], ["sum"])])
    with pytest.raises(InputError, match="cannot be loaded by ONNX Runtime"):
        measure_extremes(model, [crops[:, :2, :2]])


def test_the_network_is_left_as_it_was(model: onnx.ModelProto, crops: np.ndarray) -> None:
    before = model.SerializeToString(deterministic=True)
    measure_ranges(model, ["pooled"], iter(split(crops, 4)))
    assert model.SerializeToString(deterministic=True) == before


def test_progress_is_shown_unless_quiet(
    model: onnx.ModelProto, crops: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    measure_ranges(model, ["pooled"], [crops], quiet=True)
    assert capsys.readouterr() == ("", "")
    measure_ranges(model, ["pooled"], [crops], quiet=False)
    shown = capsys.readouterr()
    assert not shown.out
    assert "histograms" in shown.err
