"""What TensorRT or ONNX Runtime would refuse in an ONNX file, or read otherwise, said before a builder does.

Each rule is a function of a :class:`~hamr_edge.export.lint_graph.LintGraph`. What they say of TensorRT for RTX and of
ONNX Runtime was tried, on TensorRT for RTX 1.7.1 and ONNX Runtime 1.32 and 1.19. What they say of TensorRT 10 and 11
was not: it comes from NVIDIA's documents, the source of onnx-tensorrt 10.1, and what TensorRT for RTX does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from hamr_edge.errors import InputError
from hamr_edge.export import (
    lint_rules_domains,
    lint_rules_file,
    lint_rules_half,
    lint_rules_operators,
    lint_rules_placement,
    lint_rules_quantize,
    lint_rules_types,
)
from hamr_edge.export.lint_graph import ALL_TARGETS, ERROR, Finding, LintGraph

RULES: tuple[Callable[[LintGraph], Iterator[Finding]], ...] = (
    lint_rules_file.opset,
    lint_rules_file.ir_version,
    lint_rules_file.graph_outputs,
    lint_rules_file.duplicate_name,
    lint_rules_file.missing_tensor,
    lint_rules_file.missing_data,
    lint_rules_file.fixed_batch,
    lint_rules_domains.unknown_operator,
    lint_rules_domains.foreign_domain,
    lint_rules_domains.plugin,
    lint_rules_domains.operator_not_imported,
    lint_rules_quantize.unsigned_zero_point,
    lint_rules_quantize.missing_zero_point,
    lint_rules_quantize.nonzero_zero_point,
    lint_rules_quantize.quantised_integer,
    lint_rules_quantize.int32_bias,
    lint_rules_quantize.scale_value,
    lint_rules_quantize.scale_type,
    lint_rules_quantize.half_quantiser_opset,
    lint_rules_quantize.scale_count,
    lint_rules_quantize.default_axis,
    lint_rules_placement.integer_operator,
    lint_rules_placement.activation_channels,
    lint_rules_placement.weight_axis,
    lint_rules_placement.stacked_weight_channels,
    lint_rules_types.uint8_use,
    lint_rules_types.mixed_types,
    lint_rules_types.declared_type,
    lint_rules_types.float64,
    lint_rules_types.absent_type,
    lint_rules_types.int8_constant,
    lint_rules_half.half_not_finite,
    lint_rules_half.half_underflow,
    lint_rules_half.half_range,
    lint_rules_operators.resize,
    lint_rules_operators.roi_align,
    lint_rules_operators.grid_sample_volume,
    lint_rules_operators.pooling,
    lint_rules_operators.data_dependent_shape,
    lint_rules_operators.reduce_axes,
)


def lint(model: str | Path | onnx.ModelProto, targets: Sequence[str] = ALL_TARGETS) -> list[Finding]:
    """Find what the targets would refuse in a model, or read otherwise. Nothing is built and nothing runs.

    Args:
        model: An ONNX file, or a model in memory; not changed.
        targets: Which of ``tensorrt-10``, ``tensorrt-11``, ``tensorrt-rtx`` and ``onnxruntime`` to ask about.

    Returns:
        The findings, errors first, each with those of ``targets`` that it concerns.

    Raises:
        InputError: The file is missing or no ONNX, or there is no such target.
    """
    unknown = [target for target in targets if target not in ALL_TARGETS]
    if unknown or not targets:
        raise InputError(f"targets must be of {', '.join(ALL_TARGETS)}; got {', '.join(unknown) or 'none'}")
    graph = _read(model)
    findings = []
    for finding in (finding for rule in RULES for finding in rule(graph)):
        concerned = tuple(target for target in finding.targets if target in targets)
        if concerned:
            findings.append(Finding(finding.rule, finding.severity, finding.name, concerned, finding.message))
    return sorted(findings, key=lambda finding: finding.severity != ERROR)


def _read(model: str | Path | onnx.ModelProto) -> LintGraph:
    if isinstance(model, onnx.ModelProto):
        if not model.HasField("graph"):
            raise InputError("the model in memory holds no graph; load it from an ONNX file")
        return LintGraph(model)
    path = Path(model)
    if not path.is_file():
        raise InputError(f"no file {path}; name an ONNX file")
    try:
        loaded = onnx.load_model(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError) as error:
        raise InputError(f"{path} is no ONNX file: {error}; export the network again") from error
    if not loaded.HasField("graph"):
        raise InputError(f"{path} is no ONNX file: it holds no graph; export the network again")
    try:
        return LintGraph(loaded, path.absolute().parent)
    except UnicodeError as error:
        raise InputError(f"{path} is damaged: it holds a name that is no text; export the network again") from error
