"""A small network in float32, float16 and int8, that faults are planted in: sensitive to colour, place and side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hamr_edge.benchmarks.inner_tensors import open_inner_tensors, read_model
from hamr_edge.export.frame_graph import write_frame_form
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, RESIZE_RULE
from hamr_edge.sidecar import Sidecar, hash_file, load_sidecar, sidecar_path, write_sidecar

SIZE_HW = (32, 16)
DIM = 48
MEAN, STD = IMAGENET_MEAN_RGB[::-1], IMAGENET_STD_RGB[::-1]
_CHANNELS = (3, 12, 12, 16)
_LAYERS = 3


def crops(count: int = 16, seed: int = 0) -> list[np.ndarray]:
    """(H, W, 3) uint8 crops of several sizes: coloured patches with some noise."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        size = (int(rng.integers(14, 40)), int(rng.integers(30, 90)))
        coarse = rng.integers(0, 256, (8, 4, 3), np.uint8)
        patches = cv2.resize(coarse, size, interpolation=cv2.INTER_NEAREST)
        made.append((patches + rng.normal(0, 8, patches.shape)).clip(0, 255).astype(np.uint8))
    return made


def write_network(path: Path, precision: str = "fp32", seed: int = 0, frame: bool = False, max_batch: int = 8) -> Path:
    """Write the network with its sidecar.

    Args:
        path: The ``.onnx`` file.
        precision: ``fp32``, ``fp16`` or ``int8``; int8 is calibrated on :func:`crops` of another seed.
        seed: Of the weights.
        frame: Write the frame form.
        max_batch: Of the sidecar.
    """
    model = _model(np.random.default_rng(seed))
    plain = path.with_suffix(".plain.onnx")
    onnx.save(model, plain)
    if precision != "fp32":
        _narrow(model, _reaches(plain) if precision == "int8" else {})
    onnx.checker.check_model(model)
    onnx.save(model, plain if frame else path)
    if frame:
        write_frame_form(plain, path)
    plain.unlink(missing_ok=True)
    sidecar = Sidecar(
        artifact_sha256=hash_file(path),
        input_size_hw=SIZE_HW,
        embedding_dim=DIM,
        max_batch=max_batch,
        precision=precision,
        source_sha256=f"{seed}" * 64,
        form="frame" if frame else "crops",
        mean=MEAN,
        std=STD,
        resize=RESIZE_RULE,
    )
    write_sidecar(sidecar, sidecar_path(path))
    return path


def forge_source(artifact: Path, source: str) -> None:
    """Let the sidecar name another source."""
    write_sidecar(replace(load_sidecar(artifact), source_sha256=source), sidecar_path(artifact))


def _model(rng: np.random.Generator) -> onnx.ModelProto:
    pooled = _CHANNELS[-1] * (SIZE_HW[0] // 8) * (SIZE_HW[1] // 8)
    constants = {
        "mean": 255 * np.array(MEAN, np.float32),
        "inverse_std": 1 / (255 * np.array(STD, np.float32)),
        "project": rng.normal(0, 0.2, (pooled, DIM)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "inverse_std"], ["normal"]),
        helper.make_node("Transpose", ["normal"], ["inner0"], perm=[0, 3, 1, 2]),
    ]
    for layer in range(1, _LAYERS + 1):
        shape = (_CHANNELS[layer], _CHANNELS[layer - 1], 3, 3)
        constants[f"weight{layer}"] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        constants[f"bias{layer}"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
        inputs = [f"inner{layer - 1}", f"weight{layer}", f"bias{layer}"]
        stride = 1 if layer == 1 else 2
        nodes += [
            helper.make_node("Conv", inputs, [f"conv{layer}"], pads=[1, 1, 1, 1], strides=[stride, stride]),
            helper.make_node("Relu", [f"conv{layer}"], [f"inner{layer}"]),
        ]
    last = f"inner{_LAYERS}"
    nodes += [
        helper.make_node("AveragePool", [last], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "project"], ["product"]),
        helper.make_node("LpNormalization", ["product"], ["embeddings"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", *SIZE_HW, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _reaches(artifact: Path) -> dict[str, float]:
    """The largest value of each tensor before a convolution."""
    names = [f"inner{layer}" for layer in range(_LAYERS)]
    batch = np.stack([cv2.resize(crop, SIZE_HW[::-1]) for crop in crops(32, seed=99)])
    with open_inner_tensors(artifact, read_model(artifact), names) as session:
        return {name: float(np.abs(value).max()) for name, value in zip(names, session.run(batch, names), strict=True)}


def _narrow(model: onnx.ModelProto, reaches: dict[str, float]) -> None:
    """Make what lies between normalisation and the last pooling float16, and with ranges int8 by Q/DQ too."""
    graph = model.graph
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    nodes: list[NodeProto] = []
    constants = {name: value for name, value in values.items() if name in ("mean", "inverse_std", "project")}
    for node in graph.node:
        if node.op_type == "Transpose":
            node.output[0] = "wide0"
            nodes += [node, helper.make_node("Cast", ["wide0"], ["inner0"], to=TensorProto.FLOAT16)]
            continue
        if node.op_type == "Flatten":
            nodes.append(helper.make_node("Cast", ["pooled"], ["pooled_wide"], to=TensorProto.FLOAT))
            node.input[0] = "pooled_wide"
        elif node.op_type == "Conv":
            source, weight, bias = node.input
            constants[bias] = values[bias].astype(np.float16)
            if reaches:
                scale = np.float16(reaches[source] / 127)
                largest = np.abs(values[weight]).max(axis=(1, 2, 3))
                weight_scale = (largest / 127).astype(np.float16)
                rounded = (values[weight] / weight_scale[:, None, None, None]).round().clip(-127, 127)
                constants |= {f"{source}_scale": scale, f"{source}_zero": np.int8(0)}
                constants |= {f"{weight}_int8": rounded.astype(np.int8), f"{weight}_scale": weight_scale}
                quantised = [f"{source}_scale", f"{source}_zero"]
                nodes += [
                    helper.make_node("QuantizeLinear", [source, *quantised], [f"{source}_int8"], f"{source}_node"),
                    helper.make_node("DequantizeLinear", [f"{source}_int8", *quantised], [f"{source}_back"]),
                    helper.make_node(
                        "DequantizeLinear", [f"{weight}_int8", f"{weight}_scale"], [f"{weight}_back"], axis=0
                    ),
                ]
                node.input[0], node.input[1] = f"{source}_back", f"{weight}_back"
            else:
                constants[weight] = values[weight].astype(np.float16)
        nodes.append(node)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
