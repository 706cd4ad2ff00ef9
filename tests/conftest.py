from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

# The networks here are tiny: a second thread costs more than it gives, most of all on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# On CPUs with AMX, PyTorch 2.13's bfloat16 convolutions of stride 2 give garbage where a map is 2 or 3 wide, as here.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")

import numpy as np
import pytest

from tests.artifacts import write_tiny_artifact
from tests.tiny_dataset import write_tiny_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hamr_edge.export.exporting import Exported
    from hamr_edge.export.triton_repository import WrittenModel
    from tests.gpu_double import Machine
    from tests.slow_embedder import HeldEmbedder


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny .onnx with its sidecar: input 32 x 16, 12 values, batches up to 8."""
    return write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx")


@pytest.fixture
def frame() -> np.ndarray:
    """A (120, 160, 3) uint8 frame of noise."""
    return np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data that HAMR_DATA names; the test is skipped without it."""
    root = os.environ.get("HAMR_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("HAMR_DATA does not name a folder of real data")
    return Path(root)


@pytest.fixture(scope="session")
def synthetic_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A procedural data set: 6 training and 6 test identities, 2 cameras."""
    from hamr_edge.trainer.synthetic_data import write_dataset

    root = tmp_path_factory.mktemp("synthetic") / "data"
    write_dataset(root, ids=12, cameras=2, seed=0)
    return root


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: Path) -> Path:
    """A real checkpoint of a tiny network, input 32 x 16, 12 values. Not to be changed."""
    from hamr_edge.dataset import open_dataset
    from hamr_edge.trainer.loop import train
    from tests.test_train import TINY

    run = tmp_path_factory.mktemp("checkpoint") / "run"
    train(TINY, open_dataset(synthetic_dataset), run, quiet=True)
    return run


@pytest.fixture
def held(tiny_artifact: Path) -> Iterator[HeldEmbedder]:
    """An open embedder whose batches wait when a test says so; let go at the end."""
    from tests.slow_embedder import HeldEmbedder

    with HeldEmbedder(tiny_artifact) as embedder:
        yield embedder
        embedder.let_go()


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny data set in Market-1501's layout, with junk and distractors. Not to be changed."""
    return write_tiny_dataset(tmp_path_factory.mktemp("dataset") / "tiny")


@pytest.fixture(scope="session")
def exported(checkpoint: Path, synthetic_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The checkpoint in every precision and form. Not to be changed."""
    from hamr_edge.export.exporting import export_checkpoint
    from tests.every_precision import CONFIG

    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("exported") / "build", CONFIG, synthetic_dataset)


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``crops.engine`` and ``frame.engine`` for the doubled GPU, each beside its .onnx."""
    from tests.engine_files import write_engines

    return write_engines(tmp_path_factory.mktemp("engines"))


@pytest.fixture(params=[None, 0, 1], ids=["late", "odd 0", "odd 1"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A doubled GPU that runs work as late as it can, or in an odd order."""
    from tests.gpu_install import gpu_doubles

    with gpu_doubles(monkeypatch, seed=request.param) as machine:
        yield machine


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A doubled GPU that runs work as late as it can."""
    from tests.gpu_install import gpu_doubles

    with gpu_doubles(monkeypatch) as machine:
        yield machine


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a source hangs on; its thread goes on at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def triton_schema() -> None:
    """Skips where Triton's schema is not installed."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed; 'make integrations' tests with it")


@pytest.fixture
def triton_model(tmp_path: Path, triton_schema: None) -> WrittenModel:
    """``models/model`` of ``model.onnx``, a tiny artifact as above."""
    from hamr_edge.export.triton_repository import write_repository

    return write_repository(write_tiny_artifact(tmp_path / "model.onnx"), tmp_path / "models")


@pytest.fixture(scope="session")
def for_deepstream(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of the preset. Not to be changed."""
    from hamr_edge.export.presets import export_preset
    from tests.preset_model import artifact_of

    return export_preset(artifact_of(exported, "fp16"), tmp_path_factory.mktemp("preset"), "deepstream")[0]


@pytest.fixture
def tracker(for_deepstream: Path, tmp_path: Path) -> Path:
    """The section of a copy of it."""
    from hamr_edge.export.deepstream_config import write_tracker_config
    from hamr_edge.sidecar import sidecar_path

    for path in (for_deepstream, sidecar_path(for_deepstream)):
        shutil.copyfile(path, tmp_path / path.name)
    return write_tracker_config(tmp_path / for_deepstream.name)
