"""What bench measures beside its artifacts, and what it writes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from hamr_edge.benchmarks import BenchConfig, compare
from hamr_edge.cli import main
from tests.foreign_models import write_foreign

PLAIN_LOOP = Path(__file__).resolve().parent.parent / "benchmarks" / "peers" / "plain_loop.py"
QUICK = {"seconds": 0, "max_seconds": 0, "min_rounds": 2, "warmup_rounds": 1, "threads": 1, "device": "cpu"}


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hamr_edge.benchmarks.speed.SETTLE_S", 0.0)


def test_models_of_others_stand_beside_and_are_not_judged(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    foreign = write_foreign(tmp_path / "osnet.onnx")
    peer = shlex.join(
        [sys.executable, str(PLAIN_LOOP), "--model", str(tiny_artifact), "--input", "uint8", "--threads", "1"]
    )
    config = BenchConfig(
        **QUICK,
        cold_starts=1,
        beside=(str(foreign),),
        input_description="rgb-float-imagenet",
        peers=(f"loop={peer}",),
    )
    report = compare([tiny_artifact], tiny_artifact, tiny_dataset, config)
    own, other, loop = report.results
    assert [result.verdict for result in report.results] == ["pass", "not judged", "not judged"]
    assert [result.name for result in report.results] == ["tiny.onnx (2)", "osnet.onnx", "loop"]
    assert report.judged == (own,)
    assert other.embedding_dim != own.embedding_dim
    assert (other.parity.min_cosine, other.cross_gallery, other.cosine_histogram) == (None, None, None)
    assert (len(other.latency), len(loop.latency)) == (2, 0)
    assert [measured.batch for measured in loop.end_to_end] == [1, 8]
    assert loop.parity.min_cosine is not None
    assert loop.parity.min_cosine > 0.999  # the same model, fed by hand
    assert own.cold_start is not None
    assert other.cold_start is not None
    assert other.budgets == {}


def test_modes_of_pytorch_stand_beside(checkpoint: Path, tiny_dataset: Path) -> None:
    config = BenchConfig(**QUICK, cold_starts=0, torch_modes=("bf16",))
    report = compare([checkpoint], checkpoint, tiny_dataset, config)
    own, mode = report.results
    assert (own.verdict, mode.verdict) == ("pass", "not judged")
    assert mode.name == f"{report.reference.name} (bf16)"
    assert mode.precision == "bf16"
    assert mode.parity.mean_cosine is not None
    assert 0.9 < mode.parity.mean_cosine < 1


def test_the_report_is_written_and_held_against_an_old_one(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("html", "markdown", "json")}
    words = ["bench", str(tiny_artifact), "--reference", str(tiny_artifact), "--data", str(tiny_dataset), "--quiet"]
    for name, value in {**QUICK, "cold_starts": 0}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    main([*words, *(word for name, file in files.items() for word in (f"--{name}", str(file)))])
    page = files["html"].read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "tiny.onnx" in page
    assert "<svg" in page
    assert "| tiny.onnx" in files["markdown"].read_text(encoding="utf-8")
    old = json.loads(files["json"].read_text())
    for measured in ("latency", "end_to_end"):  # two rounds tell nothing of speed, and might seem to
        old["results"][0][measured] = []
    files["json"].write_text(json.dumps(old))
    main([*words, "--compare", str(files["json"]), "--html", str(files["html"]), "--no-pictures"])
    assert "ince the old report" in capsys.readouterr().out
    old["results"][0]["parity"]["map"] += 0.2
    files["json"].write_text(json.dumps(old))
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--compare", str(files["json"]), "--markdown", str(files["markdown"])])
    assert stopped.value.code == 3
    assert "mAP" in capsys.readouterr().err
    assert "ince the old report" in files["markdown"].read_text(encoding="utf-8")
