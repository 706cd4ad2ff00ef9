"""Engines where an .onnx may stand on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from hamr_edge.benchmarks.command import bench
from hamr_edge.eval_command import evaluate_model
from tests.gpu_double import Machine

_FAST = ("--quiet", "--seconds", "0.1", "--max-seconds", "0.1", "--min-rounds", "2", "--batch", "2", "--cold-starts")


def test_eval_and_bench_take_engines(engines: Path, synthetic_dataset: Path, tmp_path: Path, one_gpu: Machine) -> None:
    scores = []
    for model in ("crops.onnx", "crops.engine", "frame.engine"):
        file = tmp_path / f"{model}.json"
        words = [str(engines / model), "--data", str(synthetic_dataset), "--json", str(file), "--quiet"]
        result = CliRunner().invoke(evaluate_model, words)
        assert result.exit_code == 0, result.output
        scores.append(json.loads(file.read_text())["map"])
    assert scores[0] == scores[1] == scores[2]
    assert "tensorrt-cuda, fp32" in result.output

    report = tmp_path / "bench.json"
    result = CliRunner().invoke(
        bench,
        [
            *(str(engines / name) for name in ("crops.engine", "frame.engine")),
            *("--reference", str(engines / "crops.onnx"), "--data", str(synthetic_dataset)),
            *("--json", str(report), *_FAST, "0"),
        ],
    )
    assert result.exit_code == 0, result.output
    for entry in json.loads(report.read_text())["results"]:
        assert (entry["backend"], entry["verdict"], entry["failures"]) == ("tensorrt-cuda", "pass", [])
        assert entry["parity"]["min_cosine"] > 0.999999
