"""What TensorRT for RTX and ONNX Runtime make of a model: they take it, refuse it, or misread it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from hamr_edge.tensorrt_library import collecting_logger

TAKES, REFUSES, MISREADS = "takes", "refuses", "misreads"

_RTX_TYPES = {
    "FLOAT": onnx.TensorProto.FLOAT,
    "HALF": onnx.TensorProto.FLOAT16,
    "INT8": onnx.TensorProto.INT8,
    "UINT8": onnx.TensorProto.UINT8,
    "INT32": onnx.TensorProto.INT32,
    "INT64": onnx.TensorProto.INT64,
}
_ORT_TYPES = {
    "float": np.float32,
    "float16": np.float16,
    "double": np.float64,
    "uint8": np.uint8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
}


def ask_rtx(model: onnx.ModelProto) -> str:
    """Parse and build with TensorRT for RTX, on the CPU; an output of another type than the file says is a misreading.

    The test is skipped where TensorRT for RTX is not installed.
    """
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    if not trt.OnnxParser(network, logger).parse(model.SerializeToString()):
        return REFUSES
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for item in inputs:
        if -1 in item.shape:
            profile.set_shape(item.name, *([size if dim == -1 else dim for dim in item.shape] for size in (1, 2, 4)))
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        return REFUSES
    outputs = {item.name: item.dtype for item in map(network.get_output, range(network.num_outputs))}
    said = {item.name: item.type.tensor_type.elem_type for item in model.graph.output}
    return TAKES if {name: _RTX_TYPES[kind.name] for name, kind in outputs.items()} == said else MISREADS


def ask_onnxruntime(model: onnx.ModelProto) -> str:
    """Load and run with ONNX Runtime, optimised and as written; other values are a misreading."""
    results = []
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            results.append(session.run(None, _feeds(session)))
        except (RuntimeError, ValueError, *_ORT_ERRORS):
            return REFUSES
    same = all(np.allclose(a, b, atol=0.05, rtol=0.05, equal_nan=True) for a, b in zip(*results, strict=True))
    return TAKES if same else MISREADS


_STATUS = onnxruntime.capi.onnxruntime_pybind11_state
_ORT_ERRORS = (_STATUS.Fail, _STATUS.InvalidArgument, _STATUS.InvalidGraph, _STATUS.NotImplemented)


def _feeds(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    feeds = {}
    for item in session.get_inputs():
        shape = [dim if isinstance(dim, int) else 2 for dim in item.shape]
        dtype = np.dtype(_ORT_TYPES[item.type[len("tensor(") : -1]])
        values = random.normal(size=shape) if dtype.kind == "f" else np.ones(shape)
        feeds[item.name] = values.astype(dtype)
    return feeds
