"""Small artifacts for tests: real ONNX files that ONNX Runtime runs, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.sidecar import Sidecar, hash_file, sidecar_path, write_sidecar

INPUT_SIZE_HW = (32, 16)
EMBEDDING_DIM = 12


def write_tiny_artifact(path: Path, max_batch: int = 8, seed: int = 0) -> Path:
    """Write an ONNX model in the published form, with its sidecar: 4 x 4 mean pooling, one product, unit rows."""
    height, width = INPUT_SIZE_HW
    pooled = 3 * (height // 4) * (width // 4)
    weight = np.random.default_rng(seed).normal(size=(pooled, EMBEDDING_DIM)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["product"]),
        helper.make_node("LpNormalization", ["product"], ["embeddings"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", EMBEDDING_DIM])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.float32(110), "mean")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    sidecar = Sidecar(
        artifact_sha256=hash_file(path),
        input_size_hw=INPUT_SIZE_HW,
        embedding_dim=EMBEDDING_DIM,
        max_batch=max_batch,
        precision="fp32",
        source_sha256="0" * 64,
    )
    write_sidecar(sidecar, sidecar_path(path))
    return path
