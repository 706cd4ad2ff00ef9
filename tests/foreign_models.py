"""Small models as others export them: real ONNX files, without a sidecar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE_HW = (32, 16)
WIDTH = 10
Size = int | str


def write_foreign(
    path: Path,
    batch: Size = "batch",
    size_hw: tuple[Size, Size] = SIZE_HW,
    dtype: int = TensorProto.FLOAT,
    channels_last: bool = False,
    outputs: tuple[str, ...] = ("output",),
    dimensions: int = 2,
) -> Path:
    """Write a model that pools an image to 8 x 4 and multiplies: not normalised, each output by weights of its own.

    Args:
        path: The file.
        batch: A number is fixed, a name free.
        size_hw: As ``batch``.
        dtype: Of the input; the outputs are of the same, float for uint8.
        channels_last: (N, H, W, 3) in place of (N, 3, H, W).
        outputs: Their names.
        dimensions: 2 gives (N, D), 4 gives (N, D, 1, 1), 3 a map of two rows.
    """
    shape = [batch, *size_hw, 3] if channels_last else [batch, 3, *size_hw]
    result = TensorProto.FLOAT16 if dtype == TensorProto.FLOAT16 else TensorProto.FLOAT
    nodes = [helper.make_node("Cast", ["images"], ["typed"], to=TensorProto.FLOAT)]
    if channels_last:
        nodes.append(helper.make_node("Transpose", ["typed"], ["nchw"], perm=[0, 3, 1, 2]))
    pooled = helper.make_node(
        "AveragePool", ["nchw" if channels_last else "typed"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]
    )
    nodes += [pooled, helper.make_node("Flatten", ["pooled"], ["flat"])]
    ends = {2: [-1, WIDTH], 3: [-1, 2, WIDTH // 2], 4: [-1, WIDTH, 1, 1]}[dimensions]
    constants = [numpy_helper.from_array(np.array(ends), "ends")]
    for seed, name in enumerate(outputs):
        weight = np.random.default_rng(seed).normal(size=(96, WIDTH)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"weight{seed}"))
        nodes += [
            helper.make_node("MatMul", ["flat", f"weight{seed}"], [f"product{seed}"]),
            helper.make_node("Reshape", [f"product{seed}", "ends"], [f"shaped{seed}"]),
            helper.make_node("Cast", [f"shaped{seed}"], [name], to=result),
        ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info(name, result, [batch, *ends[1:]]) for name in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def expected_embeddings(
    batch: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], seed: int = 0, swap: bool = True
) -> np.ndarray:
    """What such a model gives of uint8 BGR crops, in float64, of unit norm.

    Args:
        batch: (N, 32, 16, 3).
        mean: Taken off pixels in 0..1, in the model's order of channels.
        std: What they are divided by then.
        seed: Number of the output.
        swap: The model takes RGB.
    """
    images = (batch[..., ::-1] if swap else batch).astype(np.float64) / 255
    images = (images - np.array(mean)) / np.array(std)
    pooled = images.reshape(len(batch), 8, 4, 4, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(len(batch), -1)
    rows = pooled @ np.random.default_rng(seed).normal(size=(96, WIDTH)).astype(np.float32).astype(np.float64)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
