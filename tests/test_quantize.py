"""TensorRT's placement of Q/DQ, rule by rule, and that what is written is what numpy computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from hamr_edge.calibration.quantize import channel_axis, quantize, range_of
from hamr_edge.calibration.sites import find_sites
from hamr_edge.errors import InputError
from hamr_edge.export.half import to_half
from hamr_edge.export.lint import lint
from tests.nvidia_builder import nvidia_builder
from tests.quantize_models import (
    MODELS,
    assert_levels_agree,
    bottleneck,
    constants,
    default_sites,
    dequantisers,
    gated,
    heads,
    images,
    inputs_of,
    measured_ranges,
    network,
    node,
    noise,
    products,
    rounded,
    run,
)
from tests.real_parts import TAKES, ask_rtx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SWIG, in NVIDIA's bindings

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def quantized(model: onnx.ModelProto, chosen: list[str] | None = None) -> onnx.ModelProto:
    return quantize(model, default_sites(model) if chosen is None else chosen, measured_ranges(model))


@each_model
def test_both_inputs_of_a_product_are_rounded_and_its_bias_and_output_are_not(model: onnx.ModelProto) -> None:
    made = quantized(model)
    known = dequantisers(made)
    for site in find_sites(model):
        for item in model.graph.node:
            if site.part is not None or len(item.input) < 2 or item.input[1] != site.weight:
                continue
            inputs = inputs_of(made, item.output[0])
            wanted = site.role == "product"
            assert [name in known for name in inputs] == [wanted, wanted, False][: len(inputs)]
            assert inputs[2:] == list(item.input[2:])


def test_of_a_block_each_input_is_rounded_once_and_no_other_tensor() -> None:
    assert Counter(rounded(quantized(bottleneck()))) == Counter(["x", "r1", "r2"])  # the identity is x


@pytest.mark.parametrize("first", [False, True])
def test_of_a_sum_only_the_branch_around_is_rounded(first: bool) -> None:
    plain = quantized(bottleneck(identity_first=first))
    around, fused = inputs_of(plain, "sum")[:: 1 if first else -1]
    assert (around, fused) == ("x_int8_float", "c3_out")
    down = quantized(bottleneck(downsample=True, identity_first=first))
    around, fused = inputs_of(down, "sum")[:: 1 if first else -1]
    assert (around, fused) == ("down_out_int8_float", "c3_out")
    assert Counter(rounded(down)) == Counter(["x", "r1", "r2", "down_out"])


def test_a_sum_stays_float_unless_the_convolution_that_it_is_fused_with_is_chosen() -> None:
    made = quantized(bottleneck(), ["c1", "c2"])
    assert inputs_of(made, "sum") == ["c3_out", "x"]


def test_only_what_is_chosen_is_touched() -> None:
    model = bottleneck(downsample=True)
    made = quantized(model, ["c2"])
    assert rounded(made) == ["r1"]
    before = {item.output[0]: item for item in model.graph.node}
    assert [name for name, item in before.items() if list(item.input) != inputs_of(made, name)] == ["c2_out"]
    nothing = quantized(model, [])
    assert list(nothing.graph.node) == list(model.graph.node)
    assert list(nothing.graph.initializer) == list(model.graph.initializer)


def test_gates_means_and_the_embedding_layer_stay_float() -> None:
    made = quantized(gated())
    assert sorted(rounded(made)) == ["attended", "scaled", "x"]
    for output in ("sam_out", "cam0_out", "cam1_out", "means", "y"):
        assert inputs_of(made, output) == inputs_of(gated(), output)


@each_model
def test_scales_are_positive_symmetric_and_exact_in_float16(model: onnx.ModelProto) -> None:
    made = quantized(model)
    values = constants(made)
    found = [item for item in made.graph.node if item.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert found
    for item in found:
        scale, zero_point = values[item.input[1]], values[item.input[2]]
        assert (scale > 0).all()
        assert np.array_equal(scale, scale.astype(np.float16))
        assert zero_point.dtype == np.int8
        assert zero_point.shape == scale.shape
        assert not zero_point.any()
        if item.op_type == "QuantizeLinear" or item.input[0] not in values:
            assert scale.shape == ()
        else:
            assert values[item.input[0]].dtype == np.int8
            assert np.abs(values[item.input[0]].astype(int)).max() <= 127


def test_an_activations_scale_is_its_larger_end_over_127() -> None:
    ranges = measured_ranges(bottleneck()) | {"x": (-5.08, 2.0)}
    made = quantize(bottleneck(), ["c1"], ranges)
    assert constants(made)["x_int8_scale"] == np.float32(np.float16(0.04))


def test_weights_have_a_scale_an_output_channel() -> None:
    block, gemms = quantized(bottleneck()), quantized(products())
    expected = {"c1": (block, 0), "plain": (gemms, 1), "turned": (gemms, 0), "matrix": (gemms, 1)}
    for name, (made, axis) in expected.items():
        found = dequantisers(made)[f"{name}_float"]
        weight = constants(made)[found.input[0]]
        assert next(item.i for item in found.attribute if item.name == "axis") == axis
        assert constants(made)[found.input[1]].shape == (weight.shape[axis],)
        others = tuple(place for place in range(weight.ndim) if place != axis)
        assert (np.abs(weight).max(axis=others) >= 126).all()


def test_the_axis_of_the_output_channels() -> None:
    assert channel_axis(node("Conv", "x w", "y")) == 0
    assert channel_axis(node("MatMul", "x w", "y")) == 1
    assert channel_axis(node("Gemm", "x w", "y")) == 1
    assert channel_axis(node("Gemm", "x w", "y", transB=1)) == 0


def test_a_weight_that_two_products_share_is_stored_once_for_each_axis() -> None:
    nodes = [
        node("Gemm", "x w", "h1"),
        node("Gemm", "h1 w", "h2", transB=1),
        node("Gemm", "h2 w", "h3"),
        node("Gemm", "h3 last", "y"),
    ]
    model = network(nodes, {"w": noise(8, 8), "last": noise(8, 3)}, ("batch", 8), {"y": 2})
    made = quantized(model)
    axes = [item.attribute[0].i for item in made.graph.node if item.op_type == "DequantizeLinear" and item.attribute]
    assert sorted(axes) == [0, 1]
    assert np.abs(run(made, images(model))[0] - run(model, images(model))[0]).max() < 0.1


def test_names_that_the_network_has_already_are_not_made_again() -> None:
    nodes = [
        node("Conv", "x w", "x_int8"),
        node("Relu", "x_int8", "w_float"),
        node("Conv", "w_float w_int8", "x_int8_float"),
        node("Conv", "x_int8_float last", "y"),
    ]
    constants = {name: noise(8, 8, 1, 1, seed=seed) for seed, name in enumerate(("w", "w_int8", "last"))}
    model = network(nodes, constants)
    made = quantized(model, ["w", "w_int8"])
    onnx.checker.check_model(made, full_check=True)
    assert np.abs(run(made, images(model))[0] - run(model, images(model))[0]).max() < 0.2


def test_constants_may_come_from_nodes() -> None:
    model = bottleneck()
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    kept = [item for item in model.graph.initializer if item.name not in ("c1", "c1_bias")]
    made_by_nodes = [
        onnx.helper.make_node("Constant", [], [item.name], value=item)
        for item in model.graph.initializer
        if item.name in ("c1", "c1_bias")
    ]
    del moved.graph.initializer[:], moved.graph.node[:]
    moved.graph.initializer.extend(kept)
    moved.graph.node.extend([*made_by_nodes, *model.graph.node])
    values = images(model)
    assert np.array_equal(run(quantized(moved), values)[0], run(quantized(model), values)[0])


def test_a_tensor_that_the_network_gives_out_is_rounded_for_its_readers_alone() -> None:
    nodes = [node("Conv", "x first", "seen"), node("Conv", "seen second", "h"), node("Conv", "h last", "y")]
    weights = {name: noise(8, 8, 1, 1, seed=seed) for seed, name in enumerate(("first", "second", "last"))}
    model = network(nodes, weights, outputs={"seen": 4, "y": 4})
    made = quantized(model, ["second"])
    assert rounded(made) == ["seen"]
    assert np.array_equal(run(made, images(model))[0], run(model, images(model))[0])


def per_part(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 weights of a part as floats, and the scale of each of its channels, as the 2-D rule would have them."""
    scale = np.abs(weight).max(axis=0) / 127
    return np.clip(np.rint(weight / scale), -127, 127), scale


@pytest.mark.parametrize("chosen", [range(5), (0, 1, 4), (2,)])
def test_a_part_wise_product_computes_each_part_on_its_own(chosen: tuple[int, ...]) -> None:
    model = heads()
    ranges = measured_ranges(model)
    made = quantize(model, [f"reduce[{part}]" for part in chosen], ranges)
    values = images(model)
    taken = np.maximum(values, 0)
    scale = np.float32(np.float16(ranges["x"][1] / 127))
    coarse = np.clip(np.rint(taken / scale), -127, 127) * scale
    found = run(made, values, "DISABLE_ALL", ["reduced"])[0]
    weights = constants(model)["reduce"]
    for part, weight in enumerate(weights):
        if part not in chosen:
            assert np.allclose(found[part], taken[part] @ weight, atol=1e-5)
            continue
        whole, channel_scale = per_part(weight)
        expected = coarse[part] @ (whole * channel_scale)
        # Scales are rounded to float16, which moves a weight by at most a step where that changes its rounding.
        assert (
            np.abs(found[part] - expected).max() <= (channel_scale * np.abs(coarse[part]).sum(-1, keepdims=True)).max()
        )
        assert np.corrcoef(found[part].ravel(), expected.ravel())[0, 1] > 0.9999


def test_two_part_wise_products_may_read_one_tensor() -> None:
    nodes = [node("MatMul", "x a", "h1"), node("MatMul", "x b", "h2"), node("Add", "h1 h2", "h3")]
    constants = {"a": noise(3, 4, 8), "b": noise(3, 4, 8, seed=1), "last": noise(3, 8, 2)}
    model = network([*nodes, node("MatMul", "h3 last", "y")], constants, (3, "batch", 4), {"y": 3})
    made = quantized(model, ["a[0]", "b[1]"])
    onnx.checker.check_model(made, full_check=True)
    assert np.abs(run(made, images(model))[0] - run(model, images(model))[0]).max() < 0.1


@each_model
def test_the_model_is_valid_and_every_level_of_optimisation_agrees(model: onnx.ModelProto) -> None:
    made = quantized(model)
    onnx.checker.check_model(made, full_check=True)
    assert_levels_agree(made, model)


@each_model
def test_nvidias_builder_takes_the_float16_form_and_lint_finds_no_error(model: onnx.ModelProto) -> None:
    made = to_half(quantized(model))[0]
    assert not [item for item in lint(made) if item.severity == "error"]
    nvidia_builder()
    assert ask_rtx(made) == TAKES


def test_a_channel_of_zeros_and_an_activation_of_zeros_have_scales() -> None:
    model = MODELS["zero channel"]
    made = quantize(model, ["c1"], {"x": (0.0, 0.0)})
    assert constants(made)["x_int8_scale"] > 0
    assert (constants(made)["c1_scale"] > 0).all()
    assert np.isfinite(run(made, images(model))[0]).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="no site nowhere"):
        quantize(bottleneck(), ["nowhere"], {})
    with pytest.raises(InputError, match="no range of tensor x was measured; calibrate"):
        quantize(bottleneck(), ["c1"], {})
    old = network([node("Conv", "x w", "y")], {"w": noise(8, 8, 1, 1)}, opset=18)
    with pytest.raises(InputError, match="opset 19 or later, the model has 18; export it again"):
        quantize(old, ["w"], {"x": (0.0, 1.0)})
    assert range_of({"x": (0.0, 1.0)}, "x") == (0.0, 1.0)


def test_the_network_is_not_changed() -> None:
    model = heads()
    before = model.SerializeToString(deterministic=True)
    quantized(model)
    assert model.SerializeToString(deterministic=True) == before
    assert all(item.data_type == TensorProto.FLOAT for item in model.graph.initializer)
