from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hamr_edge import InputError, open_backend
from hamr_edge.benchmarks import BenchConfig, compare
from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset
from hamr_edge.evaluation import evaluate
from hamr_edge.sidecar import load_sidecar, sidecar_path, write_sidecar
from tests import variants
from tests.artifacts import write_tiny_artifact
from tests.tiny_dataset import GALLERY, QUERIES

FAST = (
    "--seconds", "0", "--max-seconds", "0", "--min-rounds", "2", "--warmup-rounds", "1", "--cold-starts", "0",
    "--threads", "1", "--device", "cpu", "--quiet",
)  # fmt: skip
QUICK = BenchConfig(seconds=0, max_seconds=0, min_rounds=2, warmup_rounds=1, cold_starts=0, threads=1, device="cpu")


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not looked at here: no need to wait for other models' threads."""
    monkeypatch.setattr("hamr_edge.benchmarks.speed.SETTLE_S", 0.0)


@pytest.fixture
def bench(
    tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any], str, str]]:
    """Runs bench against the tiny artifact: exit code, JSON, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, dict[str, Any], str, str]:
        file = tmp_path / "bench.json"
        code = 0
        try:
            main(["bench", *map(str, arguments), "--reference", str(tiny_artifact), "--data", str(tiny_dataset),
                  "--json", str(file), *FAST])  # fmt: skip
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return code, json.loads(file.read_text()) if file.exists() else {}, out, err

    return run


def _make(source: Path, folder: Path, name: str, **sidecar: Any) -> Path:
    return variants.write_variant(source, folder / f"{name}.onnx", getattr(variants, name), **sidecar)


def test_a_good_artifact_passes_with_every_key(bench: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    copy = _make(tiny_artifact, tmp_path, "keep")
    code, report, out, err = bench(copy)
    assert (code, err) == (0, "")
    assert report["schema"] == 1
    assert report["reference"]["artifact"] == str(tiny_artifact)
    assert (report["reference"]["backend"], report["reference"]["precision"]) == ("onnxruntime-cpu", "fp32")
    assert {"cpu", "cores", "threads", "os", "python", "libraries", "date", "governor"} <= set(report["environment"])
    (result,) = report["results"]
    assert (result["artifact"], result["backend"], result["precision"]) == (str(copy), "onnxruntime-cpu", "fp32")
    assert result["size_bytes"] == copy.stat().st_size
    assert (result["verdict"], result["failures"]) == ("pass", [])
    assert [latency["batch"] for latency in result["latency"]] == [1, 8]
    for latency in result["latency"]:
        assert latency["iterations"] == 2
        assert latency["images_per_s"] == pytest.approx(latency["batch"] * 1000 / latency["mean_ms"])
        assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p95_ms"] <= latency["p99_ms"]
        speedup = latency["speedup"]
        assert 0 < speedup["low"] <= speedup["median"] <= speedup["high"]
        assert speedup["median_low"] <= speedup["median"] <= speedup["median_high"]
    parity = result["parity"]
    assert parity["images"] == QUERIES + GALLERY
    assert parity["min_cosine"] == pytest.approx(1)
    assert (parity["top1_agreement"], parity["overlap_at_10"], parity["rank1_delta"], parity["map_delta"]) == (
        1,
        1,
        0,
        0,
    )
    assert {"p01_cosine", "mean_cosine", "rank1", "map"} <= set(parity)
    assert result["stages"]["boxes"] == 8
    assert [whole["batch"] for whole in result["end_to_end"]] == [1, 8]
    assert result["batch_consistency"]["min_cosine"] > 0.9999
    for title in ("Retrieval", "tiny.onnx", "pass"):
        assert title in out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mix_rows", "rows of a batch are mixed"),
        ("reverse_rows", "rows of a batch are mixed"),
        ("overflow", "hold NaN or infinity"),
        ("leave_unnormalised", "not of unit L2 norm"),
    ],
)
def test_a_broken_artifact_fails_with_its_reason(
    bench: Any, tiny_artifact: Path, tmp_path: Path, name: str, message: str
) -> None:
    code, report, out, err = bench(_make(tiny_artifact, tmp_path, name))
    assert code == 3
    (result,) = report["results"]
    assert result["verdict"] == "fail"
    assert any(message in failure for failure in result["failures"])
    assert message in out
    assert "1 of 1 artifacts failed" in err
    assert f"{name}.onnx" in err


def test_an_artifact_of_another_seed_names_the_worst_crop(bench: Any, tmp_path: Path) -> None:
    code, report, out, _ = bench(write_tiny_artifact(tmp_path / "other.onnx", seed=1))
    assert code == 3
    (failure,) = [failure for failure in report["results"][0]["failures"] if "--budget cosine" in failure]
    worst = report["results"][0]["parity"]["worst_crop"]
    assert worst.startswith(("query/", "bounding_box_test/"))
    assert f"cosine of {worst} to the reference is" in failure
    assert worst in out


def test_an_artifact_of_another_checkpoint_fails(bench: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    code, report, _, err = bench(_make(tiny_artifact, tmp_path, "keep", source_sha256="1" * 64))
    assert code == 3
    assert len(report["results"][0]["failures"]) == 1
    assert "made of another checkpoint: its sidecar names source 111111111111" in err


def test_one_bad_of_two_fails_and_both_are_reported(bench: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    artifacts = [_make(tiny_artifact, tmp_path, name) for name in ("keep", "mix_rows")]
    code, report, _, err = bench(*artifacts)
    assert code == 3
    assert [result["verdict"] for result in report["results"]] == ["pass", "fail"]
    assert "1 of 2 artifacts failed" in err


def test_budgets_can_be_set(bench: Any, tmp_path: Path) -> None:
    other = write_tiny_artifact(tmp_path / "other.onnx", seed=1)
    loose = ("--budget", "cosine=-1", "--budget", "map=100", "--budget", "rank1=100", "--budget", "separation=none")
    code, report, _, _ = bench(other, *loose)
    assert code == 0
    assert report["results"][0]["budgets"]["cosine"] == -1
    assert bench(other, *loose, "--budget", "speedup=1000")[0] == 3


def test_embeddings_of_another_width_are_refused(bench: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    other = _make(tiny_artifact, tmp_path, "keep", embedding_dim=16)
    code, report, _, err = bench(other)
    assert (code, report) == (2, {})
    assert "keep.onnx gives embeddings of 16 values, the reference" in err


def test_batch_sizes_above_the_maximum_are_left_out(bench: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    small = _make(tiny_artifact, tmp_path, "keep", max_batch=4)
    code, report, _, _ = bench(small, tiny_artifact, "--batch", 1, "--batch", 8)
    assert code == 0
    assert [[at["batch"] for at in result["latency"]] for result in report["results"]] == [[1], [1, 8]]
    assert report["results"][0]["stages"]["boxes"] == 1
    code, _, _, err = bench(small, "--batch", 8)
    assert code == 2
    assert "takes at most 4 crops a batch" in err
    assert "add --batch 4" in err


def test_json_on_stdout_stands_alone(
    tiny_artifact: Path, tiny_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main_arguments = ["bench", str(tiny_artifact), "--reference", str(tiny_artifact), "--data", str(tiny_dataset)]
    main([*main_arguments, "--json", "-", "--max-crops", "20", "--mirror", *FAST])
    report = json.loads(capsys.readouterr().out)
    assert report["data"]["images"] == 20
    assert report["config"]["mirror"] is True


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Missing argument 'ARTIFACT...'"),
        (("nowhere.onnx",), 2, "nowhere.onnx is not there"),
        (("{good}", "--batch", "0"), 2, "--batch must name different sizes"),
        (("{good}", "--json", "nowhere/bench.json"), 2, "is not there; mkdir -p"),
        (("{good}", "--device", "cuda:99"), 4, "cuda:99"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    tiny_artifact: Path,
    tiny_dataset: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    given = [argument.format(good=tiny_artifact) for argument in arguments]
    fast = FAST if "--device" not in given else ()
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--reference", str(tiny_artifact), "--data", str(tiny_dataset), *fast, *given])
    assert caught.value.code == code
    assert message in capsys.readouterr().err


def test_compare_is_a_library_too(tiny_artifact: Path, tiny_dataset: Path) -> None:
    report = compare([tiny_artifact], tiny_artifact, tiny_dataset, QUICK)
    assert report.failed == ()
    with open_backend(tiny_artifact, "cpu") as backend:
        scores = evaluate(backend, open_dataset(tiny_dataset))
    assert report.reference.retrieval == scores
    assert report.results[0].parity.map == pytest.approx(scores.map)
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["results"][0]["verdict"] == "pass"
    with pytest.raises(InputError, match="no artifact to compare"):
        compare([], tiny_artifact, tiny_dataset, QUICK)


def test_a_checkpoint_is_the_reference(
    checkpoint: Path, tiny_artifact: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """The tiny artifact is no export of it: shapes agree, numbers do not, and the source tells."""
    with open_backend(checkpoint, "cpu") as backend:
        assert backend.sidecar.embedding_dim == load_sidecar(tiny_artifact).embedding_dim
    report = compare([tiny_artifact], checkpoint, tiny_dataset, QUICK)
    assert report.reference.backend == "pytorch-cpu"
    assert "made of another checkpoint" in report.results[0].failures[0]
    copy = _make(tiny_artifact, tmp_path, "keep")
    write_sidecar(replace(load_sidecar(copy), source_sha256=backend.sidecar.source_sha256), sidecar_path(copy))
    assert "--budget cosine" in compare([copy], checkpoint, tiny_dataset, QUICK).results[0].failures[0]
