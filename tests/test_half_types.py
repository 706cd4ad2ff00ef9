from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.calibration.quantize import quantize
from hamr_edge.calibration.ranges import measure_extremes
from hamr_edge.calibration.sites import find_sites
from hamr_edge.errors import InputError
from hamr_edge.export.half import overflows, to_half
from tests.half_networks import CROPS, RELU, SIZE_HW, check_half, network, node_kind, one, reasons, run, types_of
from tests.real_parts import TAKES, ask_rtx


def test_a_graph_output_that_is_read_inside() -> None:
    """Both a float16 node and a float32 island read it; the output itself stays float32."""
    body = [
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("Softmax", ["positive"], ["island"], axis=1),
        one("Mul", ["positive", "island"]),
    ]
    model = network(body, more_outputs=[("positive", TensorProto.FLOAT), ("island", TensorProto.FLOAT)])
    half, _ = to_half(model)
    check_half(model, half, tolerance=0.02)
    (product,) = (node for node in half.graph.node if node.op_type == "Mul" and "body" in node.output)
    assert all(types_of(half)[name] == TensorProto.FLOAT16 for name in product.input)


def test_a_constant_that_both_types_read() -> None:
    body = [
        helper.make_node("Add", ["features", "shared"], ["sum"]),
        helper.make_node("Exp", ["sum"], ["powers"]),
        helper.make_node("Mul", ["powers", "shared"], ["more"]),
        helper.make_node("Log", ["more"], ["logarithm"]),
        one("Add", ["logarithm", "shared"]),
    ]
    model = network(body, {"shared": np.float32(0.5)})
    half, _ = to_half(model)
    check_half(model, half, tolerance=0.01)
    stored = {item.name: item.data_type for item in half.graph.initializer}
    assert (stored["shared"], stored["shared_half"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)


def test_names_that_are_taken_are_not_used_again() -> None:
    model = network([helper.make_node("Relu", ["features"], ["last_half"]), one("Neg", ["last_half"])])
    half, _ = to_half(model)
    check_half(model, half)


def test_constant_nodes_become_float16_constants() -> None:
    value = numpy_helper.from_array(np.float32(0.3))
    body = [
        helper.make_node("Constant", [], ["factor"], value=value),
        helper.make_node("Constant", [], ["shift"], value_float=0.2),
        helper.make_node("Constant", [], ["tiny"], value_floats=[1e-12]),
        helper.make_node("Mul", ["features", "factor"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["shifted"]),
        one("Max", ["shifted", "tiny"]),
    ]
    model = network(body)
    half, kept = to_half(model)
    check_half(model, half)
    types = types_of(half)
    assert types["scaled"] == types["shifted"] == TensorProto.FLOAT16
    assert reasons(kept)["body"] == "constant"


def test_chains_of_casts() -> None:
    body = [
        helper.make_node("Cast", ["features"], ["rounded"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["rounded"], ["again"], to=TensorProto.FLOAT, saturate=1),
        helper.make_node("Cast", ["again"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["float"], saturate=1, to=TensorProto.FLOAT),
        one("Add", ["float", "again"]),
    ]
    model = network(body)
    half, _ = to_half(model)
    # Rounding to whole numbers may fall on the other side in float16: only types are compared.
    onnx.checker.check_model(half, full_check=True)
    types = types_of(half)
    assert types["again"] == types["float"] == types["body"] == TensorProto.FLOAT16
    assert types["whole"] == TensorProto.INT64
    assert np.isfinite(run(half)[0]).all()
    assert ask_rtx(half) == TAKES


def test_comparisons_and_choices() -> None:
    body = [
        helper.make_node("Greater", ["features", "bound"], ["above"]),
        helper.make_node("Where", ["above", "features", "other"], ["chosen"]),
        helper.make_node("ArgMax", ["chosen"], ["place"], axis=1, keepdims=1),
        helper.make_node("Cast", ["place"], ["place_float"], to=TensorProto.FLOAT),
        one("Add", ["chosen", "place_float"]),
    ]
    model = network(body, {"bound": np.float32(-9), "other": np.float32(0.5)})
    half, _ = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    types = types_of(half)
    assert types["above"] == TensorProto.BOOL
    assert types["place"] == TensorProto.INT64
    assert types["chosen"] == types["place_float"] == TensorProto.FLOAT16
    assert ask_rtx(half) == TAKES


def test_scales_of_resize_stay_float32() -> None:
    model = network(
        [one("Resize", ["features", "", "scales"], mode="linear")], {"scales": np.asarray([1.0, 1.0, 2.0, 2.0])}
    )
    half, _ = to_half(model)
    check_half(model, half)
    assert node_kind(half, "Resize") == TensorProto.FLOAT16
    assert {item.name: item.data_type for item in half.graph.initializer}["scales"] == TensorProto.FLOAT


def test_bounds_of_clip() -> None:
    """Bounds that float16 holds become float16; the largest float32, which exporters write, keeps the node float32."""
    for high, kind in ((6.0, TensorProto.FLOAT16), (3.4e38, TensorProto.FLOAT)):
        model = network([one("Clip", ["features", "low", "high"])], {"low": np.float32(0), "high": np.float32(high)})
        half, _ = to_half(model)
        check_half(model, half)
        assert types_of(half)["body"] == kind


def test_the_shape_of_the_input_does_not_make_what_reads_it_part_of_the_input() -> None:
    body = [
        helper.make_node("Shape", ["images"], ["size"], end=1),
        helper.make_node("Concat", ["size", "rest"], ["new_size"], axis=0),
        helper.make_node("Reshape", ["features", "new_size"], ["reshaped"]),
        one("Relu", ["reshaped"]),
    ]
    model = network(body, {"rest": np.asarray([4, *SIZE_HW], np.int64)})
    half, kept = to_half(model)
    check_half(model, half)
    assert types_of(half)["reshaped"] == types_of(half)["body"] == TensorProto.FLOAT16
    assert "size" not in reasons(kept)


def test_operators_without_a_float16_form_stay_float32() -> None:
    body = [
        helper.make_node("Range", ["zero", "four", "step"], ["ramp"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["features", "ramp"], ["sum"]),
        one("Add", ["sum", "zeros"]),
    ]
    constants = {"zero": np.float32(0), "four": np.float32(4), "step": np.float32(1), "shape": np.asarray([4, 1, 1])}
    model = network(body, constants)
    half, kept = to_half(model)
    check_half(model, half, tolerance=0.01)
    assert reasons(kept)["ramp"] == reasons(kept)["zeros"] == "operator"
    assert types_of(half)["body"] == TensorProto.FLOAT16


def test_a_float32_input_of_the_graph() -> None:
    model = network([one("Conv", ["map", "last"], pads=[1, 1, 1, 1])])
    model.graph.input.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", 4, *SIZE_HW]))
    half, _ = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    session = onnxruntime.InferenceSession(half.SerializeToString())
    values = np.random.default_rng(0).normal(size=(5, 4, *SIZE_HW)).astype(np.float32)
    assert np.isfinite(session.run(None, {"images": CROPS, "map": values})[0]).all()
    assert node_kind(half, "GlobalAveragePool") == TensorProto.FLOAT
    assert types_of(half)["body"] == TensorProto.FLOAT16


def test_an_initialiser_that_is_listed_as_an_input_is_none() -> None:
    model = network(RELU)
    images = list(model.graph.input)
    model.graph.input.append(helper.make_tensor_value_info("first", TensorProto.FLOAT, [4, 3, 3, 3]))
    half, _ = to_half(model)
    assert list(half.graph.input) == images
    assert np.isfinite(run(half)[0]).all()


@pytest.mark.parametrize("peak", [1.0, 2e4])
def test_quantised_networks(peak: float) -> None:
    """Scales are float16 where data are; where the range asks for float32, Q, DQ and the weights' DQ all are."""
    model = network([helper.make_node("Relu", ["features"], ["positive"]), one("Identity", ["positive"])])
    sites = [site.name for site in find_sites(model) if site.weight == "last"]
    quantised = quantize(model, sites, {"body": (0.0, 3.0)})
    extremes = dict(measure_extremes(quantised, [CROPS]))
    for name in ("body", "body_int8_float"):
        extremes[name] = (0.0, peak)
    half, kept = to_half(quantised, extremes)
    check_half(quantised, half, tolerance=0.02)
    types = types_of(half)
    kind = TensorProto.FLOAT16 if peak == 1.0 else TensorProto.FLOAT
    rounding = [node for node in half.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(rounding) == 3
    assert {types[node.input[1]] for node in rounding} == {kind}
    assert {types[node.output[0]] for node in rounding if node.op_type == "DequantizeLinear"} == {kind}
    assert bool(overflows(kept)) is False


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_older_opsets(opset: int) -> None:
    """ReduceL2 has its axes in an attribute; Q/DQ has no float16 form before opset 19."""
    scale, zero = np.float32(0.05), np.asarray(0, np.int8)
    body = [
        helper.make_node("QuantizeLinear", ["features", "scale", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["float"]),
        one("Relu", ["float"]),
    ]
    model = network(body, {"scale": scale, "zero": zero}, opset=opset)
    (norm,) = (node for node in model.graph.node if node.op_type == "ReduceL2")
    del norm.input[1:]
    norm.attribute.append(helper.make_attribute("axes", [1]))
    half, kept = to_half(model)
    onnx.checker.check_model(half, full_check=True)
    np.testing.assert_allclose(run(half)[0], run(model)[0], atol=0.02)
    assert reasons(kept)["whole"] == reasons(kept)["float"] == "operator"
    assert types_of(half)["body"] == TensorProto.FLOAT16


def test_an_operator_that_onnx_does_not_know_is_named() -> None:
    model = network([one("Unheard", domain="org.example")])
    model.opset_import.append(helper.make_opsetid("org.example", 1))
    with pytest.raises(InputError, match=r"type of tensor body, made by Unheard .* is not known"):
        to_half(model)
