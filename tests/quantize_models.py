"""Small float32 networks for the tests of quantising, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.calibration.sites import find_sites

Range = tuple[float, float]
Arrays = Mapping[str, np.ndarray]


def network(
    nodes: Sequence[onnx.NodeProto],
    constants: Arrays,
    shape: Sequence[str | int] = ("batch", 8, 6, 6),
    outputs: Mapping[str, int] | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    """A model of one input ``images``, which begins with a Relu so that a node makes what is quantised.

    Args:
        nodes: What follows; they read ``x``.
        constants: Its initialisers; they become float32.
        shape: Of the input.
        outputs: Rank of each output; ``y`` of rank 4 when None.
        opset: Version of the operator set.
    """
    graph = helper.make_graph(
        [helper.make_node("Relu", ["images"], ["x"]), *nodes],
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in (outputs or {"y": 4}).items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node from the names of its inputs and outputs, with blanks between."""
    return helper.make_node(kind, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal noise, float32, as large as keeps the size of what it multiplies."""
    values = np.random.default_rng(seed + sum(shape)).normal(size=shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return values.astype(np.float32)


def images(model: onnx.ModelProto, rows: int = 3, seed: int = 0) -> np.ndarray:
    """Noise of the shape that a model takes."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    shape = [dim.dim_value or rows for dim in dims]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def bottleneck(channels: int = 8, downsample: bool = False, identity_first: bool = False) -> onnx.ModelProto:
    """A residual block and a convolution behind it, which is the embedding layer: c1, c2, c3, (down,) last."""
    around = "down_out" if downsample else "x"
    nodes = [
        node("Conv", "x c1 c1_bias", "c1_out"),
        node("Relu", "c1_out", "r1"),
        node("Conv", "r1 c2 c2_bias", "c2_out", pads=[1, 1, 1, 1]),
        node("Relu", "c2_out", "r2"),
        node("Conv", "r2 c3 c3_bias", "c3_out"),
        *([node("Conv", "x down down_bias", "down_out")] if downsample else []),
        node("Add", f"{around} c3_out" if identity_first else f"c3_out {around}", "sum"),
        node("Relu", "sum", "r3"),
        node("Conv", "r3 last last_bias", "y"),
    ]
    names = ["c1", "c2", "c3", "last", *(["down"] if downsample else [])]
    constants = {}
    for seed, name in enumerate(names):
        constants[name] = noise(channels, channels, *((3, 3) if name == "c2" else (1, 1)), seed=seed)
        constants[f"{name}_bias"] = noise(channels, seed=seed)
    return network(nodes, constants, ("batch", channels, 6, 6))


def gated(channels: int = 8) -> onnx.ModelProto:
    """Spatial and channel attention as HAMR has them, between two convolutions and the embedding layer."""
    nodes = [
        node("Conv", "x first", "before"),
        node("ReduceMean", "before one", "mean", keepdims=1),
        node("Conv", "mean sam sam_bias", "sam_out", pads=[1, 1, 1, 1]),
        node("Sigmoid", "sam_out", "sam_gate"),
        node("Mul", "before sam_gate", "attended"),
        node("Conv", "attended second", "after"),
        node("ReduceMean", "after two_three", "pooled", keepdims=0),
        node("Gemm", "pooled cam0 cam0_bias", "cam0_out", transB=1),
        node("Relu", "cam0_out", "cam0_relu"),
        node("Gemm", "cam0_relu cam1", "cam1_out"),
        node("Sigmoid", "cam1_out", "cam_gate"),
        node("Unsqueeze", "cam_gate two_three", "cam_scale"),
        node("Mul", "after cam_scale", "scaled"),
        node("Conv", "scaled third", "features"),
        node("Relu", "features", "features_relu"),
        node("ReduceMean", "features_relu two", "columns", keepdims=0),
        node("MatMul", "columns stripes", "means"),
        node("Flatten", "means", "flat"),
        node("Gemm", "flat embed", "y"),
    ]
    stripes = np.kron(np.eye(2), np.full((3, 1), 1 / 3)).astype(np.float32)
    constants = {
        "first": noise(channels, channels, 1, 1),
        "sam": noise(1, 1, 3, 3),
        "sam_bias": noise(1),
        "second": noise(channels, channels, 1, 1, seed=1),
        "cam0": noise(4, channels),
        "cam0_bias": noise(4),
        "cam1": noise(4, channels, seed=1),
        "third": noise(channels, channels, 1, 1, seed=2),
        "stripes": stripes,
        "embed": noise(2 * channels, 5),
        "one": np.array([1]),
        "two": np.array([2]),
        "two_three": np.array([2, 3]),
    }
    return network(nodes, constants, ("batch", channels, 6, 6), {"y": 2})


def heads(parts: int = 5, width: int = 12) -> onnx.ModelProto:
    """Part-wise products as HAMR's heads: reduce, then project, the embedding layer."""
    nodes = [
        node("MatMul", "x reduce", "reduced"),
        node("Add", "reduced reduce_bias", "biased"),
        node("Relu", "biased", "hidden"),
        node("MatMul", "hidden project", "y"),
    ]
    constants = {
        "reduce": noise(parts, width, 8) * np.arange(1, parts + 1, dtype=np.float32)[:, None, None],
        "reduce_bias": noise(parts, 1, 8),
        "project": noise(parts, 8, 4),
    }
    return network(nodes, constants, (parts, "batch", width), {"y": 3})


def products() -> onnx.ModelProto:
    """Gemm with the weights either way round and a MatMul, then the embedding layer."""
    nodes = [
        node("Gemm", "x plain plain_bias", "h1"),
        node("Gemm", "h1 turned turned_bias", "h2", transB=1),
        node("MatMul", "h2 matrix", "h3"),
        node("Gemm", "h3 embed", "y"),
    ]
    constants = {
        "plain": noise(8, 6),
        "plain_bias": noise(1, 6),
        "turned": noise(10, 6),
        "turned_bias": noise(10),
        "matrix": noise(10, 6, seed=1),
        "embed": noise(6, 4),
    }
    return network(nodes, constants, ("batch", 8), {"y": 2})


def depthwise() -> onnx.ModelProto:
    """A depthwise and a grouped convolution, a maximum pool, and odd numbers of channels behind it."""
    nodes = [
        node("Conv", "x deep deep_bias", "h1", group=8, pads=[1, 1, 1, 1]),
        node("Relu", "h1", "r1"),
        node("Conv", "r1 grouped", "h2", group=2),
        node("Relu", "h2", "r2"),
        node("MaxPool", "r2", "pooled", kernel_shape=[2, 2]),
        node("Conv", "pooled odd odd_bias", "h3"),
        node("Conv", "h3 last", "y"),
    ]
    constants = {
        "deep": noise(8, 1, 3, 3),
        "deep_bias": noise(8),
        "grouped": noise(6, 4, 1, 1),
        "odd": noise(7, 6, 1, 1),
        "odd_bias": noise(7),
        "last": noise(3, 7, 3, 3),
    }
    return network(nodes, constants)


def with_weight(model: onnx.ModelProto, name: str, values: np.ndarray) -> onnx.ModelProto:
    """A copy of a model with other values of an initialiser."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    place = next(item for item in changed.graph.initializer if item.name == name)
    place.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return changed


def run(model: onnx.ModelProto, values: np.ndarray, level: str = "ALL", taps: Sequence[str] = ()) -> list[np.ndarray]:
    """What ONNX Runtime computes: the first output, or the tensors named instead.

    Args:
        model: The model.
        values: Its input.
        level: ``DISABLE_ALL``, ``ENABLE_BASIC``, ``ENABLE_EXTENDED`` or ``ENABLE_ALL``, without ``ENABLE_``.
        taps: Names of tensors inside.
    """
    known = {item.name for item in model.graph.output}
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taps if name not in known)
    session = onnxruntime.InferenceSession(
        tapped.SerializeToString(), session_options(level), providers=["CPUExecutionProvider"]
    )
    return session.run(list(taps) or None, {"images": values})


def session_options(level: str = "ALL") -> onnxruntime.SessionOptions:
    """Options of a session with one of ONNX Runtime's levels of optimisation."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    name = "ORT_DISABLE_ALL" if level == "DISABLE_ALL" else f"ORT_ENABLE_{level}"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, name)
    return options


def measured_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    """The range of every float32 tensor in a small network over some noise."""
    names = [name for item in model.graph.node for name in item.output]
    values = run(model, images(model, rows=16, seed=7), "DISABLE_ALL", names)
    found = {name: (float(value.min()), float(value.max())) for name, value in zip(names, values, strict=True)}
    return found | {"images": (-4.0, 4.0)}


MODELS = {
    "identity": bottleneck(),
    "downsample": bottleneck(downsample=True),
    "identity first": bottleneck(identity_first=True),
    "odd channels": bottleneck(channels=7),
    "gates": gated(),
    "heads": heads(),
    "products": products(),
    "depthwise": depthwise(),
    "zero channel": with_weight(bottleneck(), "c1", noise(8, 8, 1, 1) * (np.arange(8) != 3)[:, None, None, None]),
}


def default_sites(model: onnx.ModelProto) -> list[str]:
    return [site.name for site in find_sites(model) if site.role == "product"]


def inputs_of(model: onnx.ModelProto, output: str) -> list[str]:
    return list(next(item for item in model.graph.node if output in item.output).input)


def dequantisers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {item.output[0]: item for item in model.graph.node if item.op_type == "DequantizeLinear"}


def rounded(model: onnx.ModelProto) -> list[str]:
    """The activations that are rounded, once for each Q."""
    return [item.input[0] for item in model.graph.node if item.op_type == "QuantizeLinear"]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def assert_levels_agree(made: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """See that a quantised model runs at every level of optimisation, alike, and near to the float32 one."""
    values = images(model)
    plain = run(model, values)[0]
    results = [run(made, values, level)[0] for level in ("DISABLE_ALL", "BASIC", "EXTENDED", "ALL")]
    assert np.corrcoef(results[0].ravel(), plain.ravel())[0, 1] > 0.98
    for result in results[1:]:
        assert np.abs(result - results[0]).max() <= 0.03 * np.abs(plain).max()
