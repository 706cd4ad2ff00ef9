"""Where a network can be quantised, and what of it stays float."""

from __future__ import annotations

import onnx
import pytest

from hamr_edge.calibration.residual import find_residual_sums
from hamr_edge.calibration.sites import find_sites
from hamr_edge.calibration.tensors import tensors_to_calibrate
from hamr_edge.errors import InputError
from tests.quantize_models import bottleneck, depthwise, gated, heads, network, node, noise, products


def roles(model: onnx.ModelProto) -> dict[str, str]:
    return {site.name: site.role for site in find_sites(model)}


def small(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A model of 8 channels whose weights are called a, b, c and d."""
    return network(nodes, {name: noise(8, 8, 1, 1, seed=ord(name)) for name in "abcd"})


def test_every_product_with_constant_weights_is_a_site() -> None:
    assert roles(bottleneck(downsample=True)) == {
        "c1": "product",
        "c2": "product",
        "c3": "product",
        "down": "product",
        "last": "embedding",
    }
    assert roles(products()) == dict.fromkeys(("plain", "turned", "matrix"), "product") | {"embed": "embedding"}
    assert list(roles(depthwise())) == ["deep", "grouped", "odd", "last"]


def test_every_part_of_a_part_wise_product_is_a_site() -> None:
    sites = find_sites(heads(parts=3))
    assert [(site.name, site.part, site.role) for site in sites] == [
        *((f"reduce[{part}]", part, "product") for part in range(3)),
        *((f"project[{part}]", part, "embedding") for part in range(3)),
    ]
    assert {site.activation for site in sites} == {"x", "hidden"}


def test_gates_stay_float_and_averages_are_no_sites() -> None:
    assert roles(gated()) == {
        "first": "product",
        "sam": "gate",
        "second": "product",
        "cam0": "gate",
        "cam1": "gate",
        "third": "product",
        "embed": "embedding",
    }


def test_a_sigmoid_that_scales_nothing_is_no_gate() -> None:
    model = small(
        node("Conv", "x a", "h1"),
        node("Tanh", "h1", "h2"),  # an activation function
        node("Conv", "h2 b", "h3"),
        node("Sigmoid", "h3", "h4"),
        node("Mul", "h3 h4", "h5"),  # Swish: the convolution reaches the product without the gate too
        node("Conv", "h5 c", "h6"),
        node("Conv", "h6 d", "h7"),
        node("Sigmoid", "h7", "y"),  # a probability
    )
    assert roles(model) == {"a": "product", "b": "product", "c": "product", "d": "embedding"}


def test_a_weight_that_a_gate_shares_stays_float_everywhere() -> None:
    model = small(
        node("Conv", "x a", "h1"),
        node("Conv", "h1 a", "h2"),
        node("Sigmoid", "h2", "h3"),
        node("Mul", "h1 h3", "h4"),
        node("Conv", "h4 b", "y"),
    )
    assert roles(model) == {"a": "gate", "b": "embedding"}


def test_products_of_activations_and_transposed_convolutions_are_no_sites() -> None:
    model = network(
        [node("ConvTranspose", "x a", "h1"), node("MatMul", "h1 x", "h2"), node("MatMul", "b h2", "y")],
        {"a": noise(8, 8, 1, 1), "b": noise(6, 6)},
    )
    assert find_sites(model) == ()


def test_weights_may_come_from_constant_nodes() -> None:
    values = onnx.numpy_helper.from_array(noise(8, 8, 1, 1), "a")
    shift = onnx.helper.make_node("Constant", [], ["shift"], value_float=0.5)
    made = onnx.helper.make_node("Constant", [], ["w"], value=values)
    model = small(made, shift, node("Conv", "x w", "h1"), node("Add", "h1 shift", "h2"), node("Conv", "h2 b", "y"))
    assert roles(model) == {"w": "product", "b": "embedding"}
    assert find_residual_sums(model) == ()


@pytest.mark.parametrize("first", [False, True])
def test_the_branch_around_is_found_whichever_way_round_the_sum_is_written(first: bool) -> None:
    for downsample, around in ((False, "x"), (True, "down_out")):
        (found,) = find_residual_sums(bottleneck(downsample=downsample, identity_first=first))
        assert (found.node, found.fused, found.identity, found.weight) == ("sum", "c3_out", around, "c3")


def test_a_convolution_that_something_else_reads_is_fused_with_no_sum() -> None:
    read_twice = small(
        node("Conv", "x a", "h1"), node("Add", "h1 x", "h2"), node("Relu", "h1", "h3"), node("Add", "h2 h3", "y")
    )
    assert find_residual_sums(read_twice) == ()
    doubled = small(node("Conv", "x a", "h1"), node("Add", "h1 h1", "y"))
    assert find_residual_sums(doubled) == ()


def test_every_tensor_that_either_flavour_rounds_is_calibrated() -> None:
    assert tensors_to_calibrate(bottleneck(downsample=True)) == (
        "c3_out", "down_out", "r1", "r2", "r3", "x"
    )  # fmt: skip
    assert "pooled" in tensors_to_calibrate(depthwise())  # it is its own where the convolution before it is not chosen


def test_a_graph_inside_a_graph_is_refused() -> None:
    model = small(node("Conv", "x a", "y"))
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=body, else_branch=body))
    with pytest.raises(InputError, match="holds a graph of its own; export the network without control flow"):
        find_sites(model)
