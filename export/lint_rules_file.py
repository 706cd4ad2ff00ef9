"""Rules on the file as a whole: versions, names, ends of the graph, and data that must be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from onnx import TensorProto, helper

from hamr_edge.export.lint_graph import (
    ALL_TARGETS,
    ERROR,
    ONNXRUNTIME,
    TENSORRT,
    TENSORRT_10,
    TENSORRT_11,
    TENSORRT_RTX,
    WARNING,
    Finding,
    LintGraph,
    node_name,
)

_OPSETS = {TENSORRT_10: (9, 20, "10.0 takes 9 to 20, 10.15 up to 24"), TENSORRT_11: (9, 25, "11 takes 9 to 25")}
_OPSETS |= {
    TENSORRT_RTX: (7, 25, "TensorRT for RTX 1.7 knows 7 to 25"),
    ONNXRUNTIME: (7, 21, "ONNX Runtime 1.19, the oldest that hamr-edge takes, knows 7 to 21"),
}
_MAX_IR_VERSION = 10


def opset(graph: LintGraph) -> Iterator[Finding]:
    """An operator set that not every release of a target takes."""
    for target, (low, high, known) in _OPSETS.items():
        if not low <= graph.opset <= high:
            message = f"the file says opset {graph.opset}; {known}; export with opset 19 or 20"
            yield Finding("opset", WARNING, graph.model.graph.name, (target,), message)


def ir_version(graph: LintGraph) -> Iterator[Finding]:
    """A file format that ONNX Runtime 1.19 refuses."""
    version = graph.model.ir_version
    if version > _MAX_IR_VERSION:
        message = f"IR version {version}; ONNX Runtime 1.19 takes {_MAX_IR_VERSION} at most; set model.ir_version"
        yield Finding("ir_version", WARNING, graph.model.graph.name, (ONNXRUNTIME,), message)


def graph_outputs(graph: LintGraph) -> Iterator[Finding]:
    """A graph must have outputs."""
    if not graph.outputs:
        message = "the graph has no outputs, so there is nothing to compute; name what it should give"
        yield Finding("graph_outputs", ERROR, graph.model.graph.name, ALL_TARGETS, message)


def duplicate_name(graph: LintGraph) -> Iterator[Finding]:
    """One name for two tensors, or for two nodes."""
    main = graph.graphs[0]
    made = Counter(name for node in main.node for name in node.output if name)
    made.update(item.name for item in graph.inputs)
    stored = Counter(item.name for item in graph.model.graph.initializer)
    for name in sorted({name for name, count in (made + stored).items() if count > 1}):
        targets = ALL_TARGETS if made[name] else TENSORRT  # ONNX Runtime takes an initialiser twice
        message = f"{made[name] + stored[name]} tensors are named {name}; give each its own name"
        yield Finding("duplicate_name", ERROR, name, targets, message)
    for name, count in Counter(node.name for node in main.node if node.name).items():
        if count > 1:
            message = f"{count} nodes are named {name}; ONNX Runtime refuses that; give each its own name"
            yield Finding("duplicate_name", ERROR, name, (ONNXRUNTIME,), message)


def missing_tensor(graph: LintGraph) -> Iterator[Finding]:
    """Tensors that are read and that nothing makes."""
    known = {"", *graph.producer, *graph.constants, *(item.name for item in graph.inputs)}
    known |= {item.name for nested in graph.graphs[1:] for item in nested.input}
    for node in graph.nodes:
        for name in node.input:
            if name not in known:
                message = f"{node.op_type} reads tensor {name}, which nothing makes; the graph was cut or misnamed"
                yield Finding("missing_tensor", ERROR, node_name(node), ALL_TARGETS, message)
    for item in graph.outputs:
        if item.name not in known:
            message = f"output {item.name} is made by nothing; the graph was cut or misnamed"
            yield Finding("missing_tensor", ERROR, item.name, ALL_TARGETS, message)


def missing_data(graph: LintGraph) -> Iterator[Finding]:
    """Weights whose values are not all there, in the file or in the one beside it."""
    for name, tensor in graph.constants.items():
        expected = _expected_bytes(tensor)
        if tensor.data_location == TensorProto.EXTERNAL:
            fault = _external_fault(graph, tensor, expected)
        elif tensor.HasField("raw_data") and expected is not None and len(tensor.raw_data) != expected:
            fault = f"{len(tensor.raw_data)} bytes, {expected} by its shape; the file is damaged, export it again"
        else:
            fault = None
        if fault:
            yield Finding("missing_data", ERROR, name, ALL_TARGETS, f"tensor {name}: {fault}")


def fixed_batch(graph: LintGraph) -> Iterator[Finding]:
    """No input whose first dimension is open: only one batch size runs."""
    sizes = {item.name: item.type.tensor_type.shape.dim[0] for item in graph.inputs if item.type.tensor_type.shape.dim}
    fixed = {name: dim.dim_value for name, dim in sizes.items() if dim.HasField("dim_value")}
    if fixed and len(fixed) == len(sizes):
        name, size = next(iter(fixed.items()))
        message = f"input {name} has a fixed batch of {size}; export with a dynamic first dimension to run any other"
        yield Finding("fixed_batch", WARNING, name, ALL_TARGETS, message)


def _expected_bytes(tensor: TensorProto) -> int | None:
    """Bytes of a tensor's data; None for types of no whole bytes."""
    if tensor.data_type not in (*range(TensorProto.FLOAT, TensorProto.STRING), *range(9, 17)):
        return None
    itemsize = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    return int(np.prod(tensor.dims, dtype=np.int64)) * itemsize


def _external_fault(graph: LintGraph, tensor: TensorProto, expected: int | None) -> str | None:
    if graph.folder is None:
        return "its data lie in another file; lint the file, not the model in memory"
    info = {entry.key: entry.value for entry in tensor.external_data}
    location, length = str(info.get("location", "")), int(info.get("length") or expected or 0)
    path = graph.folder / location
    if not path.is_file():
        return f"its data should lie in {location} beside the model, which is not there; copy both files"
    if path.stat().st_size < int(info.get("offset") or 0) + length or length != (expected or length):
        return f"{location} ends before its data do; the file is damaged, export it again"
    return None
