"""What calibration wrote beside an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hamr_edge.benchmarks.sensitivity import BlockSensitivity, read_sensitivity

BLOCKS = [
    {"name": "stem", "mean_cosine": 0.9998, "map_drop": -0.07},
    {"name": "stage 1", "mean_cosine": 0.9991, "map_drop": 0.25},
    {"name": "SAM", "mean_cosine": 0.9999, "map_drop": 0.0},
]
REPORT: dict[str, Any] = {"schema": 1, "artifact": "model.int8.onnx", "kept": ["SAM"], "blocks": BLOCKS}


def write(folder: Path, text: str) -> Path:
    (folder / "model.int8.report.json").write_text(text, encoding="utf-8")
    return folder / "model.int8.onnx"


def test_the_block_that_costs_most_comes_first(tmp_path: Path) -> None:
    found = read_sensitivity(write(tmp_path, json.dumps(REPORT)))
    assert [block.block for block in found] == ["stage 1", "stem", "SAM"]
    assert found[0] == BlockSensitivity("stage 1", False, 0.9991, pytest.approx(-0.0025))
    assert [block.kept_float for block in found] == [False, False, True]


def test_nothing_without_a_report(tmp_path: Path) -> None:
    assert read_sensitivity(tmp_path / "model.int8.onnx") == ()
    write(tmp_path, json.dumps(REPORT))
    assert read_sensitivity(tmp_path / "model.int8.frame.onnx") == ()
    assert read_sensitivity(tmp_path / "model.int8.engine") == ()
    assert read_sensitivity(tmp_path) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"artifact": "model.int8-cpu.onnx"},
        {"blocks": [{"name": "stem"}]},
        {"blocks": ["stem"]},
        {"blocks": None},
        {"kept": 3},
        {"blocks": [{**BLOCKS[0], "mean_cosine": float("nan")}]},
        {"blocks": [{**BLOCKS[0], "map_drop": 10**400}]},
    ],
)
def test_nothing_of_a_report_that_does_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    assert read_sensitivity(write(tmp_path, json.dumps({**REPORT, **change}))) == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_nothing_of_a_file_that_is_no_report(tmp_path: Path, text: str) -> None:
    assert read_sensitivity(write(tmp_path, text)) == ()


def test_blocks_that_were_not_measured_are_none(tmp_path: Path) -> None:
    assert read_sensitivity(write(tmp_path, json.dumps({**REPORT, "blocks": []}))) == ()
