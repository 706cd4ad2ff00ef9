"""What tests of presets share: commands, and a tiny artifact that begins as exported ones do, with its preset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.cli import hamr_edge
from hamr_edge.export.presets import export_preset
from hamr_edge.sidecar import Sidecar, hash_file, sidecar_path, write_sidecar
from tests.artifacts import EMBEDDING_DIM, INPUT_SIZE_HW

if TYPE_CHECKING:
    from hamr_edge.export.exporting import Exported


def run(*arguments: object) -> Result:
    return CliRunner().invoke(hamr_edge, [*map(str, arguments)], standalone_mode=False)


def artifact_of(exported: Exported, precision: str) -> Path:
    return next(
        path
        for path, sidecar in exported.artifacts.items()
        if (sidecar.precision, sidecar.form) == (precision, "crops")
    )


def write_preset_pair(folder: Path) -> tuple[Path, Path]:
    """Write ``plain.onnx`` and ``plain.ultralytics.onnx`` with their sidecars."""
    height, width = INPUT_SIZE_HW
    pooled = 3 * (height // 4) * (width // 4)
    weight = np.random.default_rng(0).normal(size=(pooled, EMBEDDING_DIM)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "inverse_std"], ["normalised"]),
        helper.make_node("Transpose", ["normalised"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["nchw"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["product"]),
        helper.make_node("LpNormalization", ["product"], ["embeddings"], axis=1, p=2),
    ]
    constants = {"weight": weight, "mean": [103.53, 116.28, 123.675], "inverse_std": [0.0174, 0.0175, 0.0171]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", EMBEDDING_DIM])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    path = folder / "plain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    sidecar = Sidecar(hash_file(path), INPUT_SIZE_HW, EMBEDDING_DIM, 8, "fp32", "0" * 64)
    write_sidecar(sidecar, sidecar_path(path))
    return path, export_preset(path, folder, "ultralytics")[0]
