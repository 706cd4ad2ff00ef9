"""Rules on single operators: those that a target does not import, and attributes that it does not take."""

from __future__ import annotations

from collections.abc import Iterator

from hamr_edge.export.lint_graph import (
    ERROR,
    ONNXRUNTIME,
    TENSORRT,
    TENSORRT_10,
    TENSORRT_11,
    TENSORRT_RTX,
    WARNING,
    Finding,
    LintGraph,
    attribute,
    input_name,
    node_name,
    whole_number,
)

_RESIZE_COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")


def resize(graph: LintGraph) -> Iterator[Finding]:
    """Forms of Resize that TensorRT or ONNX Runtime refuse."""
    for node in graph.nodes:
        if node.op_type != "Resize":
            continue
        mode = attribute(node, "mode", "nearest")
        coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
        refused = []
        if whole_number(node, "antialias", 0):
            refused.append("antialias=1; resize outside the graph, or export without it")
        if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
            refused.append("a keep_aspect_ratio_policy; use stretch and give the size")
        if coordinates not in _RESIZE_COORDINATES:
            refused.append(f"coordinates {coordinates}; use {_RESIZE_COORDINATES[0]}")
        elif coordinates == "tf_half_pixel_for_nn" and attribute(node, "nearest_mode", "") not in (
            "",
            "round_prefer_floor",
        ):
            refused.append("coordinates tf_half_pixel_for_nn with a nearest_mode; use half_pixel")
        if attribute(node, "axes") and input_name(node, 2) and graph.constant(input_name(node, 2)) is None:
            refused.append("axes with scales that are computed; make the scales a constant")
        for fault in refused:
            message = f"TensorRT refuses Resize with {fault}"
            yield Finding("resize", ERROR, node_name(node), TENSORRT, message)
        if mode == "cubic":
            message = "NVIDIA's list of operators for TensorRT 10 has no cubic Resize; use linear"
            yield Finding("resize", WARNING, node_name(node), (TENSORRT_10, TENSORRT_11), message)
        elif whole_number(node, "exclude_outside", 0):
            message = "ONNX Runtime refuses Resize with exclude_outside=1 in other modes than cubic; leave it out"
            yield Finding("resize", ERROR, node_name(node), (ONNXRUNTIME,), message)


def roi_align(graph: LintGraph) -> Iterator[Finding]:
    """RoiAlign is a plugin in TensorRT, absent from TensorRT for RTX, with another default for its samples."""
    for node in graph.nodes:
        if node.op_type != "RoiAlign":
            continue
        message = "TensorRT for RTX has no plugins and refuses RoiAlign; crop with GridSample"
        yield Finding("roi_align", ERROR, node_name(node), (TENSORRT_RTX,), message)
        message = (
            "RoiAlign is a plugin in TensorRT; call trt.init_libnvinfer_plugins before building and before loading, "
            "or crop with GridSample"
        )
        yield Finding("roi_align", WARNING, node_name(node), (TENSORRT_10, TENSORRT_11), message)
        if attribute(node, "sampling_ratio") is None:
            found = "RoiAlign without sampling_ratio is adaptive (0) by the standard, 1 in TensorRT 10.1's importer"
            yield Finding("roi_align", ERROR, node_name(node), (TENSORRT_10,), f"{found}: other values; write it")
            yield Finding("roi_align", WARNING, node_name(node), (TENSORRT_11,), f"{found}; write it")


def grid_sample_volume(graph: LintGraph) -> Iterator[Finding]:
    """GridSample over volumes (5-D)."""
    for node in graph.nodes:
        if node.op_type == "GridSample" and graph.ranks.get(input_name(node, 0)) == 5:
            message = "TensorRT 10 samples 4-D images only; take the slices one by one"
            yield Finding("grid_sample_volume", ERROR, node_name(node), (TENSORRT_10,), message)
            message = "GridSample over 5-D volumes came with TensorRT 11.2.1; build with that or a later one"
            yield Finding("grid_sample_volume", WARNING, node_name(node), (TENSORRT_11,), message)


def pooling(graph: LintGraph) -> Iterator[Finding]:
    """Dilated pooling, and MaxPool with its indices."""
    for node in graph.nodes:
        if node.op_type not in ("MaxPool", "AveragePool"):
            continue
        dilations = attribute(node, "dilations", [])
        if isinstance(dilations, list) and any(step != 1 for step in dilations):
            message = f"TensorRT refuses {node.op_type} with dilations {dilations}; take strided slices, then pool"
            yield Finding("pooling", ERROR, node_name(node), TENSORRT, message)
        if len(node.output) > 1:
            message = "TensorRT refuses MaxPool with a second output (indices), used or not; leave it out"
            yield Finding("pooling", ERROR, node_name(node), TENSORRT, message)


def data_dependent_shape(graph: LintGraph) -> Iterator[Finding]:
    """Operators whose output size depends on values."""
    for node in graph.nodes:
        if node.op_type in ("NonMaxSuppression", "NonZero"):
            message = (
                f"the size of {node.op_type}'s output depends on values: it needs an output allocator and keeps the "
                "engine out of CUDA graphs; move it behind the network"
            )
            yield Finding("data_dependent_shape", WARNING, node_name(node), (TENSORRT_10, TENSORRT_11), message)
            message = f"TensorRT for RTX 1.7 does not build {node.op_type}; move it behind the network"
            yield Finding("data_dependent_shape", ERROR, node_name(node), (TENSORRT_RTX,), message)


def reduce_axes(graph: LintGraph) -> Iterator[Finding]:
    """Axes of a reduction that are computed: TensorRT wants an initialiser or a Constant, and folds little else."""
    for node in graph.nodes:
        axes = input_name(node, 1)
        if node.op_type.startswith("Reduce") and axes and graph.constant(axes) is None:
            message = f"the axes of {node.op_type} are computed; TensorRT wants a constant; fold or write them"
            yield Finding("reduce_axes", ERROR, node_name(node), TENSORRT, message)
