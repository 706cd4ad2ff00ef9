from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hamr_edge.calibration.calibrators import threshold
from hamr_edge.calibration.config import CALIBRATORS, CalibrationConfig
from hamr_edge.calibration.crops import random_calibration_batches
from hamr_edge.calibration.ranges import measure_ranges
from hamr_edge.calibration.table import calibrate, calibration_key, differing_parts, load_table
from hamr_edge.errors import ArtifactError, InputError
from tests.artifacts import INPUT_SIZE_HW, write_tiny_artifact

NAMES = ("pooled", "flat", "product")
CONFIG = CalibrationConfig(crops=12, batch_size=4)
BATCHES = random_calibration_batches(12, INPUT_SIZE_HW, 0, allow_random=True, batch_size=4)


@pytest.fixture(scope="module")
def model(tiny_artifact: Path) -> onnx.ModelProto:
    return onnx.load(tiny_artifact)


def rewrite(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def test_the_table_holds_what_was_measured(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    table = calibrate(model, NAMES, BATCHES, CONFIG, path)
    assert load_table(path) == table
    ranges = measure_ranges(model, NAMES, BATCHES)
    assert table.tensors.keys() == ranges.keys() == set(NAMES)
    for name, found in ranges.items():
        kept = table.tensors[name]
        assert (kept.low, kept.high) == (found.low, found.high)
        assert kept.thresholds == {rule: threshold(rule, found) for rule in CALIBRATORS}


def test_the_same_measurement_gives_the_same_bytes(model: onnx.ModelProto, tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    calibrate(model, NAMES, BATCHES, CONFIG, one)
    calibrate(model, NAMES[::-1], BATCHES, CONFIG, other)
    assert one.read_bytes() == other.read_bytes()
    load_table(one).save(other)
    assert one.read_bytes() == other.read_bytes()


def test_a_table_that_agrees_is_reused(
    model: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calibration.json"
    calibrate(model, NAMES, BATCHES, CONFIG, path)
    values = json.loads(path.read_text())
    values["tensors"]["flat"]["thresholds"]["mse"] = 0.5  # shows that the file was read
    rewrite(path, values)
    before = path.read_bytes()
    calibrator = CalibrationConfig(crops=12, batch_size=4, calibrator="mse")  # chooses in the table, does not make it
    assert calibrate(model, NAMES, BATCHES, calibrator, path, quiet=False).tensors["flat"].thresholds["mse"] == 0.5
    assert path.read_bytes() == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("part", sorted(calibration_key(onnx.ModelProto(), NAMES, BATCHES, CONFIG)))
def test_a_table_of_anything_else_is_measured_anew(
    model: onnx.ModelProto, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calibration.json"
    calibrate(model, NAMES, BATCHES, CONFIG, path)
    right = path.read_bytes()
    values = json.loads(right)
    values["key"][part] = "another" if isinstance(values["key"][part], str) else values["key"][part] + 1
    values["tensors"]["flat"]["thresholds"]["mse"] = 0.5
    rewrite(path, values)
    calibrate(model, NAMES, BATCHES, CONFIG, path, quiet=False)
    assert path.read_bytes() == right
    assert f"differs in {part}: measured anew" in " ".join(capsys.readouterr().err.split())


def test_the_key_knows_each_thing_that_it_is_made_of(model: onnx.ModelProto, tmp_path: Path) -> None:
    key = calibration_key(model, NAMES, BATCHES, CONFIG)

    def differing(**changed: Any) -> list[str]:
        given = {"model": model, "names": NAMES, "batches": BATCHES, "config": CONFIG, **changed}
        return differing_parts(key, calibration_key(**given))

    assert not differing(names=NAMES[::-1], config=CalibrationConfig(crops=12, calibrator="entropy"))
    assert differing(model=onnx.load(write_tiny_artifact(tmp_path / "other.onnx", seed=1))) == ["model_sha256"]
    newer = onnx.ModelProto()
    newer.CopyFrom(model)
    newer.opset_import[0].version += 1
    assert differing(model=newer) == ["opsets"]
    assert differing(names=NAMES[:2]) == ["tensors_sha256"]
    assert differing(config=CalibrationConfig(crops=12, seed=1)) == ["seed"]
    assert differing(config=CalibrationConfig(crops=13)) == ["crops"]
    pieces = random_calibration_batches(12, INPUT_SIZE_HW, 0, allow_random=True, batch_size=3)
    assert differing(batches=pieces) == ["batch_size"]
    larger = random_calibration_batches(12, (64, 16), 0, allow_random=True, batch_size=4)
    assert differing(batches=larger) == ["crops_sha256", "input_size_hw"]


def _without_mse(values: dict[str, Any]) -> None:
    del values["tensors"]["flat"]["thresholds"]["mse"]


def _with_zero(values: dict[str, Any]) -> None:
    values["tensors"]["flat"]["thresholds"]["mse"] = 0


def _with_nan(values: dict[str, Any]) -> None:
    values["tensors"]["flat"]["high"] = float("nan")


def _without_key(values: dict[str, Any]) -> None:
    del values["key"]


def _of_another_version(values: dict[str, Any]) -> None:
    values["version"] = 99


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_mse, "mse"),
        (_with_zero, "flat needs .* thresholds above 0"),
        (_with_nan, "flat needs"),
        (_without_key, "key"),
        (_of_another_version, "version 99, this hamr-edge reads 1"),
    ],
)
def test_a_broken_table_is_an_error_and_stays(model: onnx.ModelProto, tmp_path: Path, spoil: Any, message: str) -> None:
    path = tmp_path / "calibration.json"
    calibrate(model, NAMES, BATCHES, CONFIG, path)
    values = json.loads(path.read_text())
    spoil(values)
    rewrite(path, values)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match=f"calibration.json cannot be read: .*{message}.*; delete it"):
        calibrate(model, NAMES, BATCHES, CONFIG, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"version": 1, "key": {}, "tensors": 3}']
)
def test_what_is_no_table_is_not_overwritten(model: onnx.ModelProto, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "something.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"something\.json cannot be read"):
        calibrate(model, NAMES, BATCHES, CONFIG, path)
    assert path.read_bytes() == content


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not there"):
        load_table(tmp_path / "none.json")


def test_where_a_table_cannot_go_is_found_before_the_work(model: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mkdir -p"):
        calibrate(model, ["not a tensor"], BATCHES, CONFIG, tmp_path / "none" / "calibration.json")


def test_a_write_that_is_cut_off_leaves_the_old_table(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calibration.json"
    table = calibrate(model, NAMES, BATCHES, CONFIG, path)
    before = path.read_bytes()

    def write_half(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text.encode(encoding)[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        table.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_kept_without_a_path(model: onnx.ModelProto) -> None:
    table = calibrate(model, ["pooled"], BATCHES, CONFIG)
    assert list(table.tensors) == ["pooled"]
    assert np.isfinite(table.tensors["pooled"].high)
