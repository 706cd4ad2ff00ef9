from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from hamr_edge import Embedder, InputError, open_backend
from hamr_edge.benchmarks.tensor_ranges import inspect_ranges
from hamr_edge.errors import ArtifactError, GateError
from hamr_edge.export.exporting import Exported
from hamr_edge.export.input_head import to_float_form
from hamr_edge.export.preset_export import export_presets
from hamr_edge.export.presets import FLOAT_PRESETS, check_preset, export_preset
from hamr_edge.input_description import parse_input_description
from hamr_edge.onnx_session import open_session
from hamr_edge.sidecar import load_sidecar, sidecar_path
from tests.artifacts import write_tiny_artifact
from tests.preset_model import artifact_of, run
from tests.real_parts import TAKES, ask_rtx

CROPS = np.random.default_rng(5).integers(0, 256, (5, 32, 16, 3), np.uint8)


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


def test_the_command_makes_all_presets_of_a_file(exported: Exported, tmp_path: Path) -> None:
    result = run("export", artifact_of(exported, "fp32"), "-o", tmp_path, "--preset", "deepstream,ultralytics")
    assert result.exception is None, result.output
    made = {path.name for path in tmp_path.iterdir()}
    assert {"model.fp32.deepstream.onnx", "model.fp32.ultralytics.onnx", "model.fp32.deepstream.tracker.yml"} <= made
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
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flags",
    [
        ("--dry-run",),
        ("--batch", 4),
        ("--workspace", 64),
        ("--opt-batch", 2),
        ("--device", "cuda:0"),
        ("--min-cosine", 0.9),
        ("--unchecked",),
    ],
)
def test_a_preset_of_a_file_takes_no_flags_of_engines(
    tiny_artifact: Path, tmp_path: Path, flags: tuple[object, ...]
) -> None:
    result = run("export", tiny_artifact, "-o", tmp_path / "out", "--preset", "ultralytics", *flags)
    assert isinstance(result.exception, InputError)
    assert f"leave out {flags[0]}, or --preset" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_makes_nothing_for_a_preset(tiny_artifact: Path, tmp_path: Path) -> None:
    flags = ("--format", "engine", "--dry-run", "--preset", "ultralytics")
    assert "leave one of them out" in str(run("export", tiny_artifact, "-o", tmp_path / "out", *flags).exception)


def test_what_is_left_out_is_said_in_quiet_too(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitting, other = artifact_of(exported, "fp16"), artifact_of(exported, "int8-cpu")
    made = export_presets([other, fitting], tmp_path, ["deepstream"], None, 0, quiet=True)
    assert [path.name for path in made] == ["model.fp16.deepstream.onnx"]
    error = capsys.readouterr().err
    assert error.startswith(f"warning: left out: --preset deepstream is for fp32, fp16; {other} is int8-cpu")
    assert error.count("\n") == 1


def test_an_error_is_not_a_preset_that_does_not_fit(exported: Exported, tmp_path: Path) -> None:
    fitting, other = artifact_of(exported, "fp16"), write_tiny_artifact(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="begins with Cast, Sub"):
        export_presets([other, fitting], tmp_path, ["ultralytics"], None, 0, quiet=True)
    assert not list(tmp_path.glob("*ultralytics*"))


def test_a_checkpoint_becomes_plain_files_and_presets_at_once(checkpoint: Path, tmp_path: Path) -> None:
    result = run("export", checkpoint, "-o", tmp_path, "--batch", 4, "--preset", "ultralytics", "--quiet")
    assert result.exception is None, result.output
    assert {"model.fp32.onnx", "model.fp32.ultralytics.onnx"} <= {path.name for path in tmp_path.iterdir()}
    assert "model.fp32.ultralytics.onnx --reference" in result.output
    shutil.rmtree(tmp_path)
