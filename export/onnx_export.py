"""The deploy network as an ONNX file: dynamic batch, opset 20, IR at most 10."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from hamr_edge.export.compact import Projection
from hamr_edge.export.deploy_graph import DeployNetwork
from hamr_edge.sidecar import external_data_path
from hamr_edge.trainer.network import Hamr

OPSET = 20
MAX_IR_VERSION = 10
_PROTOBUF_LIMIT = 2 * 1024**3 - 1


def export_onnx(
    network: Hamr,
    path: Path,
    max_batch: int,
    external_above: int = _PROTOBUF_LIMIT,
    projection: Projection | None = None,
) -> None:
    """Write the fp32 ONNX form of a network.

    Input ``images``: uint8 (batch, H, W, 3) BGR. Output ``embeddings``: float32 (batch, D), rows of unit norm.

    Args:
        network: A trained network.
        path: File to write.
        max_batch: Largest batch the graph must take.
        external_above: Bytes above which the weights go into ``<path>.data`` beside it.
        projection: Makes the embeddings compact; see :class:`DeployNetwork`.
    """
    deploy = DeployNetwork(network, projection).eval()
    height, width = network.config.input_size_hw
    images = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=max(2, max_batch))
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            deploy,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: batch}},
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    _strip(model)
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    save_onnx(model, path, external_above)


def save_onnx(model: onnx.ModelProto, path: Path, external_above: int = _PROTOBUF_LIMIT) -> None:
    """Write a model and have ONNX's own checker read it; weights above ``external_above`` bytes lie beside it."""
    if model.ByteSize() > external_above:
        onnx.save(model, path, save_as_external_data=True, location=external_data_path(path).name)
    else:
        onnx.save(model, path)
    onnx.checker.check_model(str(path), full_check=True)


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold paths of the machine that exported."""
    graph = model.graph
    model.doc_string = graph.doc_string = ""
    graph.name = "hamr"
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hold back the exporter's notes on its own progress and future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
