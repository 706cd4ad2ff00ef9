"""Engines published: built by NVIDIA's own builder, run on a double that computes by the ONNX they were built from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hamr_edge.backend import open_backend
from hamr_edge.engine_record import TENSORRT_RTX
from hamr_edge.errors import ArtifactError, GateError, InputError, UnavailableError
from hamr_edge.export import engine_export
from hamr_edge.export.command import export as export_command
from hamr_edge.export.engine_export import EngineConfig, export_engine, inspect_engine
from hamr_edge.export.engine_options import EngineOptions
from hamr_edge.export.exporting import Exported
from hamr_edge.sidecar import hash_file, load_sidecar, sidecar_path, write_sidecar
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact
from tests.gpu_double import Machine
from tests.gpu_install import gpu_doubles
from tests.nvidia_builder import nvidia_builder

BUILT_FROM_ANOTHER = "another.onnx"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine whose TensorRT for RTX builds with the real library and runs on the double.

    Where ``another.onnx`` lies beside the ONNX, the plan computes by that one: a builder that got it wrong.
    """
    trt = nvidia_builder()
    build = engine_export.build_engine

    def build_and_tell(library: Any, model: Path, *args: Any, **options: Any) -> Any:
        built = build(library, model, *args, **{**options, "device": None})
        another = model.with_name(BUILT_FROM_ANOTHER)
        machine.register_plan(built.plan, another if another.exists() else model, built.profile)
        return built

    with gpu_doubles(monkeypatch, TENSORRT_RTX, tensorrt_version=trt.__version__) as machine:
        monkeypatch.setattr(engine_export, "import_tensorrt", lambda: trt)
        monkeypatch.setattr(engine_export, "build_engine", build_and_tell)
        yield machine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_artifact(tmp_path / "model.fp32.onnx")


@pytest.mark.parametrize("form", ["crops", "frame"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_precision_and_form_is_built_checked_and_published(
    precision: str, form: str, exported: Exported, tmp_path: Path, gpu: Machine
) -> None:
    (model,) = (path for path, made in exported.artifacts.items() if (made.precision, made.form) == (precision, form))
    path, published = export_engine(model, tmp_path, EngineConfig(max_batch=5))
    source = load_sidecar(model)
    assert path == tmp_path / model.with_suffix(".engine").name
    assert sorted(tmp_path.iterdir()) == sorted([path, sidecar_path(path)])
    assert load_sidecar(path) == published
    assert (published.precision, published.form, published.max_batch) == (precision, form, 5)
    assert published.source_sha256 == hash_file(model)
    assert published.parity["min_cosine"] > 0.9999
    assert published.parity["batch_sizes"] == [1, 2, 5]
    record = published.engine
    assert record is not None
    assert (record.flavour, record.version) == (TENSORRT_RTX, gpu.options.tensorrt_version)
    assert record.checkpoint_sha256 == source.source_sha256
    assert (record.source, record.options) == (model.name, ("--batch", "5"))
    assert record.details["layers"] > 10
    assert path.stat().st_size > 10_000
    assert gpu.runs, "it was not run before it was published"
    with open_backend(path) as backend, open_backend(model, "cpu") as reference:
        crops = np.random.default_rng(0).integers(0, 256, (7, *source.input_size_hw, 3), np.uint8)
        np.testing.assert_allclose(backend.infer(crops), reference.infer(crops), atol=1e-5)


def test_an_engine_that_computes_otherwise_is_not_published(model: Path, gpu: Machine) -> None:
    old = model.with_suffix(".engine")
    old.write_bytes(b"from before")
    write_tiny_artifact(model.with_name(BUILT_FROM_ANOTHER), seed=1)
    with pytest.raises(GateError, match=r"has cosine .* with the \.onnx's, expected at least 0\.9999.*nothing was"):
        export_engine(model, model.parent, EngineConfig())
    assert old.read_bytes() == b"from before"
    assert not sidecar_path(old).exists()


@pytest.mark.parametrize(
    ("config", "precision", "least"),
    [
        (EngineConfig(), "fp32", 0.9999),
        (EngineConfig(), "fp16", 0.999),
        (EngineConfig(), "int8", 0.98),
        (EngineConfig(EngineOptions(tf32=True)), "fp32", 0.999),
        (EngineConfig(min_cosine=0.9), "int8", 0.9),
    ],
)
def test_how_well_an_engine_must_agree(config: EngineConfig, precision: str, least: float) -> None:
    assert config.least_cosine(precision) == least


def test_without_a_gpu_nothing_is_published_unless_it_may_be_unchecked(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_builder()
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    config = EngineConfig()
    with pytest.raises(UnavailableError, match=r"copy the \.onnx and its sidecar there.*add --unchecked"):
        export_engine(model, model.parent, config)
    assert not model.with_suffix(".engine").exists()
    path, published = export_engine(model, model.parent, replace(config, unchecked=True))
    assert published.parity == {"unchecked": "there is no GPU here"}
    assert published.engine is not None
    assert published.engine.compute_capability == "8.0+"
    assert load_sidecar(path) == published
    with pytest.raises(UnavailableError, match="PyCUDA"):
        export_engine(model, model.parent, replace(config, unchecked=True, device="cuda:0"))


def test_where_it_could_be_checked_unchecked_is_still_what_was_asked_for(model: Path, gpu: Machine) -> None:
    _, published = export_engine(model, model.parent, EngineConfig(unchecked=True))
    assert published.parity == {"unchecked": "as was asked for by --unchecked"}
    assert gpu.runs == []


def test_the_options_are_in_the_command_that_builds_it_again(model: Path, gpu: Machine) -> None:
    from hamr_edge.engine_record import rebuild_command

    options = EngineOptions(opt_batch=2, workspace_mib=64, optimization_level=1, tf32=True)
    path, published = export_engine(model, model.parent, EngineConfig(options, max_batch=4))
    assert rebuild_command(path, published.engine) == (
        f"hamr-edge export {model} -o {model.parent} --format engine --batch 4 --opt-batch 2 --workspace 64 "
        "--optimization-level 1 --tf32"
    )
    assert published.engine is not None
    assert published.engine.profile["images"][1][0] == 2


def test_what_no_engine_is_built_from_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"built from an \.onnx file of 'hamr-edge export', got .*model"):
        export_engine(tmp_path / "model", tmp_path, EngineConfig())
    with pytest.raises(ArtifactError, match="is not there"):
        inspect_engine(tmp_path / "none.onnx", EngineConfig())
    write_sidecar(replace(load_sidecar(model), precision="int8-cpu"), sidecar_path(model))
    with pytest.raises(InputError, match="engines are built from fp32, fp16, int8, got int8-cpu"):
        export_engine(model, tmp_path, EngineConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_cosine": 1.0}, "min_cosine must be between 0 and 1"),
        ({"device": "cpu"}, "must be auto or cuda:N, got cpu"),
        ({"max_batch": 0}, r"max_batch must be in 1\.\.1024"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EngineConfig(**wrong)


def _run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(export_command, [str(word) for word in words])
    failed = isinstance(result.exception, InputError | UnavailableError)
    return result.exit_code, str(result.exception) if failed else result.output


def test_dry_run_builds_nothing(tmp_path: Path) -> None:
    nvidia_builder()
    model = write_tiny_frame_artifact(tmp_path / "model.fp32.frame.onnx")
    code, output = _run(model, "-o", tmp_path / "build", "--dry-run", "--opt-batch", 3)
    assert code == 0, output
    for words in ("uint8 (-1, -1, 3)", "(480, 640, 3), (1080, 1920, 3), (2160, 3840, 3)", "(1, 4), (3, 4), (8, 4)"):
        assert words in output
    assert "would build it" in output
    assert not (tmp_path / "build").exists()


def test_a_checkpoint_gives_onnx_and_engine(checkpoint: Path, tmp_path: Path) -> None:
    nvidia_builder()
    build = tmp_path / "build"
    code, output = _run(
        *(checkpoint, "-o", build, "--format", "onnx,engine", "--precision", "fp32,fp16", "--batch", 4),
        *("--unchecked", "--quiet"),
    )
    assert code == 0, output
    names = [f"model.{precision}.{kind}" for precision in ("fp16", "fp32") for kind in ("engine", "onnx")]
    assert sorted(path.name for path in build.iterdir()) == sorted([*names, *(f"{name}.json" for name in names)])
    assert "model.fp16.engine is unchecked: there is no GPU here" in output
    assert "next: hamr-edge bench" in output
    assert f"{build / 'model.fp16.engine'} --reference {checkpoint}" in output.replace("model.fp32.engine ", "")
    assert load_sidecar(build / "model.fp32.engine").max_batch == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{model}", "--format", "onnx"), r"is an \.onnx file already; --format engine builds"),
        (("{model}", "--format", "plan"), "format must be of onnx, engine, got plan"),
        (("{model}", "--precision", "fp16", "--unchecked"), r"leave out --precision, or export a checkpoint"),
        (("{model}", "--form", "crops", "--seed", "1", "--calibrator", "mse"), r"leave out --form, --calibrator"),
        (("{run}", "--dry-run"), r"--dry-run parses an \.onnx file"),
        (("{run}", "--format", "engine", "--precision", "int8-cpu"), "engines are built from fp32, fp16, int8"),
        (("{model}", "--optimization-level", "9"), r"optimization_level must be in 0\.\.5, got 9"),
    ],
)
def test_wrong_words_are_refused_before_the_work(
    words: tuple[str, ...], message: str, model: Path, checkpoint: Path
) -> None:
    build = model.parent / "build"
    code, output = _run(*(word.format(model=model, run=checkpoint) for word in words), "-o", build)
    assert code == 1
    import re

    assert re.search(message, output), output
    assert not build.exists()


def test_an_engine_is_built_without_torch_or_onnx(model: Path, tmp_path: Path) -> None:
    """As on a Jetson; and where it need not be checked, without ONNX Runtime."""
    nvidia_builder()
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'onnxruntime', 'safetensors', 'pycuda'):\n"
        "    sys.modules[name] = None\n"
        "from hamr_edge.cli import main\n"
        f"sys.argv = ['hamr-edge', 'export', {str(model)!r}, '-o', {str(tmp_path)!r}, '--unchecked', '--quiet']\n"
        "main()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "model.fp32.engine").stat().st_size > 1000


def test_the_check_needs_onnx_runtime_and_says_so(model: Path, gpu: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UnavailableError, match=r"checked against its \.onnx on the CPU.*pip install onnxruntime"):
        export_engine(model, model.parent, EngineConfig())
