from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from hamr_edge.backend import open_backend
from hamr_edge.errors import ArtifactError, GateError, InputError
from hamr_edge.export.command import export as export_command
from hamr_edge.export.config import ExportConfig
from hamr_edge.export.deploy_graph import DeployNetwork
from hamr_edge.export.exporting import export_checkpoint
from hamr_edge.export.onnx_export import export_onnx
from hamr_edge.export.publish import SourceEmbeddings, check_rows, publish
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import load_sidecar
from hamr_edge.trainer.augment import normalise
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.synthetic import random_crops
from tests.artifacts import INPUT_SIZE_HW, write_tiny_artifact
from tests.test_network import small_network
from tests.variants import repeat_fourth_row, scale_rows, write_variant


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("build")
    (path,) = export_checkpoint(checkpoint, output, ExportConfig(max_batch=9)).artifacts
    return path


def test_folding_changes_nothing() -> None:
    network = small_network().float().eval()
    images = torch.randint(0, 256, (4, 96, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(DeployNetwork(network)(images), network.embed(normalise(images)), rtol=0, atol=1e-5)


def test_the_graph_is_the_published_form(exported: Path) -> None:
    model = onnx.load(exported)
    (images,), (embeddings,) = model.graph.input, model.graph.output
    sidecar = load_sidecar(exported)
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == TensorProto.UINT8
    assert images.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [d.dim_value for d in images.type.tensor_type.shape.dim[1:]] == [*sidecar.input_size_hw, 3]
    assert embeddings.name == "embeddings"
    assert embeddings.type.tensor_type.elem_type == TensorProto.FLOAT
    assert embeddings.type.tensor_type.shape.dim[1].dim_value == sidecar.embedding_dim
    assert model.ir_version <= 10
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    kinds = {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in kinds
    assert not kinds & {"Shape", "Loop", "If", "Einsum"}
    consumers = [node.op_type for node in model.graph.node if "images" in node.input]
    assert consumers == ["Cast"]


def test_no_path_of_the_exporting_machine_is_in_the_file(exported: Path) -> None:
    model = onnx.load(exported)
    del model.graph.initializer[:]  # their bytes may spell anything
    words = model.SerializeToString()
    assert str(Path(__file__).parent.parent).encode() not in words
    assert b".py" not in words


def test_the_sidecar_says_what_is_known(exported: Path, checkpoint: Path) -> None:
    sidecar = load_sidecar(exported)
    with open_backend(checkpoint, "cpu") as reference:
        assert sidecar.source_sha256 == reference.sidecar.artifact_sha256
        assert sidecar.network == reference.sidecar.network
    assert sidecar.max_batch == 9
    assert sidecar.precision == "fp32"
    assert sidecar.color_order == "BGR"
    assert sidecar.mean == (0.406, 0.456, 0.485)
    assert sidecar.std == (0.225, 0.224, 0.229)
    assert sidecar.parity["batch_sizes"] == [1, 2, 7, 9]
    assert sidecar.parity["min_cosine"] >= 0.99999


def test_artifact_equals_the_checkpoint_at_any_batch(exported: Path, checkpoint: Path) -> None:
    with open_backend(exported, "cpu") as artifact, open_backend(checkpoint, "cpu") as reference:
        height, width = artifact.sidecar.input_size_hw
        batch = np.random.default_rng(3).integers(0, 256, (20, height, width, 3), np.uint8)
        for count in (0, 1, 3, 9, 10, 20):
            np.testing.assert_allclose(artifact.infer(batch[:count]), reference.infer(batch[:count]), atol=1e-5)


def test_external_data_is_bound_by_the_sidecar(checkpoint: Path, tmp_path: Path) -> None:
    network, _, _ = load_checkpoint(checkpoint)
    with open_backend(checkpoint, "cpu") as reference:
        sidecar = replace(reference.sidecar, max_batch=8)
        crops = stack_crops(random_crops(8, seed=0), sidecar.input_size_hw)
        embeddings = reference.infer(crops)
    source = SourceEmbeddings(crops, tuple("abcdefgh"), embeddings)
    path = tmp_path / "model.fp32.onnx"
    publish(path, sidecar, lambda file: export_onnx(network, file, 8, external_above=0), source, 0.99999)
    data = tmp_path / "model.fp32.onnx.data"
    assert data.exists()
    with open_backend(path, "cpu") as backend:
        np.testing.assert_allclose(backend.infer(crops), embeddings, atol=1e-4)
    broken = bytearray(data.read_bytes())
    broken[0] ^= 1
    data.write_bytes(broken)
    with pytest.raises(ArtifactError, match=r"not of this model\.fp32\.onnx\.data"):
        load_sidecar(path)
    data.unlink()
    with pytest.raises(ArtifactError, match="which is not there"):
        load_sidecar(path)


def write_row_mixing_artifact(path: Path) -> None:
    """The tiny artifact, with each row pulled towards the batch's mean: right at batch 1 only."""
    write_tiny_artifact(path)
    model = onnx.load(path)
    normalise_node = model.graph.node.pop()
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.05), "share"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "rows"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["product", "rows"], ["batch_mean"], keepdims=1),
            helper.make_node("Mul", ["batch_mean", "share"], ["pull"]),
            helper.make_node("Add", ["product", "pull"], ["mixed"]),
        ]
    )
    normalise_node.input[0] = "mixed"
    model.graph.node.append(normalise_node)
    onnx.save(model, path)


def tiny_source(tmp_path: Path) -> SourceEmbeddings:
    reference = write_tiny_artifact(tmp_path / "reference.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (16, *INPUT_SIZE_HW, 3), np.uint8)
    crops[::2] //= 2
    with open_backend(reference, "cpu") as backend:
        return SourceEmbeddings(crops, tuple(f"crop {i}" for i in range(16)), backend.infer(crops))


def test_a_graph_that_mixes_rows_is_caught_and_not_published(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    sidecar = load_sidecar(tmp_path / "reference.onnx")
    path = tmp_path / "build" / "model.fp32.onnx"
    with pytest.raises(GateError, match=r"at batch [127], the embedding of crop \d+ has cosine"):
        publish(path, sidecar, write_row_mixing_artifact, source, 0.99999)
    assert list(path.parent.iterdir()) == []


def test_a_failed_export_leaves_the_old_artifact(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    sidecar = load_sidecar(tmp_path / "reference.onnx")
    path = tmp_path / "model.fp32.onnx"
    publish(path, sidecar, write_tiny_artifact, source, 0.99999)
    before = load_sidecar(path)
    with pytest.raises(GateError):
        publish(path, sidecar, lambda file: write_tiny_artifact(file, seed=9), source, 0.99999)
    assert load_sidecar(path) == before
    assert before.parity["batch_sizes"] == [1, 2, 7, 8]


def test_rows_that_cannot_be_told_apart_fail_the_check(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    same = replace(source, crops=source.crops[:1].repeat(16, 0), embeddings=source.embeddings[:1].repeat(16, 0))
    with (
        open_backend(tmp_path / "reference.onnx", "cpu") as backend,
        pytest.raises(GateError, match="the same embedding, so mixed rows could not be seen"),
    ):
        check_rows(backend, same, 0.99999)


def test_nan_and_norms_fail_the_check(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    broken = tmp_path / "broken.onnx"

    def write(file: Path) -> None:
        write_tiny_artifact(file)
        model = onnx.load(file)
        weight = next(item for item in model.graph.initializer if item.name == "weight")
        values = numpy_helper.to_array(weight).copy()
        values[0, 0] = np.nan
        weight.CopyFrom(numpy_helper.from_array(values, "weight"))
        onnx.save(model, file)

    with pytest.raises(GateError, match="has norm nan, expected 1"):
        publish(broken, load_sidecar(tmp_path / "reference.onnx"), write, source, 0.99999)
    assert not broken.exists()


def test_rows_that_are_not_unit_fail_the_check(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    path = tmp_path / "build" / "long.onnx"

    def write(file: Path) -> None:
        plain = write_tiny_artifact(file.with_name("plain.onnx"))
        write_variant(plain, file, lambda model: scale_rows(model, 1.01))

    with pytest.raises(GateError, match=r"has norm 1\.01, expected 1"):
        publish(path, load_sidecar(tmp_path / "reference.onnx"), write, source, 0.5)
    assert list(path.parent.iterdir()) == []


def test_a_small_gallery_is_repeated_to_fill_the_largest_batch(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    few = SourceEmbeddings(source.crops[:3], source.names[:3], source.embeddings[:3])

    def write(file: Path) -> None:
        plain = write_tiny_artifact(file.with_name("plain.onnx"))
        write_variant(plain, file, repeat_fourth_row)

    with pytest.raises(GateError, match=r"at batch 7, the embedding of crop"):
        publish(tmp_path / "model.onnx", load_sidecar(tmp_path / "reference.onnx"), write, few, 0.99999)


def test_a_folder_that_cannot_be_made_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"output folder .*file cannot be made"):
        export_checkpoint(checkpoint, tmp_path / "file", ExportConfig())


def test_real_crops_are_used_when_there_are_data(checkpoint: Path, synthetic_dataset: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        export_command, [str(checkpoint), "-o", str(tmp_path), "--data", str(synthetic_dataset), "--batch", "4"]
    )
    assert result.exit_code == 0, result.output
    assert "batches 1, 2, 4: cosine with PyTorch at least" in result.stdout
    assert "next: hamr-edge bench" in result.stdout
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["model.fp32.onnx", "model.fp32.onnx.json"]
    assert json.loads((tmp_path / "model.fp32.onnx.json").read_text())["max_batch"] == 4
    assert json.loads((tmp_path / "model.fp32.onnx.json").read_text())["form"] == "crops"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precisions": ("fp17",)}, "fp17"),
        ({"max_batch": 0}, "got 0"),
        ({"min_cosine": 2.0}, "got 2.0"),
        ({"seed": -1}, "got -1"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExportConfig(**settings)  # type: ignore[arg-type]
