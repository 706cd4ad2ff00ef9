"""Another input for a finished network: float pixels in NCHW and RGB, as DeepStream and ultralytics feed them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.errors import InputError
from hamr_edge.sidecar import external_data_path

_HEAD = ("Cast", "Sub", "Mul", "Transpose")
"""What stands in front of every network in the crops form: uint8 NHWC BGR to normalised float32 NCHW."""


def write_float_form(crops_artifact: Path, path: Path, scale: float, size_hw: tuple[int, int]) -> None:
    """Write a crops artifact with a float input; weights that lie in a file of their own do so again.

    Args:
        crops_artifact: An ``.onnx`` file in the crops form, of any precision.
        path: File to write.
        scale: See :func:`to_float_form`.
        size_hw: See :func:`to_float_form`.

    Raises:
        InputError: See :func:`to_float_form`.
    """
    model = to_float_form(onnx.load(crops_artifact), scale, size_hw)
    if external_data_path(crops_artifact).exists():
        onnx.save(model, path, save_as_external_data=True, location=external_data_path(path).name)
    else:
        onnx.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


def to_float_form(model: onnx.ModelProto, scale: float, size_hw: tuple[int, int]) -> onnx.ModelProto:
    """Let a network take ``images``, float32 (N, 3, height, width) RGB.

    The numbers behind the input are those of the crops form: BGR planes, mean off, times the inverse deviation, in
    float32. The rest of the network, its quantisation included, is untouched.

    Args:
        model: In the crops form; it is changed and given back.
        scale: What makes 0..255 of the pixels: 1, or 255 where they are 0..1.
        size_hw: Height and width of the images; where they are not the network's own, the graph resizes (bilinear,
            half-pixel centres, as OpenCV but for its rounding to whole numbers).

    Raises:
        InputError: The model does not begin as hamr-edge's crops form does.
    """
    graph = model.graph
    nodes, mean, inverse_std, own_hw = _find_head(graph)
    result = nodes[-1].output[0]
    for node in nodes:
        graph.node.remove(node)
    made = []
    value = "images"
    constants: dict[str, NDArray[Any]] = {
        "planes_bgr": np.array([2, 1, 0], np.int64),
        "mean_planes": mean.reshape(3, 1, 1),
        "inverse_std_planes": inverse_std.reshape(3, 1, 1),
    }
    if scale != 1:
        constants["pixel_scale"] = np.array(scale, np.float32)
        made.append(helper.make_node("Mul", [value, "pixel_scale"], [value := "images_255"], "head_scale"))
    made.append(helper.make_node("Gather", [value, "planes_bgr"], [value := "images_bgr"], "head_bgr", axis=1))
    if size_hw != own_hw:
        constants["resize_scales"] = np.array([1, 1, own_hw[0] / size_hw[0], own_hw[1] / size_hw[1]], np.float32)
        made.append(
            helper.make_node(
                "Resize",
                [value, "", "resize_scales"],
                [value := "images_resized"],
                "head_resize",
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        )
    made.append(helper.make_node("Sub", [value, "mean_planes"], [value := "images_centred"], "head_mean"))
    made.append(helper.make_node("Mul", [value, "inverse_std_planes"], [result], "head_std"))
    for place, node in enumerate(made):
        graph.node.insert(place, node)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    used = {name for node in graph.node for name in node.input}
    for initializer in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(initializer)
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *size_hw]))
    gone = {name for node in nodes for name in node.output} - {result} | {"images"}
    for info in [info for info in graph.value_info if info.name in gone]:
        graph.value_info.remove(info)
    return model


def _find_head(
    graph: onnx.GraphProto,
) -> tuple[list[onnx.NodeProto], NDArray[np.float32], NDArray[np.float32], tuple[int, int]]:
    """The nodes of the head, ImageNet's mean and inverse deviation of BGR in 0..255, and the input's size."""
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    name = "images"
    for kind in _HEAD:
        users = [node for node in graph.node if name in node.input]
        if len(users) != 1 or users[0].op_type != kind:
            raise InputError(
                f"expected a network that begins with {', '.join(_HEAD)} of uint8 images, as 'hamr-edge export' makes "
                f"them in the crops form; {name!r} goes to {[node.op_type for node in users]}"
            )
        nodes.append(users[0])
        name = users[0].output[0]
    shape = [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim]
    mean, inverse_std = (
        np.broadcast_to(values[node.input[1]].astype(np.float32).reshape(-1), 3) for node in nodes[1:3]
    )
    return nodes, mean, inverse_std, (shape[1], shape[2])
