"""Checkpoint to checked artifacts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch

from hamr_edge import __version__
from hamr_edge.backend import open_backend
from hamr_edge.dataset import open_dataset, read_crop
from hamr_edge.export.config import ExportConfig
from hamr_edge.export.onnx_export import export_onnx
from hamr_edge.export.publish import SourceEmbeddings, publish
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import Sidecar
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.synthetic import random_crops

_CROPS = 32


def export_checkpoint(
    checkpoint: Path, output: Path, config: ExportConfig, data: Path | None = None, dataset_kind: str = "auto"
) -> dict[Path, Sidecar]:
    """Write every artifact asked for, each checked against PyTorch before it gets its name.

    Args:
        checkpoint: A checkpoint folder.
        output: Folder for ``model.<precision>.onnx`` and sidecars.
        config: What to export.
        data: Data set whose gallery, or else training set, the check takes crops of; procedural figures without one.
        dataset_kind: What ``data`` is; see :func:`hamr_edge.dataset.open_dataset`.

    Returns:
        The published files and their sidecars.

    Raises:
        InputError: The checkpoint or the data set cannot be read.
        GateError: An artifact disagrees with PyTorch; it was not published.
    """
    network, _, _ = load_checkpoint(checkpoint)
    with open_backend(checkpoint, "cpu") as reference:
        described = reference.sidecar
        count = max(_CROPS, config.max_batch)
        crops, names = _check_crops(data, dataset_kind, count, described.input_size_hw, config.seed)
        source = SourceEmbeddings(crops, names, reference.infer(crops))
    sidecar = replace(
        described,
        max_batch=config.max_batch,
        made_by=f"hamr-edge {__version__}, torch {torch.__version__}, onnx {onnx.__version__}",
    )
    published = {}
    for precision in config.precisions:
        path = output / f"model.{precision}.onnx"
        published[path] = publish(
            path,
            replace(sidecar, precision=precision),
            lambda temporary: export_onnx(network, temporary, config.max_batch),
            source,
            config.min_cosine,
        )
    return published


def _check_crops(
    data: Path | None, dataset_kind: str, count: int, size_hw: tuple[int, int], seed: int
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], tuple[str, ...]]:
    """Crops to check with, and their names: seeded choice of the data set's, or procedural figures."""
    if data is None:
        return stack_crops(random_crops(count, seed), size_hw), tuple(f"procedural crop {i}" for i in range(count))
    dataset = open_dataset(data, dataset_kind)
    crops = dataset.gallery if len(dataset.gallery) else dataset.train
    chosen = np.random.default_rng(seed).permutation(len(crops))[:count]
    paths = crops.select(np.sort(chosen)).paths
    return stack_crops([read_crop(path) for path in paths], size_hw), tuple(path.name for path in paths)
