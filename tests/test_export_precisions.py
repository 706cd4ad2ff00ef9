"""export's lower precisions and forms on a real checkpoint, up to the gate."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from hamr_edge.backend import open_backend
from hamr_edge.calibration import search
from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CalibrationConfig
from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset, read_crop
from hamr_edge.errors import GateError, InputError
from hamr_edge.export.command import export as export_command
from hamr_edge.export.config import ExportConfig
from hamr_edge.export.exporting import Exported, export_checkpoint
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import load_sidecar
from tests.every_precision import CONFIG, LOOSE
from tests.nvidia_builder import build_with_nvidia


def _artifact(exported: Exported, name: str) -> Path:
    return next(path for path in exported.artifacts if path.name == name)


def test_every_precision_and_form_is_published_with_what_is_known_of_it(exported: Exported) -> None:
    names = [path.name for path in exported.artifacts]
    assert names == [f"model.{precision}{form}.onnx" for precision in CONFIG.precisions for form in ("", ".frame")]
    for path, sidecar in exported.artifacts.items():
        assert load_sidecar(path).parity == sidecar.parity
        assert sidecar.precision == path.name.split(".")[1]
        assert sidecar.form == ("frame" if ".frame." in path.name else "crops")
    folder = next(iter(exported.artifacts)).parent
    others = {path.name for path in folder.iterdir() if not path.name.startswith("model.") or "report" in path.name}
    assert others == {"calibration.json", "model.int8.report.json", "model.int8-cpu.report.json"}


def test_smaller_types_make_smaller_files(exported: Exported) -> None:
    sizes = {name: _artifact(exported, f"model.{name}.onnx").stat().st_size for name in CONFIG.precisions}
    assert sizes["fp16"] < 0.52 * sizes["fp32"]
    assert sizes["int8"] < 0.27 * sizes["fp32"]
    assert sizes["int8-cpu"] < 0.3 * sizes["fp32"]


def test_the_precisions_embed_alike(exported: Exported, synthetic_dataset: Path) -> None:
    crops = open_dataset(synthetic_dataset).query.paths[:8]
    batch = stack_crops([read_crop(path) for path in crops], (32, 16))
    rows = {}
    for path in exported.artifacts:
        with open_backend(path, "cpu") as backend:
            rows[path.name] = backend.infer(batch)
    for name, least in (("fp16", 0.9999), ("int8", 0.9), ("int8-cpu", 0.9)):
        assert np.sum(rows[f"model.{name}.onnx"] * rows["model.fp32.onnx"], axis=1).mean() > least
        np.testing.assert_allclose(rows[f"model.{name}.frame.onnx"], rows[f"model.{name}.onnx"], atol=2e-3)


def test_the_sidecar_says_how_the_scales_were_found(exported: Exported) -> None:
    sidecar = exported.artifacts[_artifact(exported, "model.int8.onnx")]
    detail = sidecar.precision_detail
    assert detail["calibrator"] in search.CALIBRATORS
    assert detail["calibration"]["crops"] == 24
    assert {"stem", "stage 1", "heads, level 2"} <= set(detail["quantised"])
    assert {"SAM", "CAM", "embedding layer"} <= set(detail["kept"])
    assert detail["random_calibration"] is False
    assert {"queries", "map_drop", "rank1_drop", "p01_cosine"} <= set(sidecar.parity["held_out"])


def test_the_report_has_every_block_and_calibrator(exported: Exported) -> None:
    report = json.loads(_artifact(exported, "model.int8.onnx").with_name("model.int8.report.json").read_text())
    assert set(report["calibrators"]) == set(search.CALIBRATORS)
    blocks = {block["name"]: block for block in report["blocks"]}
    assert {"stem", "stage 4", "SAM", "CAM", "heads, level 1", "heads, level 2", "embedding layer"} <= set(blocks)
    assert all(block["mean_cosine"] > 0.8 for block in blocks.values())
    assert report["steps"][0]["given_back"] is None


def test_a_second_export_reuses_the_table_and_gives_the_same_bytes(
    exported: Exported, checkpoint: Path, synthetic_dataset: Path
) -> None:
    path = _artifact(exported, "model.int8.onnx")
    table = path.with_name("calibration.json")
    before, written = path.read_bytes(), table.stat().st_mtime_ns
    export_checkpoint(
        checkpoint, path.parent, replace(CONFIG, precisions=("int8",), forms=("crops",)), synthetic_dataset
    )
    assert table.stat().st_mtime_ns == written
    assert path.read_bytes() == before


_QUICK = replace(CONFIG.calibration, calibrator="minmax")
"""For tests that do not ask which calibrator is taken."""


def _break_one_scale(model: onnx.ModelProto) -> None:
    """The last convolution's weights come back 40 times too large."""
    scale = next(item for item in model.graph.initializer if "layer4.1.conv2.weight_scale" in item.name)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(40), scale.name))


def test_a_broken_scale_fails_the_gate_and_nothing_is_published(
    checkpoint: Path, synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: onnx.ModelProto, chosen: Collection[str], ranges: Mapping[str, search.Range]) -> onnx.ModelProto:
        quantised = quantize(model, chosen, ranges)
        if any(name.startswith("network.backbone.layer4") for name in chosen):
            _break_one_scale(quantised)
        return quantised

    quantize = search.quantize
    monkeypatch.setattr(search, "quantize", broken)
    budget = replace(LOOSE, min_p01_cosine=0.8)
    given_back = export_checkpoint(
        checkpoint,
        tmp_path / "given_back",
        replace(CONFIG, precisions=("int8",), budget=budget, calibration=_QUICK),
        synthetic_dataset,
    )
    assert "stage 4" in {block.name for block in next(iter(given_back.searches.values())).kept}

    # The search saw a sound network; only what is written is broken.
    monkeypatch.setattr(search, "quantize", quantize)
    sound = search.find_quantised

    def break_result(*arguments: object, **settings: object) -> search.QuantisedNetwork:
        found = sound(*arguments, **settings)  # type: ignore[arg-type]
        _break_one_scale(found.model)
        return found

    monkeypatch.setattr("hamr_edge.export.precision_models.find_quantised", break_result)
    output = tmp_path / "build"
    arguments = ["export", str(checkpoint), "-o", str(output), "--data", str(synthetic_dataset), "--batch", "4"]
    arguments += ["--precision", "int8", "--calibration-crops", "24", "--min-p01-cosine", "0.8", "--quiet"]
    arguments += ["--calibrator", "minmax"]
    code = _exit_code([*arguments, "--max-map-drop", "50", "--max-rank1-drop", "50"])
    assert code == 3
    assert [path.name for path in output.iterdir()] == ["calibration.json"]


def _exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


def test_a_budget_that_cannot_be_held_publishes_nothing(
    checkpoint: Path, synthetic_dataset: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, precisions=("int8",), budget=Budget(min_p01_cosine=1.0))
    with pytest.raises(GateError, match=r"budget cannot be held, even with one block quantised.*--min-p01-cosine"):
        export_checkpoint(checkpoint, tmp_path, config, synthetic_dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


def test_an_artifact_for_cpus_runs_on_no_gpu(exported: Exported) -> None:
    path = _artifact(exported, "model.int8-cpu.onnx")
    assert open_backend(path, "auto").device == "cpu"
    with pytest.raises(InputError, match=r"made for CPUs; take model\.int8\.onnx or model\.fp16\.onnx for cuda:0"):
        open_backend(path, "cuda:0")


@pytest.mark.parametrize("precision", ["int8", "int8-cpu"])
def test_int8_without_data_is_refused_before_anything_is_made(precision: str, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{precision} needs --data.*--allow-random-calibration"):
        export_checkpoint(checkpoint, tmp_path / "build", ExportConfig((precision,)))
    assert not (tmp_path / "build").exists()


def test_noise_is_taken_where_it_is_asked_for_and_the_sidecar_says_so(checkpoint: Path, tmp_path: Path) -> None:
    calibration = CalibrationConfig(16, allow_random=True)
    config = ExportConfig(("int8",), max_batch=2, min_cosine=0.01, calibration=calibration)
    (sidecar,) = export_checkpoint(checkpoint, tmp_path, config).artifacts.values()
    assert sidecar.precision_detail["random_calibration"] is True
    assert "held_out" not in sidecar.parity


def test_compact_embeddings_go_through_every_precision(
    checkpoint: Path, synthetic_dataset: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    arguments = [str(checkpoint), "-o", str(tmp_path), "--data", str(synthetic_dataset), "--batch", "2"]
    arguments += ["--precision", "fp32,int8", "--embedding-dim", "8", "--calibration-crops", "24", "--quiet"]
    arguments += ["--calibrator", "minmax"]
    arguments += ["--max-map-drop", "50", "--max-rank1-drop", "50", "--min-p01-cosine", "0.01", "--min-cosine", "0.01"]
    result = CliRunner().invoke(export_command, arguments)
    assert result.exit_code == 0, result.output
    assert "change of mAP" in result.stdout
    assert f"--reference {tmp_path / 'model.fp32.onnx'}" in result.stdout
    for name in ("fp32", "int8"):
        sidecar = load_sidecar(tmp_path / f"model.{name}.onnx")
        assert sidecar.embedding_dim == 8
        assert sidecar.compact["source_dim"] == 12
    assert {"compact.json", "compact.png", "model.int8.report.png"} <= {path.name for path in tmp_path.iterdir()}
    for name in ("compact.png", "model.int8.report.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    build_with_nvidia(tmp_path / "model.int8.onnx", 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precisions": ("fp16", "fp16")}, "name each once"),
        ({"forms": ("square",)}, "form must be of crops, frame, got square"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"held_out_crops": 1}, "held_out_crops"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExportConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["--max-map-drop", "--max-rank1-drop", "--min-p01-cosine"])
def test_a_budget_out_of_range_names_its_option(option: str, checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(export_command, [str(checkpoint), "-o", str(tmp_path), option, "-1"])
    assert isinstance(result.exception, InputError)
    assert option in str(result.exception)
