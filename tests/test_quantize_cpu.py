"""The int8 form for ONNX Runtime on x86: what is rounded, and that its integer kernels are really reached."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from hamr_edge.calibration.graph_index import GraphIndex
from hamr_edge.calibration.quantize_cpu import asymmetric_scale, behind_relu, integer_tensors, quantize_cpu
from hamr_edge.errors import InputError
from hamr_edge.export.lint import lint
from tests.quantize_models import (
    MODELS,
    assert_levels_agree,
    bottleneck,
    constants,
    default_sites,
    depthwise,
    dequantisers,
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
    session_options,
)

each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def quantized(model: onnx.ModelProto, chosen: list[str] | None = None) -> onnx.ModelProto:
    return quantize_cpu(model, default_sites(model) if chosen is None else chosen, measured_ranges(model))


def optimised(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """How often each operator is in the graph that ONNX Runtime runs."""
    options = session_options()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(item.op_type for item in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("downsample", [False, True])
def test_of_a_block_every_result_is_rounded_once(downsample: bool) -> None:
    made = quantized(bottleneck(downsample=downsample))
    wanted = ["x", "r1", "r2", "c3_out", "r3", *(["down_out"] if downsample else [])]
    assert Counter(rounded(made)) == Counter(wanted)
    around = "down_out" if downsample else "x"
    assert inputs_of(made, "sum") == ["c3_out_uint8_float", f"{around}_uint8_float"]


def test_only_what_is_chosen_is_touched() -> None:
    made = quantized(bottleneck(), ["c2"])
    assert sorted(rounded(made)) == ["r1", "r2"]
    assert "c2_float" in dequantisers(made)
    assert inputs_of(made, "c1_out") == ["x", "c1", "c1_bias"]
    assert list(quantized(bottleneck(), []).graph.node) == list(bottleneck().graph.node)


@each_model
def test_activations_are_uint8_weights_int8_and_biases_int32_on_the_sums_scale(model: onnx.ModelProto) -> None:
    made = quantized(model)
    values, known = constants(made), dequantisers(made)
    for item in made.graph.node:
        if item.op_type == "QuantizeLinear":
            assert values[item.input[1]].shape == ()
            assert values[item.input[1]] > 0
            assert values[item.input[2]].dtype == np.uint8
        if item.op_type in ("Conv", "Gemm") and item.input[1] in known:
            scales = [values[known[name].input[1]] for name in item.input]
            assert values[known[item.input[1]].input[0]].dtype == np.int8
            assert not values[known[item.input[1]].input[2]].any()
            if len(item.input) > 2:
                bias = known[item.input[2]]
                assert values[bias.input[0]].dtype == values[bias.input[2]].dtype == np.int32
                assert not values[bias.input[2]].any()
                assert np.array_equal(scales[2], scales[0] * scales[1])


def test_a_shared_bias_has_the_scale_of_each_of_its_products() -> None:
    nodes = [
        node("Conv", "x a shared", "h1"),
        node("Conv", "h1 a shared", "h2"),
        node("Conv", "h2 b shared", "h3"),
        node("Conv", "h3 last", "y"),
    ]
    weights = {name: noise(8, 8, 1, 1, seed=seed) for seed, name in enumerate(("a", "b", "last"))}
    model = network(nodes, weights | {"shared": noise(8)})
    made = quantized(model)
    values = images(model, rows=16, seed=7)
    assert sum(item.data_type == onnx.TensorProto.INT32 and len(item.dims) > 0 for item in made.graph.initializer) == 6
    assert np.abs(run(made, values, "DISABLE_ALL")[0] - run(model, values)[0]).mean() < 0.03


def test_a_bias_that_is_no_constant_of_a_channel_each_stays_float() -> None:
    nodes = [node("Gemm", "x a one", "h1"), node("Gemm", "h1 b h1", "h2"), node("Gemm", "h2 last", "y")]
    weights = {"a": noise(8, 8), "b": noise(8, 8, seed=1), "last": noise(8, 3), "one": noise(1)}
    model = network(nodes, weights, ("batch", 8), {"y": 2})
    made = quantized(model)
    assert inputs_of(made, "h1")[2] == "one"
    assert np.abs(run(made, images(model))[0] - run(model, images(model))[0]).max() < 0.1


def test_a_maximum_pool_shares_its_inputs_range() -> None:
    model = depthwise()
    tensors = integer_tensors(model, set(default_sites(model)))
    assert tensors["pooled"] == tensors["r2"] == "r2"
    made = quantized(model)
    known = dequantisers(made)
    assert known["pooled_uint8_float"].input[1:] == known["r2_uint8_float"].input[1:]
    assert integer_tensors(model, {"odd"})["pooled"] == "pooled"  # nothing before it is rounded


def test_an_output_of_the_network_is_rounded_for_products_alone() -> None:
    nodes = [node("Conv", "x first", "seen"), node("Conv", "seen second", "h"), node("Conv", "h last", "y")]
    weights = {name: noise(8, 8, 1, 1, seed=seed) for seed, name in enumerate(("first", "second", "last"))}
    model = network(nodes, weights, outputs={"seen": 4, "y": 4})
    assert set(integer_tensors(model, {"first"})) == {"x"}
    assert set(integer_tensors(model, {"first", "second"})) == {"x", "seen", "h"}
    made = quantized(model, ["first", "second"])
    assert [item.name for item in made.graph.output] == ["seen", "y"]
    assert np.abs(run(made, images(model))[0] - run(model, images(model))[0]).max() < 0.1


def test_a_relu_that_alone_reads_a_convolution_is_part_of_it() -> None:
    index = GraphIndex(bottleneck())
    assert behind_relu("c1_out", index) == "r1"
    assert behind_relu("c3_out", index) == "c3_out"


def test_zero_is_exact_and_every_range_has_a_scale() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (0.0, 1e-30)):
        scale, zero_point = asymmetric_scale((low, high))
        assert scale > 0
        assert zero_point.dtype == np.uint8
        reach = (np.array([0, 255]) - float(zero_point)) * scale
        assert reach[0] <= low + scale
        assert reach[1] >= high - scale
    assert asymmetric_scale((0.0, 2.55))[1] == 0
    assert asymmetric_scale((-2.55, 0.0))[1] == 255


def test_an_activation_of_zeros_leaves_the_bias() -> None:
    model = MODELS["zero channel"]
    made = quantize_cpu(model, ["c1"], measured_ranges(model) | {"x": (0.0, 0.0)})
    values = np.zeros_like(images(model))
    found, plain = (run(item, values, "DISABLE_ALL", ["c1_out"])[0] for item in (made, model))
    assert np.allclose(found, plain, atol=1e-3)


@pytest.mark.parametrize("parts", [range(5), (1, 3)])
def test_a_part_wise_product_is_one_product_a_part(parts: tuple[int, ...]) -> None:
    model = heads()
    made = quantized(model, [f"reduce[{part}]" for part in parts])
    kinds = Counter(item.op_type for item in made.graph.node)
    assert (kinds["Split"], kinds["QuantizeLinear"], kinds["MatMul"]) == (1, len(parts), 5 + 1)
    values = images(model)
    found, plain = (run(item, values, "DISABLE_ALL", ["reduced"])[0] for item in (made, model))
    for part in range(5):
        limit = 0.03 if part in parts else 1e-6
        assert np.abs(found[part] - plain[part]).max() <= limit * np.abs(plain[part]).max()


@each_model
def test_the_model_is_valid_and_every_level_of_optimisation_agrees(model: onnx.ModelProto) -> None:
    made = quantized(model)
    onnx.checker.check_model(made, full_check=True)
    assert not [item for item in lint(made, ["onnxruntime"]) if item.severity == "error"]
    assert_levels_agree(made, model)


@pytest.mark.parametrize("downsample", [False, True])
def test_fused_kernels_are_within_a_step_of_the_graph_as_written(downsample: bool) -> None:
    model = bottleneck(channels=16, downsample=downsample)
    made = quantized(model, ["c1", "c2"])
    values = images(model, rows=16)
    for level in ("EXTENDED", "ALL"):
        # ONNX Runtime keeps what is given out, so r2 is read behind its Q.
        found, plain = (run(made, values, name, ["r2_uint8"])[0] for name in (level, "DISABLE_ALL"))
        assert np.abs(found.astype(int) - plain.astype(int)).max() <= 1


def test_the_blocks_of_a_network_run_in_integers(tmp_path: Path) -> None:
    for downsample in (False, True):
        model = bottleneck(downsample=downsample)
        kinds = optimised(quantized(model), tmp_path)
        assert kinds["QLinearConv"] == 3 + downsample
        assert kinds["Conv"] + kinds["FusedConv"] == 1  # the embedding layer
        assert kinds["QLinearAdd"] == 1


def test_heads_and_gemms_run_in_integers(tmp_path: Path) -> None:
    kinds = optimised(quantized(heads()), tmp_path)
    assert (kinds["MatMulIntegerToFloat"], kinds["MatMul"]) == (5, 1)
    kinds = optimised(quantized(products()), tmp_path)
    assert (kinds["QGemm"], kinds["MatMulIntegerToFloat"], kinds["Gemm"] + kinds["FusedGemm"]) == (2, 1, 1)


def test_depthwise_convolutions_and_the_pool_run_in_integers(tmp_path: Path) -> None:
    made = quantized(depthwise())
    kinds = optimised(made, tmp_path)
    assert kinds["QLinearConv"] == 3
    between = onnx.load(tmp_path / "optimised.onnx")
    index = GraphIndex(between)
    pool = next(item for item in between.graph.node if "MaxPool" in item.op_type)
    assert index.producer[pool.input[0]].op_type == "QLinearConv"


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="no site nowhere"):
        quantize_cpu(bottleneck(), ["nowhere"], {})
    with pytest.raises(InputError, match="no range of tensor x was measured"):
        quantize_cpu(bottleneck(), ["c1"], {})
