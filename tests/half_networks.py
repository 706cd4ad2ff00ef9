"""Small networks around one body, for the tests of float16, and what is asked of their float16 form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hamr_edge.export.half import KeptFloat
from hamr_edge.export.lint_graph import LintGraph
from tests.real_parts import TAKES, ask_rtx

SIZE_HW = (8, 4)
CROPS = np.random.default_rng(0).integers(0, 256, (5, *SIZE_HW, 3), np.uint8)
START = [
    helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
    helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
    helper.make_node("Mul", ["centred", "inverse_std"], ["normal"]),
    helper.make_node("Transpose", ["normal"], ["nchw"], perm=[0, 3, 1, 2]),
    helper.make_node("Conv", ["nchw", "first", "first_bias"], ["features"], pads=[1, 1, 1, 1]),
]
END = [
    helper.make_node("Conv", ["body", "last"], ["convolved"], pads=[1, 1, 1, 1]),
    helper.make_node("GlobalAveragePool", ["convolved"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["flat"]),
    helper.make_node("ReduceL2", ["flat", "axes"], ["norm"], keepdims=1),
    helper.make_node("Clip", ["norm", "least"], ["clipped"]),
    helper.make_node("Div", ["flat", "clipped"], ["embeddings"]),
]


def network(
    body: Sequence[NodeProto],
    constants: dict[str, Any] | None = None,
    more_outputs: Sequence[tuple[str, int]] = (),
    opset: int = 20,
) -> onnx.ModelProto:
    """A network whose ``body`` makes ``body`` of ``features``, (N, 4, 8, 4), between preprocessing and norm."""
    rng = np.random.default_rng(1)
    values: dict[str, Any] = {
        "mean": np.float32(110),
        "inverse_std": np.float32(1 / 60),
        "first": rng.normal(0, 0.3, (4, 3, 3, 3)),
        "first_bias": rng.normal(0, 0.1, 4),
        "last": rng.normal(0, 0.3, (4, 4, 3, 3)),
        "axes": np.asarray([1], np.int64),
        "least": np.float32(1e-12),
        **(constants or {}),
    }
    embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", 4])
    inside = [helper.make_tensor_value_info(name, kind, ["batch", 4, "h", "w"]) for name, kind in more_outputs]
    graph = helper.make_graph(
        [*START, *body, *END],
        "half",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SIZE_HW, 3])],
        [embeddings, *inside],
        [numpy_helper.from_array(_floats(value), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _floats(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def one(kind: str, inputs: Sequence[str] = ("features",), **attributes: Any) -> NodeProto:
    """The whole body as one node."""
    return helper.make_node(kind, inputs, ["body"], **attributes)


RELU = [one("Relu")]


def run(model: onnx.ModelProto, optimise: bool = True) -> list[np.ndarray]:
    """What ONNX Runtime makes of the crops: every output."""
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"images": CROPS}))


def check_half(model: onnx.ModelProto, half: onnx.ModelProto, tolerance: float = 5e-3) -> None:
    """The float16 model is sound ONNX, both takers accept it, and its outputs have the same types and near values."""
    onnx.checker.check_model(half, full_check=True)
    types = [output.type.tensor_type.elem_type for output in half.graph.output]
    assert types == [output.type.tensor_type.elem_type for output in model.graph.output]
    assert half.graph.input == model.graph.input
    for before, after in zip(run(model), run(half), strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_allclose(after.astype(np.float64), before.astype(np.float64), atol=tolerance, rtol=0.01)
    assert ask_rtx(half) == TAKES


def types_of(half: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    return LintGraph(half).types


def node_kind(half: onnx.ModelProto, operator: str) -> int:
    """The type of what the only node of an operator puts out."""
    (node,) = (node for node in half.graph.node if node.op_type == operator)
    return types_of(half)[node.output[0]]


def reasons(kept: Sequence[KeptFloat]) -> dict[str, str]:
    return {item.node: item.reason for item in kept}
