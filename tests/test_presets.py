from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner, Result

from hamr_edge import Embedder, InputError, open_backend
from hamr_edge.benchmarks.tensor_ranges import inspect_ranges
from hamr_edge.cli import hamr_edge
from hamr_edge.errors import ArtifactError, GateError
from hamr_edge.export.deepstream_config import check_tracker_config, write_tracker_config
from hamr_edge.export.exporting import Exported
from hamr_edge.export.input_head import to_float_form
from hamr_edge.export.presets import FLOAT_PRESETS, check_preset, export_preset
from hamr_edge.input_description import parse_input_description
from hamr_edge.onnx_session import open_session
from hamr_edge.sidecar import load_sidecar, sidecar_path
from tests.artifacts import write_tiny_artifact
from tests.real_parts import TAKES, ask_rtx

CROPS = np.random.default_rng(5).integers(0, 256, (5, 32, 16, 3), np.uint8)


def artifact_of(exported: Exported, precision: str) -> Path:
    return next(
        path
        for path, sidecar in exported.artifacts.items()
        if (sidecar.precision, sidecar.form) == (precision, "crops")
    )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(hamr_edge, [*map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize(
    ("preset", "precision"),
    [(preset, precision) for preset, form in FLOAT_PRESETS.items() for precision in form.precisions],
)
def test_a_preset_computes_what_the_plain_artifact_does(
    exported: Exported, tmp_path: Path, preset: str, precision: str
) -> None:
    plain = artifact_of(exported, precision)
    path, sidecar, difference = export_preset(plain, tmp_path, preset)
    assert path.name == f"model.{precision}.{preset}.onnx"
    assert (sidecar.form, sidecar.precision) == ("nchw", precision)
    assert sidecar.source_sha256 == load_sidecar(plain).source_sha256
    size_hw = (32, 32) if preset == "ultralytics-square" else (32, 16)
    assert sidecar.input_size_hw == size_hw
    with open_backend(plain, "cpu") as own, open_backend(path, "cpu") as theirs:
        if size_hw == (32, 16):
            cosines = np.einsum("nd,nd->n", own.infer(CROPS), theirs.infer(CROPS))
            assert cosines.min() > 0.9999
    assert -1 <= difference.lowest <= difference.p01 <= difference.mean <= 1 + 1e-6
    assert difference.lowest > 0.9
    onnx.checker.check_model(str(path), full_check=True)
    if precision != "int8-cpu":
        assert ask_rtx(onnx.load(path)) == TAKES


def test_the_graph_takes_what_the_tool_feeds(exported: Exported, tmp_path: Path) -> None:
    """Fed by hand, without our backend: RGB planes of 0..1 and of 0..255 give one embedding."""
    plain = artifact_of(exported, "fp32")
    with open_backend(plain, "cpu") as backend:
        expected = backend.infer(CROPS)
    for preset, divisor in (("deepstream", 1), ("ultralytics", 255)):
        path, _, _ = export_preset(plain, tmp_path, preset)
        session, _ = open_session(path, "cpu", 1)
        planes = np.ascontiguousarray(CROPS[..., ::-1].transpose(0, 3, 1, 2), np.float32) / divisor
        got = session.run(["embeddings"], {"images": planes.astype(np.float32)})[0]
        np.testing.assert_allclose(got, expected, atol=1e-5)
        swapped = session.run(["embeddings"], {"images": np.ascontiguousarray(planes[:, ::-1], np.float32)})[0]
        assert np.abs(swapped - expected).max() > 1e-3  # BGR would be seen


def test_a_square_is_resized_in_the_graph(exported: Exported, tmp_path: Path) -> None:
    plain = artifact_of(exported, "fp32")
    path, _, _ = export_preset(plain, tmp_path, "ultralytics-square")
    squares = np.stack([cv2.resize(crop, (32, 32), interpolation=cv2.INTER_LINEAR) for crop in CROPS])
    back = np.stack([cv2.resize(square, (16, 32), interpolation=cv2.INTER_LINEAR) for square in squares])
    with open_backend(plain, "cpu") as own, open_backend(path, "cpu") as theirs:
        assert np.einsum("nd,nd->n", own.infer(back), theirs.infer(squares)).min() > 0.999


def test_a_preset_is_an_artifact_like_any_other(
    exported: Exported, for_deepstream: Path, tmp_path: Path, frame: np.ndarray
) -> None:
    plain, path = artifact_of(exported, "fp16"), for_deepstream
    boxes = np.array([[10, 10, 60, 100], [70, 5, 150, 110]], np.float32)
    with Embedder(plain, "cpu") as own, Embedder(path, "cpu") as theirs:
        np.testing.assert_allclose(theirs.embed(frame, boxes), own.embed(frame, boxes), atol=1e-5)
        assert theirs.embed(frame, np.empty((0, 4))).shape == (0, own.sidecar.embedding_dim)
    assert "builds its own engine" in str(run("export", path, "-o", tmp_path, "--format", "engine").exception)


def test_bench_looks_inside_a_preset(exported: Exported, tmp_path: Path) -> None:
    for path in (artifact_of(exported, "fp16"), artifact_of(exported, "int8-cpu")):
        preset, sidecar, _ = export_preset(path, tmp_path, "ultralytics")
        plain, theirs = inspect_ranges(path, load_sidecar(path), CROPS), inspect_ranges(preset, sidecar, CROPS)
        assert theirs.not_looked_at == ""
        assert theirs.crops == plain.crops == len(CROPS)
        assert theirs.quantized_tensors == plain.quantized_tensors
        assert list(theirs.failures()) == list(plain.failures())


def test_what_a_preset_cannot_be_made_of(exported: Exported, for_deepstream: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"for fp32, fp16; .* is int8"):
        export_preset(artifact_of(exported, "int8"), tmp_path, "deepstream")
    with pytest.raises(InputError, match="in the nchw form"):
        export_preset(for_deepstream, tmp_path, "ultralytics")
    with pytest.raises(InputError, match="is an engine"):
        check_preset(Path("model.fp16.engine"), load_sidecar(artifact_of(exported, "fp16")), "deepstream")
    other = write_tiny_artifact(tmp_path / "tiny.onnx")
    with pytest.raises(InputError, match=r"begins with Cast, Sub, Mul, Transpose"):
        to_float_form(onnx.load(other), 1.0, (32, 16))
    with pytest.raises(InputError, match="begins with"):
        export_preset(other, tmp_path, "deepstream")
    assert not list(tmp_path.glob("tiny.deepstream*"))


def test_a_wrong_head_is_not_published(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FLOAT_PRESETS, "deepstream", replace(FLOAT_PRESETS["ultralytics"], scale=254.0))
    with pytest.raises(GateError, match=r"cosine .* with model.fp32.onnx's"):
        export_preset(artifact_of(exported, "fp32"), tmp_path, "deepstream")
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_says_what_the_form_takes(tracker: Path) -> None:
    path = tracker.parent / "model.fp16.deepstream.onnx"
    sidecar = load_sidecar(path)
    assert parse_input_description(sidecar.input).pixel_range == "255"
    text = sidecar_path(path).read_text()
    sidecar_path(path).write_text(text.replace('"input": "rgb-float-255"', '"input": ""'))
    with pytest.raises(ArtifactError, match="input goes with the form nchw"):
        load_sidecar(path)


@pytest.fixture(scope="module")
def for_deepstream(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of the preset. Not to be changed."""
    return export_preset(artifact_of(exported, "fp16"), tmp_path_factory.mktemp("preset"), "deepstream")[0]


@pytest.fixture
def tracker(for_deepstream: Path, tmp_path: Path) -> Path:
    for path in (for_deepstream, sidecar_path(for_deepstream)):
        shutil.copyfile(path, tmp_path / path.name)
    return write_tracker_config(tmp_path / for_deepstream.name)


def test_the_tracker_section_is_what_the_artifact_needs(tracker: Path) -> None:
    section = yaml.safe_load(tracker.read_text())["ReID"]
    sidecar = load_sidecar(tracker.parent / section["onnxFile"])
    assert section["inferDims"] == [3, 32, 16]
    assert (section["reidFeatureSize"], section["batchSize"]) == (sidecar.embedding_dim, sidecar.max_batch)
    assert (section["networkMode"], section["colorFormat"], section["inputOrder"], section["keepAspc"]) == (1, 0, 0, 0)
    assert (section["offsets"], section["netScaleFactor"], section["addFeatureNormalization"]) == ([0, 0, 0], 1, 0)
    check_tracker_config(tracker)


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
    ],
)
def test_an_edited_tracker_section_is_held_against_the_artifact(
    tracker: Path, old: str, new: str, message: str
) -> None:
    text = tracker.read_text()
    assert old in text
    tracker.write_text(text.replace(old, new))
    result = run("lint", tracker)
    assert isinstance(result.exception, GateError)
    assert message in str(result.exception)


def test_an_engine_of_an_earlier_export_is_seen(tracker: Path) -> None:
    section = yaml.safe_load(tracker.read_text())["ReID"]
    artifact, engine = (tracker.parent / section[key] for key in ("onnxFile", "modelEngineFile"))
    engine.write_bytes(b"plan")
    check_tracker_config(tracker)
    os.utime(engine, ns=(0, artifact.stat().st_mtime_ns - 1))
    with pytest.raises(GateError, match=r"engine is older than the artifact"):
        check_tracker_config(tracker)
    before = tracker.read_text()
    tracker.write_text(before + "# mine\n")
    with pytest.raises(GateError, match="delete it"):
        write_tracker_config(artifact)
    assert tracker.read_text().endswith("# mine\n")
    assert not [path for path in tracker.parent.iterdir() if path.name.startswith(".")]


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
        check_tracker_config(path)


def test_the_command_makes_all_presets_of_a_file(exported: Exported, tmp_path: Path) -> None:
    result = run("export", artifact_of(exported, "fp32"), "-o", tmp_path, "--preset", "deepstream,ultralytics,triton")
    assert result.exception is None, result.output
    made = {path.name for path in tmp_path.iterdir()}
    assert {"model.fp32.deepstream.onnx", "model.fp32.ultralytics.onnx", "model.fp32.deepstream.tracker.yml"} <= made
    assert (tmp_path / "triton" / "model_fp32" / "config.pbtxt").is_file()
    assert result.output.count("lowest cosine") == 2
    assert "a stand-in for DeepStream's own resizing: bilinear, unrounded (32 crops)" in result.output
    assert "as ultralytics resizes: bilinear, unrounded (32 crops)" in result.output
    resize = load_sidecar(tmp_path / "model.fp32.ultralytics.onnx").parity["resize"]
    assert resize["crops"] == 32
    assert f"lowest {resize['lowest']:.5f}" in result.output


def test_presets_that_do_not_fit_are_said(exported: Exported, tmp_path: Path) -> None:
    result = run("export", artifact_of(exported, "int8-cpu"), "-o", tmp_path, "--preset", "deepstream")
    assert "fits nothing that was made" in str(result.exception)
    result = run("export", artifact_of(exported, "fp32"), "-o", tmp_path, "--preset", "openvino")
    assert "preset must be of deepstream" in str(result.exception)
    result = run("export", artifact_of(exported, "fp32"), "-o", tmp_path, "--preset", "triton", "--precision", "fp16")
    assert "--precision" in str(result.exception)


def test_a_checkpoint_becomes_plain_files_and_presets_at_once(checkpoint: Path, tmp_path: Path) -> None:
    result = run("export", checkpoint, "-o", tmp_path, "--batch", 4, "--preset", "ultralytics", "--quiet")
    assert result.exception is None, result.output
    assert {"model.fp32.onnx", "model.fp32.ultralytics.onnx"} <= {path.name for path in tmp_path.iterdir()}
    assert "model.fp32.ultralytics.onnx --reference" in result.output
    shutil.rmtree(tmp_path)
