from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hamr_edge import Embedder, InputError
from hamr_edge.errors import ArtifactError, GateError, UnavailableError
from hamr_edge.export.preset_export import export_presets
from hamr_edge.export.triton_repository import WrittenModel, check_model, choose_name, write_repository
from hamr_edge.sidecar import load_sidecar, sidecar_path, write_sidecar
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact
from tests.preset_model import run
from tests.triton_model import edit


def test_a_model_lies_where_triton_looks(tmp_path: Path, frame: np.ndarray, triton_schema: None) -> None:
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


def test_the_same_model_again_is_its_next_version(tmp_path: Path, triton_schema: None) -> None:
    models = tmp_path / "models"
    first, second = (write_tiny_artifact(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1))
    write_repository(first, models, name="people")
    (models / "people" / "007").mkdir()  # Triton ignores it
    written = write_repository(second, models, name="people")
    assert written.version == 2
    assert (models / "people" / "2" / "model.onnx").read_bytes() == second.read_bytes()
    assert load_sidecar(second).artifact_sha256 in (models / "people" / "config.pbtxt").read_text()
    assert sorted(path.name for path in models.iterdir()) == ["people"]


def test_another_model_of_the_same_name_is_refused(tmp_path: Path, triton_schema: None) -> None:
    models = tmp_path / "models"
    write_repository(write_tiny_artifact(tmp_path / "a.onnx"), models, name="people")
    before = (models / "people" / "config.pbtxt").read_text()
    with pytest.raises(InputError, match="is another model: max_batch_size is 8, the artifact takes 1 to 4"):
        write_repository(write_tiny_artifact(tmp_path / "b.onnx", max_batch=4), models, name="people")
    assert (models / "people" / "config.pbtxt").read_text() == before
    assert sorted(path.name for path in models.iterdir()) == ["people"]


def test_what_triton_cannot_serve_is_refused(tmp_path: Path, triton_schema: None) -> None:
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


def test_the_same_artifact_again_is_no_new_version(tmp_path: Path, triton_model: WrittenModel) -> None:
    edit(triton_model, "count: 1", "count: 2")
    again = write_repository(tmp_path / "model.onnx", tmp_path / "models")
    assert (again.version, again.is_new, again.keeps_config) == (1, False, True)
    assert sorted(path.name for path in triton_model.folder.iterdir()) == ["1", "config.pbtxt"]
    result = run("export", tmp_path / "model.onnx", "-o", tmp_path / "out", "--preset", "triton")
    assert "version 1; every field agrees" in result.output
    result = run("export", tmp_path / "model.onnx", "-o", tmp_path / "out", "--preset", "triton", "--quiet")
    assert "version 1; is model.onnx already: no new version" in result.output


def test_a_version_that_was_taken_away_leaves_no_stamp(tmp_path: Path, triton_model: WrittenModel) -> None:
    first = (tmp_path / "model.onnx").rename(tmp_path / "first.onnx")
    sidecar_path(tmp_path / "model.onnx").rename(sidecar_path(first))
    write_repository(write_tiny_artifact(tmp_path / "model.onnx", seed=1), tmp_path / "models")
    shutil.rmtree(triton_model.folder / "2")
    with pytest.raises(GateError, match="artifact_sha256"):
        check_model(triton_model.folder)
    assert not write_repository(first, tmp_path / "models", name="model").is_new
    check_model(triton_model.folder)


def test_a_policy_that_leaves_the_new_version_out_is_named(tmp_path: Path, triton_model: WrittenModel) -> None:
    edit(triton_model, "\nmax_batch", "\nversion_policy { specific { versions: 1 } }\nmax_batch")
    second = write_tiny_artifact(tmp_path / "model.onnx", seed=1)
    with pytest.raises(InputError, match="would not serve version 2"):
        write_repository(second, tmp_path / "models")
    edit(triton_model, "versions: 1", "versions: [ 1, 2 ]")
    assert write_repository(second, tmp_path / "models").version == 2


def test_an_edited_file_name_is_that_of_the_next_version(tmp_path: Path, triton_model: WrittenModel) -> None:
    for name in ("model.onnx", "model.onnx.json"):
        (triton_model.folder / "1" / name).rename(triton_model.folder / "1" / name.replace("model", "people"))
    edit(triton_model, "\nmax_batch", '\ndefault_model_filename: "people.onnx"\nmax_batch')
    check_model(triton_model.folder)
    write_repository(write_tiny_artifact(tmp_path / "model.onnx", seed=1), tmp_path / "models")
    assert {path.name for path in (triton_model.folder / "2").iterdir()} == {"people.onnx", "people.onnx.json"}


def test_a_fault_in_an_edited_configuration_stops_the_next_version(tmp_path: Path, triton_model: WrittenModel) -> None:
    edit(triton_model, 'key: "images"', 'key: "imgs"')
    with pytest.raises(GateError, match="feeds") as caught:
        write_repository(write_tiny_artifact(tmp_path / "model.onnx", seed=1), tmp_path / "models")
    assert str(triton_model.folder / "config.pbtxt") in str(caught.value)
    assert sorted(path.name for path in triton_model.folder.iterdir()) == ["1", "config.pbtxt"]


def test_a_configuration_that_is_no_text_is_an_input_error(tmp_path: Path, triton_model: WrittenModel) -> None:
    path = triton_model.folder / "config.pbtxt"
    path.write_bytes(path.read_bytes() + b"# \xff")
    with pytest.raises(InputError, match="is not UTF-8"):
        check_model(triton_model.folder)
    with pytest.raises(InputError, match="is not UTF-8"):
        write_repository(tmp_path / "model.onnx", tmp_path / "models")
    path.unlink()
    with pytest.raises(InputError, match=r"has no config.pbtxt"):
        write_repository(tmp_path / "model.onnx", tmp_path / "models")


def test_a_name_that_triton_does_not_take_says_what_to_rename(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rename modèle.onnx and its sidecar modèle.onnx.json"):
        choose_name(tmp_path / "modèle.onnx")


def test_only_what_does_not_fit_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], triton_schema: None
) -> None:
    plain, frames = write_tiny_artifact(tmp_path / "a.onnx"), write_tiny_frame_artifact(tmp_path / "f.onnx")
    export_presets([plain, frames], tmp_path, ["triton"], None, 0, True)
    assert f"warning: left out: {frames} is in the frame form" in capsys.readouterr().err
    accented = write_tiny_artifact(tmp_path / "modèle.onnx")
    with pytest.raises(InputError, match="rename mod"):
        export_presets([plain, accented], tmp_path / "other", ["triton"], None, 0, True)
    assert not (tmp_path / "other").exists()
    write_tiny_artifact(plain, max_batch=4)
    with pytest.raises(InputError, match="is another model"):
        export_presets([plain, frames], tmp_path, ["triton"], None, 0, True)


@pytest.mark.parametrize("fault", ["missing", "without gRPC"])
def test_without_tritonclient_nothing_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    artifact = write_tiny_artifact(tmp_path / "model.onnx")
    for name in [name for name in sys.modules if name.split(".")[0] == "tritonclient"]:
        monkeypatch.delitem(sys.modules, name)
    if fault == "missing":
        monkeypatch.setitem(sys.modules, "tritonclient", None)
    else:
        (tmp_path / "double").mkdir()
        (tmp_path / "double" / "grpc.py").write_text("raise RuntimeError('pip install tritonclient[grpc]')")
        double = ModuleType("tritonclient")
        double.__path__ = [str(tmp_path / "double")]
        monkeypatch.setitem(sys.modules, "tritonclient", double)
    (tmp_path / "edited").mkdir()
    (tmp_path / "edited" / "config.pbtxt").touch()
    commands = [
        ("export", artifact, "-o", tmp_path / "out", "--preset", "triton"),
        ("export", tmp_path / "no-run", "-o", tmp_path / "out", "--preset", "ultralytics,triton"),
        ("lint", tmp_path / "edited"),
    ]
    for command in commands:
        error = run(*command).exception
        assert isinstance(error, UnavailableError)
        assert "pip install 'hamr-edge[triton]'" in str(error)
    with pytest.raises(UnavailableError):
        write_repository(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_graph_that_its_sidecar_misstates_is_not_published(tmp_path: Path, triton_schema: None) -> None:
    artifact = write_tiny_artifact(tmp_path / "model.onnx")
    write_sidecar(replace(load_sidecar(artifact), embedding_dim=13), sidecar_path(artifact))
    with pytest.raises(GateError, match="the graph's outputs"):
        write_repository(artifact, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_folder_without_a_model_is_an_error(tmp_path: Path, triton_schema: None) -> None:
    written = write_repository(write_tiny_artifact(tmp_path / "model.onnx"), tmp_path / "models")
    shutil.rmtree(written.folder / "1")
    with pytest.raises(ArtifactError, match=r"holds no model.onnx"):
        check_model(written.folder)
