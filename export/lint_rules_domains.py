"""Rules on which operators a target has at all."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

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
from hamr_edge.export.lint_rules_placement import INTEGER_OPERATORS

_STANDARD = ("", "ai.onnx")
_ONNXRUNTIME_DOMAINS = (
    "com.microsoft",
    "com.microsoft.experimental",
    "com.microsoft.nchwc",
    "com.ms.internal.nhwc",
    "ai.onnx.ml",
    "ai.onnx.training",
    "ai.onnx.preview.training",
)
# fmt: off
_NOT_IMPORTED = frozenset(
    (
        "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
        "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "DFT", "Det", "ImageDecoder", "MaxRoiPool",
        "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional",
        "OptionalGetElement", "OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceConstruct",
        "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
        "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit",
        "TfIdfVectorizer", "Unique",
    )
)
# fmt: on
"""Refused by the parser of TensorRT for RTX 1.7, and by that of TensorRT 10.1 (onnx-tensorrt, docs/operators.md)."""
_NOT_IMPORTED_10 = frozenset(("BlackmanWindow", "HammingWindow", "HannWindow", "STFT"))
_NOT_IMPORTED_RTX = frozenset(("BitCast", "CumProd", "DeformConv", "SwiGLU"))


def operator_not_imported(graph: LintGraph) -> Iterator[Finding]:
    """Operators of the standard that TensorRT's parser has no importer for."""
    for node in graph.nodes:
        targets = _without_importer(node.op_type)
        if targets and node.op_type not in INTEGER_OPERATORS:
            message = f"{', '.join(targets)}: the parser does not import {node.op_type}; express it by other operators"
            yield Finding("operator_not_imported", ERROR, node_name(node), targets, message)


def unknown_operator(graph: LintGraph) -> Iterator[Finding]:
    """Operators of the standard domain that the standard does not have, or not in the file's opset."""
    for node in graph.nodes:
        if node.domain not in _STANDARD or _is_plugin(node):
            continue
        if not onnx.defs.has(node.op_type):
            message = f"ONNX {onnx.__version__} has no operator {node.op_type}; express it by standard operators"
            yield Finding("unknown_operator", ERROR, node_name(node), ALL_TARGETS, message)
        elif not _is_in_opset(node.op_type, graph.opset):
            message = f"opset {graph.opset} has no {node.op_type}; export with opset 19 or 20, or express it otherwise"
            yield Finding("unknown_operator", ERROR, node_name(node), (ONNXRUNTIME,), message)


def foreign_domain(graph: LintGraph) -> Iterator[Finding]:
    """Operators of other domains, such as ``com.microsoft``: TensorRT's parser looks at the name alone."""
    for node in graph.nodes:
        if node.domain in _STANDARD or _is_plugin(node):
            continue
        called = f"{node.domain}.{node.op_type}"
        if onnx.defs.has(node.op_type):
            message = f"TensorRT reads {called} as the standard's {node.op_type}; use that if it means the same"
            yield Finding("foreign_domain", WARNING, node_name(node), TENSORRT, message)
        else:
            message = f"TensorRT has no {called}; save the model before ONNX Runtime fuses it, or express it otherwise"
            yield Finding("foreign_domain", ERROR, node_name(node), TENSORRT, message)
        if node.domain not in _ONNXRUNTIME_DOMAINS:
            message = f"ONNX Runtime has no domain {node.domain} ({node.op_type}); use standard operators"
            yield Finding("foreign_domain", ERROR, node_name(node), (ONNXRUNTIME,), message)


def plugin(graph: LintGraph) -> Iterator[Finding]:
    """Operators of TensorRT's plugin library, such as ``EfficientNMS_TRT``."""
    for node in graph.nodes:
        if _is_plugin(node):
            message = f"{node.op_type} is a TensorRT plugin; TensorRT for RTX and ONNX Runtime have none; do without"
            yield Finding("plugin", ERROR, node_name(node), (TENSORRT_RTX, ONNXRUNTIME), message)
            message = f"{node.op_type} is a plugin; call trt.init_libnvinfer_plugins before building and before loading"
            yield Finding("plugin", WARNING, node_name(node), (TENSORRT_10, TENSORRT_11), message)


def _is_plugin(node: onnx.NodeProto) -> bool:
    return bool(node.op_type.endswith("_TRT"))


def _without_importer(op_type: str) -> tuple[str, ...]:
    if op_type in _NOT_IMPORTED:
        return TENSORRT
    if op_type in _NOT_IMPORTED_10:
        return (TENSORRT_10,)
    return (TENSORRT_RTX,) if op_type in _NOT_IMPORTED_RTX else ()


def _is_in_opset(op_type: str, opset: int) -> bool:
    try:
        return not onnx.defs.get_schema(op_type, opset, "").deprecated
    except onnx.defs.SchemaError:
        return False
