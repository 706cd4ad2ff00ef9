"""Engines for tests without a GPU: plans that the double of TensorRT loads, with their sidecars."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import open_backend
from hamr_edge.crop_canvas import LARGEST_FRAME_HW, SMALLEST_FRAME_HW
from hamr_edge.engine_record import TENSORRT, EngineRecord
from hamr_edge.sidecar import Sidecar, hash_file, load_sidecar, sidecar_path, write_sidecar
from tests.artifacts import INPUT_SIZE_HW, write_tiny_artifact, write_tiny_frame_artifact
from tests.gpu_double import Profile
from tests.tensorrt_double import double_plan

MAX_BATCH = 8


def engine_profile(sidecar: Sidecar) -> Profile:
    """What export builds for."""
    batches = (1, min(8, sidecar.max_batch), sidecar.max_batch)
    if sidecar.form == "frame":
        sizes = (SMALLEST_FRAME_HW, (1080, 1920), LARGEST_FRAME_HW)
        return {"frame": tuple((*size, 3) for size in sizes), "boxes": tuple((batch, 4) for batch in batches)}
    return {"images": tuple((batch, *sidecar.input_size_hw, 3) for batch in batches)}


def write_engine(onnx_path: Path, flavour: str = TENSORRT, version: str = "10.3.0") -> Path:
    """Write ``<name>.engine`` and its sidecar beside an ONNX artifact, as if built on the double's machine."""
    sidecar = load_sidecar(onnx_path)
    path = onnx_path.with_suffix(".engine")
    profile = engine_profile(sidecar)
    path.write_bytes(double_plan(onnx_path, profile))
    record = EngineRecord(
        flavour=flavour,
        version=version,
        compute_capability="8.7",
        system=platform.system().lower(),
        machine=platform.machine().lower(),
        profile=profile,
        source=onnx_path.name,
        device_name="Double of a GPU",
        checkpoint_sha256=sidecar.source_sha256,
        options=("--batch", str(sidecar.max_batch)),
    )
    made = replace(sidecar, artifact_sha256=hash_file(path), source_sha256=sidecar.artifact_sha256, engine=record)
    write_sidecar(made, sidecar_path(path))
    return path


def write_engines(root: Path) -> Path:
    """``crops.engine`` and ``frame.engine``, each beside its .onnx, for batches of up to ``MAX_BATCH``."""
    write_engine(write_tiny_artifact(root / "crops.onnx", MAX_BATCH))
    write_engine(write_tiny_frame_artifact(root / "frame.onnx", MAX_BATCH))
    return root


def noise_crops(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Crops of the tiny artifacts' size."""
    return np.random.default_rng(seed).integers(0, 256, (count, *INPUT_SIZE_HW, 3), np.uint8)


def noise_frame(height: int = 600, width: int = 800, seed: int = 0) -> NDArray[np.uint8]:
    """A frame of noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def some_boxes(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Boxes of 40 x 40 pixels inside any frame that engines take."""
    first = np.random.default_rng(seed).uniform(0, 200, (count, 2))
    return np.concatenate([first, first + 40], axis=1).astype(np.float32)


def embed_by_onnx(engines: Path, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ``crops.onnx`` makes of crops on the CPU."""
    with open_backend(engines / "crops.onnx", "cpu") as backend:
        return backend.infer(batch)
