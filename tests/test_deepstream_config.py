from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from hamr_edge import InputError
from hamr_edge.errors import GateError
from hamr_edge.export.config_faults import raise_faults
from hamr_edge.export.deepstream_config import find_tracker_faults, write_tracker_config
from hamr_edge.export.exporting import Exported
from hamr_edge.sidecar import load_sidecar
from tests.artifacts import write_tiny_artifact
from tests.preset_model import artifact_of, run


def test_the_tracker_section_is_what_the_artifact_needs(tracker: Path) -> None:
    section = yaml.safe_load(tracker.read_text())["ReID"]
    sidecar = load_sidecar(tracker.parent / section["onnxFile"])
    assert section["inferDims"] == [3, 32, 16]
    assert (section["reidFeatureSize"], section["batchSize"]) == (sidecar.embedding_dim, sidecar.max_batch)
    assert (section["networkMode"], section["colorFormat"], section["inputOrder"], section["keepAspc"]) == (1, 0, 0, 0)
    assert (section["offsets"], section["netScaleFactor"], section["addFeatureNormalization"]) == ([0, 0, 0], 1, 0)
    raise_faults(find_tracker_faults(tracker), tracker)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("inferDims: [3, 32, 16]", "inferDims: [3, 256, 128]", "inferDims"),
        ("inputOrder: 0", "inputOrder: 1", "inputOrder is 1"),
        ("colorFormat: 0", "colorFormat: 1", "colorFormat"),
        ("offsets: [0.0, 0.0, 0.0]", "offsets: [123.675, 116.28, 103.53]", "offsets"),
        ("netScaleFactor: 1.0", "netScaleFactor: 0.0174", "netScaleFactor"),
        ("keepAspc: 0", "keepAspc: 1", "keepAspc"),
        ("addFeatureNormalization: 0", "addFeatureNormalization: 1", "addFeatureNormalization"),
        ("networkMode: 1", "networkMode: 2", "networkMode"),
        ("batchSize: 4", "batchSize: 100", "batchSize is 100, the artifact needs 4"),
        ("reidType: 2", "reidType: 0", "reidType"),
        ("reidType: 2", "reidType: true", "reidType"),
        ("networkMode: 1", "networkMode: true", "networkMode"),
        ("networkMode: 1", "networkMode: 1\n  tltEncodedModel: x.etlt", "tltEncodedModel names another network"),
        ("networkMode: 1", "networkMode: 0\n  networkMode: 1", "has networkMode more than once"),
        ("ReID:", "ReID:\n  onnxFile: nvidia.onnx\nReID:", "has ReID more than once"),
        ("  reidFeatureSize:", "  featureSize:", "reidFeatureSize is missing"),
        (
            "  modelEngineFile:",
            "  engineFile:",
            "modelEngineFile is missing, expected a file's name; write model.fp16",
        ),
        ("modelEngineFile: ", "modelEngineFile: []  # ", "modelEngineFile is [], expected"),
        ("modelEngineFile: ", "modelEngineFile:  # ", "modelEngineFile is None, expected"),
        ("_b4_", "_b100_", "an engine for batches of 100, batchSize is 4 and the artifact takes 4"),
        ("_b4_", "_b1_", "an engine for batches of 1, batchSize is 4"),
        ("workspaceSize: 1000", "workspaceSize: 0", "workspaceSize is 0, DeepStream takes whole numbers from 1"),
        ("reidHistorySize: 100", "reidHistorySize: 0", "reidHistorySize is 0, DeepStream takes"),
        ("reidHistorySize: 100", "reidHistorySize: true", "reidHistorySize is True, DeepStream takes"),
    ],
)
def test_an_edited_tracker_section_is_held_against_the_artifact(
    tracker: Path, old: str, new: str, message: str
) -> None:
    text = tracker.read_text()
    assert old in text
    tracker.write_text(text.replace(old, new))
    with pytest.raises(GateError, match=re.escape(message)):
        raise_faults(find_tracker_faults(tracker), tracker)
    result = run("lint", tracker)
    assert isinstance(result.exception, GateError)
    assert message in result.output


def test_a_missing_workspace_may_be_too_small(tracker: Path) -> None:
    tracker.write_text(tracker.read_text().replace("  workspaceSize:", "  # workspaceSize:"))
    raise_faults(find_tracker_faults(tracker), tracker)
    result = run("lint", tracker)
    assert result.exception is None
    assert "warning: workspaceSize at ReID (deepstream): workspaceSize is missing" in result.output
    assert "every field agrees" not in result.output


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "onnxFile is None, expected the name"),
        ("[a.onnx]", r"onnxFile is \['a.onnx'\], expected the name"),
        ('""', "onnxFile is '', expected the name"),
        ("gone.onnx", r"artifact .*gone.onnx is not there"),
    ],
)
def test_a_section_without_a_network_is_named(tracker: Path, value: str, message: str) -> None:
    tracker.write_text(re.sub("onnxFile: .*", f"onnxFile: {value}", tracker.read_text()))
    with pytest.raises(GateError, match=message):
        raise_faults(find_tracker_faults(tracker), tracker)
    assert "error: onnxFile at ReID (deepstream): " in run("lint", tracker).output


def test_an_engine_of_an_earlier_export_is_seen(tracker: Path) -> None:
    section = yaml.safe_load(tracker.read_text())["ReID"]
    artifact, engine = (tracker.parent / section[key] for key in ("onnxFile", "modelEngineFile"))
    engine.write_bytes(b"plan")
    raise_faults(find_tracker_faults(tracker), tracker)
    os.utime(engine, ns=(0, artifact.stat().st_mtime_ns - 1))
    with pytest.raises(GateError, match=r"engine is older than the artifact"):
        raise_faults(find_tracker_faults(tracker), tracker)
    before = tracker.read_text()
    tracker.write_text(before + "# mine\n")
    with pytest.raises(GateError, match="delete it") as caught:
        write_tracker_config(artifact)
    assert str(caught.value).startswith(f"{tracker} contradicts its artifact: ")
    assert tracker.read_text().endswith("# mine\n")
    assert not [path for path in tracker.parent.iterdir() if path.name.startswith(".")]


def test_an_engine_stops_an_export_before_anything_is_replaced(exported: Exported, tmp_path: Path) -> None:
    command = ("export", artifact_of(exported, "fp16"), "-o", tmp_path, "--preset", "ultralytics,deepstream")
    engine = tmp_path / "model.fp16.deepstream.onnx_b4_gpu0_fp16.engine"
    engine.write_bytes(b"plan")
    (tmp_path / "model.fp16.deepstream.onnx").write_bytes(b"the one before")
    result = run(*command)
    assert isinstance(result.exception, GateError)
    assert f"delete {engine.name}; nothing was published" in str(result.exception)
    assert (tmp_path / "model.fp16.deepstream.onnx").read_bytes() == b"the one before"
    assert len(list(tmp_path.iterdir())) == 2
    engine.unlink()
    assert run(*command).exception is None


def test_lint_lists_configurations_like_models(tracker: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(tracker.read_text().replace("keepAspc: 0", "keepAspc: 1"))
    plain = write_tiny_artifact(tmp_path / "plain.onnx")
    result = run("lint", wrong, tracker, plain, "--json", "-")
    assert isinstance(result.exception, GateError)
    assert str(result.exception) == f"lint found errors in {wrong}; mend them"
    models = {item["model"]: item["findings"] for item in json.loads(result.stdout)["models"]}
    assert list(models) == [str(wrong), str(tracker), str(plain)]
    assert models[str(tracker)] == models[str(plain)] == []
    assert models[str(wrong)] == [
        {
            "rule": "keepAspc",
            "severity": "error",
            "name": "ReID",
            "targets": ["deepstream"],
            "message": "keepAspc is 1, the artifact needs 0",
        }
    ]
    result = run("lint", wrong, tracker, plain)
    assert f"{wrong}: 1 errors, 0 warnings" in result.output
    assert f"{tracker}: every field agrees with its artifact" in result.output
    assert f"{plain}: 0 errors" in result.output


def test_the_section_may_stand_in_nvidias_file(tracker: Path) -> None:
    whole = "%YAML:1.0\nBaseConfig:\n  minDetectorConfidence: 0.2\n" + tracker.read_text().replace(
        "batchSize: 4", "batchSize: 2"
    )
    tracker.write_text(whole)
    result = run("lint", tracker)
    assert result.exception is None
    assert "every field agrees" in result.output


@pytest.mark.parametrize("text", ["BaseConfig:\n  a: 1\n", "ReID:\n  reidType: 2\n", "[1, 2", "ReID: [1]\n", "\xff"])
def test_what_is_no_tracker_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.yml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="not a tracker's configuration"):
        raise_faults(find_tracker_faults(path), path)
