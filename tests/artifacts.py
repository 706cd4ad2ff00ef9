"""Small artifacts for tests: real ONNX files that ONNX Runtime runs, made in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.export.frame_graph import write_frame_form
from hamr_edge.sidecar import Sidecar, hash_file, load_sidecar, sidecar_path, write_sidecar

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


def write_tiny_frame_artifact(path: Path, max_batch: int = 8, seed: int = 0) -> Path:
    """Write the frame form of :func:`write_tiny_artifact`, with its sidecar; the crops form lies in ``crops/``."""
    (path.parent / "crops").mkdir(exist_ok=True)
    crops = write_tiny_artifact(path.parent / "crops" / path.name, max_batch, seed)
    write_frame_form(crops, path)
    write_sidecar(replace(load_sidecar(crops), artifact_sha256=hash_file(path), form="frame"), sidecar_path(path))
    return path


def pixel_model(size_hw: tuple[int, int], dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A model in the crops form that gives its crops back: float32 (N, height * width * 3)."""
    height, width = size_hw
    nodes = [
        helper.make_node("Cast", ["images"], ["typed"], to=dtype),
        helper.make_node("Flatten", ["typed"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["embeddings"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "pixels",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", height * width * 3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
