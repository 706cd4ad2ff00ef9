from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hamr_edge.calibration.ranges import measure_extremes
from hamr_edge.export.half import overflows, to_half
from tests.half_networks import CROPS, RELU, check_half, network, node_kind, one, reasons, run, types_of
from tests.nvidia_builder import build_with_nvidia


def test_weights_are_float16_and_both_ends_float32() -> None:
    model = network(RELU)
    half, kept = to_half(model)
    check_half(model, half)
    stored = {item.name: item.data_type for item in half.graph.initializer}
    assert {name for name, kind in stored.items() if kind == TensorProto.FLOAT16} == {
        "first_half",
        "first_bias_half",
        "last_half",
    }
    assert {name for name, kind in stored.items() if kind == TensorProto.FLOAT} == {"mean", "inverse_std", "least"}
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert [node.input[0] for node in casts] == ["images", "nchw", "convolved"]
    ends = {"pixels", "centred", "normal", "nchw"}
    assert {item.node for item in kept if item.reason == "input"} == ends
    assert {item.node for item in kept if item.reason == "norm"} == {
        "pooled",
        "flat",
        "norm",
        "clipped",
        "embeddings",
    }
    assert node_kind(half, "Relu") == TensorProto.FLOAT16
    assert node_kind(half, "ReduceL2") == node_kind(half, "Sub") == TensorProto.FLOAT


def test_the_model_given_is_not_changed_and_the_same_model_gives_the_same_bytes() -> None:
    model = network(RELU)
    before = model.SerializeToString(deterministic=True)
    first, _ = to_half(model)
    second, _ = to_half(network(RELU))
    assert model.SerializeToString(deterministic=True) == before
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_real_network_in_half(checkpoint: Path, tmp_path: Path) -> None:
    from hamr_edge.export.onnx_export import export_onnx
    from hamr_edge.trainer.checkpoint import load_checkpoint

    path = tmp_path / "model.onnx"
    export_onnx(load_checkpoint(checkpoint)[0], path, 8)
    model = onnx.load(path)
    crops = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), np.uint8)
    half, kept = to_half(model, measure_extremes(model, [crops]))
    assert not overflows(kept)
    assert {item.reason for item in kept} <= {"input", "norm", "operator"}
    onnx.save(half, path)
    onnx.checker.check_model(str(path), full_check=True)
    products = [node for node in half.graph.node if node.op_type in ("Conv", "Gemm")]
    types = types_of(half)
    assert products
    assert all(types[name] == TensorProto.FLOAT16 for node in products for name in (*node.input, *node.output))
    sessions = [onnxruntime.InferenceSession(item.SerializeToString()) for item in (model, half)]
    one_rows, other_rows = (session.run(None, {"images": crops})[0] for session in sessions)
    assert (one_rows * other_rows).sum(axis=1).min() > 0.999
    assert build_with_nvidia(path)


@pytest.mark.parametrize("value", [1e-12, 1e-7, 1e5, np.inf])
def test_a_node_whose_constant_float16_cannot_hold_stays_float32(value: float) -> None:
    model = network([one("Min" if value > 1 else "Max", ["features", "bound"])], {"bound": np.float32(value)})
    half, kept = to_half(model)
    assert reasons(kept)["body"] == "constant"
    check_half(model, half)


@pytest.mark.parametrize("value", [1e-5, 0.0, 65504.0])
def test_a_constant_that_float16_holds_is_float16(value: float) -> None:
    model = network([one("Max", ["features", "bound"])], {"bound": np.float32(value)})
    half, kept = to_half(model)
    assert "body" not in reasons(kept)
    assert node_kind(half, "Max") == TensorProto.FLOAT16


def test_an_array_may_hold_small_numbers_unless_it_divides() -> None:
    values = np.asarray([1, 1e-9, 2, 3]).reshape(4, 1, 1)
    small = network([one("Mul", ["features", "factors"])], {"factors": values})
    assert "body" not in reasons(to_half(small)[1])
    divides = network([one("Div", ["features", "factors"])], {"factors": values})
    half, kept = to_half(divides)
    assert reasons(kept)["body"] == "constant"
    assert np.isfinite(run(half)[0]).all()


def test_an_attribute_that_float16_cannot_hold_keeps_its_node_float32() -> None:
    half, kept = to_half(network([one("LeakyRelu", alpha=1e-9)]))
    assert reasons(kept)["body"] == "constant"
    assert node_kind(half, "LeakyRelu") == TensorProto.FLOAT


def test_what_passes_the_range_stays_float32_with_its_readers() -> None:
    """A tensor beyond 1e4 is float32, its maker and readers too; what comes behind them is float16 again."""
    body = [
        helper.make_node("Mul", ["features", "large"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["positive"]),
        helper.make_node("Mul", ["positive", "small"], ["back"]),
        one("Neg", ["back"]),
    ]
    model = network(body, {"large": np.float32(6e4), "small": np.float32(1 / 6e4)})
    extremes = measure_extremes(model, [CROPS])
    assert max(map(abs, extremes["scaled"])) > 65504
    half, kept = to_half(model, extremes)
    check_half(model, half)
    assert {item.node for item in kept if item.reason == "range"} == {"scaled", "positive", "back"}
    assert {item.node for item in overflows(kept)} == {"scaled", "positive", "back"}
    assert overflows(kept)[0].peak == max(map(abs, extremes["scaled"]))
    types = types_of(half)
    assert types["scaled"] == types["positive"] == types["back"] == TensorProto.FLOAT
    assert types["body"] == TensorProto.FLOAT16


def test_a_peak_below_float16s_largest_is_kept_but_no_overflow() -> None:
    model = network(RELU)
    for peak, reason in ((9e3, None), (-2e4, "range"), (np.nan, "range")):
        _, kept = to_half(model, {"body": (min(peak, 0.0), max(peak, 0.0))})
        assert reasons(kept).get("body") == reason
        assert not overflows(kept)


def test_without_the_range_check_float16_overflows_and_onnxruntime_hides_it() -> None:
    model = network(
        [helper.make_node("Mul", ["features", "large"], ["scaled"]), one("Mul", ["scaled", "small"])],
        {"large": np.float32(6e4), "small": np.float32(1 / 6e4)},
    )
    unchecked, kept = to_half(model)
    assert not overflows(kept)
    features = to_half(network(RELU, more_outputs=[("features", TensorProto.FLOAT)]))[0]
    values = run(features)[1].astype(np.float16)
    with np.errstate(over="ignore"):
        assert np.isinf(values * np.float16(6e4)).any()
    np.testing.assert_allclose(run(unchecked)[0], run(model)[0], atol=5e-3)
    checked, kept = to_half(model, measure_extremes(model, [CROPS]))
    assert overflows(kept)
    assert types_of(checked)["scaled"] == TensorProto.FLOAT


def test_generalised_mean_pooling_stays_float32_from_power_to_root() -> None:
    """Cubes leave float16 at 40.3, wherever the measured crops went: nothing between power and root is float16."""
    body = [
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("Pow", ["positive", "three"], ["cubes"]),
        helper.make_node("AveragePool", ["cubes"], ["mean_cubes"], kernel_shape=[2, 2]),
        helper.make_node("Pow", ["mean_cubes", "third"], ["root"]),
        one("Relu", ["root"]),
    ]
    model = network(body, {"three": np.float32(3), "third": np.float32(1 / 3)})
    half, kept = to_half(model)
    check_half(model, half)
    assert {item.node for item in kept if item.reason == "operator"} == {"cubes", "mean_cubes", "root"}
    with np.errstate(over="ignore"):
        assert np.isinf(np.float16(40.4) ** 3)
        assert np.isfinite(np.float16(40.3) ** 3)
    assert types_of(half)["body"] == TensorProto.FLOAT16


def test_a_hand_written_norm_is_float32_up_to_its_division() -> None:
    body = [
        helper.make_node("Mul", ["features", "features"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axes"], ["sum"], keepdims=1),
        helper.make_node("Sqrt", ["sum"], ["length"]),
        one("Div", ["features", "length"]),
    ]
    model = network(body)
    half, kept = to_half(model)
    check_half(model, half, tolerance=0.02)
    assert {item.node for item in kept if item.reason == "operator"} == {"squares", "sum", "length"}


def test_a_whole_exponent_of_another_type() -> None:
    model = network([one("Pow", ["features", "two"])], {"two": np.asarray(2, np.int64)})
    half, kept = to_half(model)
    check_half(model, half, tolerance=0.01)
    assert reasons(kept)["body"] == "operator"


STEPS = ("Conv", "Relu", "Sigmoid", "Add", "Mul", "MaxPool", "AveragePool", "Softmax", "Tanh", "Output")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=7), st.integers(0, 2**16))
def test_any_network_in_half_is_near_the_network(steps: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    nodes, constants, outputs, tensors = [], {}, [], ["features"]
    for number, step in enumerate(steps):
        name, last = f"t{number}", tensors[-1]
        if step == "Conv":
            constants[f"w{number}"] = rng.normal(0, 0.2, (4, 4, 3, 3))
            nodes.append(helper.make_node("Conv", [last, f"w{number}"], [name], pads=[1, 1, 1, 1]))
        elif step in ("Add", "Mul"):
            constants[f"c{number}"] = rng.normal(0, 1, (4, 1, 1))
            other = f"c{number}" if step == "Mul" else tensors[int(rng.integers(len(tensors)))]
            nodes.append(helper.make_node(step, [last, other], [name]))
        elif step.endswith("Pool"):
            nodes.append(helper.make_node(step, [last], [name], kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        elif step == "Output":
            nodes.append(helper.make_node("Identity", [last], [name]))
            outputs.append((name, TensorProto.FLOAT))
        else:
            nodes.append(helper.make_node(step, [last], [name]))
        tensors.append(name)
    model = network([*nodes, one("Identity", [tensors[-1]])], constants, outputs)
    extremes = measure_extremes(model, [CROPS])
    half, kept = to_half(model, extremes)
    onnx.checker.check_model(half, full_check=True)
    assert not overflows(kept)
    for before, after in zip(run(model), run(half), strict=True):
        assert after.dtype == np.float32
        np.testing.assert_allclose(after, before, atol=0.02 * max(1.0, float(np.abs(before).max())))
