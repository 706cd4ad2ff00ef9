from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder, InputError
from hamr_edge.errors import ArtifactError, GateError
from hamr_edge.export.triton_repository import check_model, format_config, write_repository
from hamr_edge.sidecar import load_sidecar, sidecar_path, write_sidecar
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact


@pytest.fixture
def schema() -> None:
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed; 'make integrations' tests with it")


def test_a_model_lies_where_triton_looks(tmp_path: Path, frame: np.ndarray) -> None:
    artifact = write_tiny_artifact(tmp_path / "model.fp32.onnx")
    written = write_repository(artifact, tmp_path / "models")
    assert (written.folder, written.version) == (tmp_path / "models" / "model_fp32", 1)
    found = sorted(str(path.relative_to(tmp_path / "models")) for path in (tmp_path / "models").rglob("*"))
    assert found == [
        "model_fp32",
        "model_fp32/1",
        "model_fp32/1/model.onnx",
        "model_fp32/1/model.onnx.json",
        "model_fp32/config.pbtxt",
    ]
    box = [[10, 10, 60, 100]]
    with Embedder(artifact, "cpu") as plain, Embedder(written.folder / "1" / "model.onnx", "cpu") as served:
        np.testing.assert_array_equal(served.embed(frame, box), plain.embed(frame, box))


def test_the_same_model_again_is_its_next_version(tmp_path: Path) -> None:
    models = tmp_path / "models"
    first, second = (write_tiny_artifact(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1))
    write_repository(first, models, name="people")
    (models / "people" / "007").mkdir()  # Triton ignores it
    written = write_repository(second, models, name="people")
    assert written.version == 2
    assert (models / "people" / "2" / "model.onnx").read_bytes() == second.read_bytes()
    assert load_sidecar(second).artifact_sha256 in (models / "people" / "config.pbtxt").read_text()
    assert sorted(path.name for path in models.iterdir()) == ["people"]


def test_another_model_of_the_same_name_is_refused(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_repository(write_tiny_artifact(tmp_path / "a.onnx"), models, name="people")
    before = (models / "people" / "config.pbtxt").read_text()
    with pytest.raises(InputError, match="another configuration"):
        write_repository(write_tiny_artifact(tmp_path / "b.onnx", max_batch=4), models, name="people")
    assert (models / "people" / "config.pbtxt").read_text() == before
    assert sorted(path.name for path in models.iterdir()) == ["people"]


def test_what_triton_cannot_serve_is_refused(tmp_path: Path) -> None:
    frame_form = write_tiny_frame_artifact(tmp_path / "f.onnx")
    artifact = write_tiny_artifact(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="frame form"):
        write_repository(frame_form, tmp_path / "models")
    with pytest.raises(InputError, match="letters, digits"):
        write_repository(artifact, tmp_path / "models", name="a/b")
    with pytest.raises(InputError, match="queue_delay_us"):
        write_repository(artifact, tmp_path / "models", queue_delay_us=-1)
    with pytest.raises(ArtifactError):
        write_repository(tmp_path / "gone.onnx", tmp_path / "models")
    write_sidecar(replace(load_sidecar(artifact), precision="int8"), sidecar_path(artifact))
    with pytest.raises(InputError, match=r"--format engine.*int8-cpu"):
        write_repository(artifact, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_triton_reads_every_field(tmp_path: Path, schema: None) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    artifact = write_tiny_artifact(tmp_path / "model.onnx", max_batch=32)
    written = write_repository(artifact, tmp_path / "models", queue_delay_us=2500)
    assert written.is_checked
    config = text_format.Parse((written.folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("model", "onnxruntime_onnx", 32)
    assert list(config.input[0].dims) == [32, 16, 3]
    assert config.input[0].data_type == model_config_pb2.TYPE_UINT8
    assert list(config.output[0].dims) == [12]
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2500
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 32]
    assert config.parameters["hamr_edge.artifact_sha256"].string_value == load_sidecar(artifact).artifact_sha256


@pytest.mark.parametrize(
    ("suffix", "precision", "platform", "kind"),
    [
        (".engine", "int8", "tensorrt_plan", "KIND_GPU"),
        (".onnx", "int8-cpu", "onnxruntime_onnx", "KIND_CPU"),
        (".onnx", "fp16", "onnxruntime_onnx", "KIND_AUTO"),
    ],
)
def test_what_runs_it_follows_from_the_artifact(
    tiny_artifact: Path, suffix: str, precision: str, platform: str, kind: str
) -> None:
    sidecar = replace(load_sidecar(tiny_artifact), precision=precision)
    config = format_config(Path(f"m{suffix}"), sidecar, "m", 0)
    assert f'platform: "{platform}"' in config
    assert f"kind: {kind}" in config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("TYPE_UINT8 dims: [ 32, 16, 3 ] }", "TYPE_FP32 dims: [ 32, 16, 3 ] }", "input is"),
        ("dims: [ 32, 16, 3 ] }", "dims: [ 3, 32, 16 ] }", "input is"),
        ("dims: [ 12 ]", "dims: [ 512 ]", "output is"),
        ('name: "embeddings"', 'name: "output"', "output is"),
        ("max_batch_size: 8", "max_batch_size: 64", "max_batch_size is 64"),
        ("preferred_batch_size: [ 2, 4, 8 ]", "preferred_batch_size: [ 16 ]", "preferred_batch_size above"),
        ("onnxruntime_onnx", "tensorrt_plan", "platform"),
        ('name: "model"', 'name: "people"', "name is"),
        ("max_batch_size", "max_batch", "Triton's schema"),
        ("dims: [ 32, 16, 3 ] random_data", "dims: [ 1, 32, 16, 3 ] random_data", "model_warmup"),
        ("artifact_sha256", "sha256", "artifact_sha256"),
    ],
)
def test_an_edited_configuration_is_held_against_the_artifact(
    tmp_path: Path, schema: None, old: str, new: str, message: str
) -> None:
    written = write_repository(write_tiny_artifact(tmp_path / "model.onnx"), tmp_path / "models")
    path = written.folder / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(GateError, match=message):
        check_model(written.folder)


def test_a_graph_that_its_sidecar_misstates_is_not_published(tmp_path: Path, schema: None) -> None:
    artifact = write_tiny_artifact(tmp_path / "model.onnx")
    write_sidecar(replace(load_sidecar(artifact), embedding_dim=13), sidecar_path(artifact))
    with pytest.raises(GateError, match="the graph's outputs"):
        write_repository(artifact, tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_without_a_model_is_an_error(tmp_path: Path, schema: None) -> None:
    written = write_repository(write_tiny_artifact(tmp_path / "model.onnx"), tmp_path / "models")
    shutil.rmtree(written.folder / "1")
    with pytest.raises(ArtifactError, match=r"holds no model.onnx"):
        check_model(written.folder)
