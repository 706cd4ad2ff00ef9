from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hamr_edge.benchmarks import camera_soak as soak_module
from hamr_edge.benchmarks.camera_rate import STAGES, camera_rate
from hamr_edge.benchmarks.camera_soak import FAULTS, camera_soak
from hamr_edge.errors import GateError, InputError
from tests.video_files import moving_square, write_video
from tests.yolox_files import write_yolox, yolox_output

PERSON = (0, (10.0, 8.0, 22.0, 40.0), 0.7)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "v.avi", moving_square(12, (64, 96)))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = yolox_output([PERSON, (1, (40.0, 8.0, 60.0, 50.0), 0.6)])
    return write_yolox(tmp_path_factory.mktemp("detector") / "yolox.onnx", output)


def run(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "--quiet"], standalone_mode=False)  # type: ignore[arg-type]


def test_the_rate_of_every_way_is_measured(tmp_path: Path, video: Path, detector: Path, tiny_artifact: Path) -> None:
    out, trace = tmp_path / "r.json", tmp_path / "t.json"
    options = ["--model", tiny_artifact, "--detector", detector, "--frames", 6, "--rounds", 3, "--threads", 1]
    result = run(camera_rate, video, video, *options, "--json", out, "--timeline", trace)
    assert result.exception is None, result.output
    report = json.loads(out.read_text())
    assert (report["frames"], report["people"], report["rounds"]) == (12, 24, 3)
    ways = {way["name"]: way for way in report["ways"]}
    assert set(ways) == {"serial loop", "pipeline", *STAGES}
    assert ways["serial loop"]["over_serial"] == [1, 1, 1]
    assert all(way["frames_per_s"] > 0 for way in ways.values())
    # The serial loop does what every stage does by itself; half of it, for a machine that is busy elsewhere.
    assert all(ways[stage]["over_serial"][0] > 0.5 for stage in STAGES)
    assert report["slowest_stage"] in STAGES
    assert report["largest_difference"] < 1e-6
    assert set(report["overlap"]) == {"decode", "detect", "crop"}
    assert "the slowest stage" in result.output
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_video_without_people_has_no_rate(video: Path, tmp_path: Path, tiny_artifact: Path) -> None:
    nobody = write_yolox(tmp_path / "none.onnx", yolox_output([]))
    result = run(camera_rate, video, "--model", tiny_artifact, "--detector", nobody, "--frames", 2)
    assert isinstance(result.exception, InputError)
    assert "finds nobody" in str(result.exception)


def run_soak(video: Path, detector: Path, model: Path, *more: object) -> Result:
    options = ["--model", model, "--detector", detector, "--frames", 300, "--every", 45, "--threads", 1]
    return run(camera_soak, video, *options, *more)


def test_a_soak_accounts_for_every_frame(
    tmp_path: Path, video: Path, detector: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak_module, "_STALL_AFTER_S", 0.2)
    monkeypatch.setattr(soak_module, "_MOST_GROWTH", 1.0)  # a run as short as this one is all beginning
    out = tmp_path / "s.json"
    result = run_soak(video, detector, tiny_artifact, "--json", out)
    assert result.exception is None, result.output
    report = json.loads(out.read_text())
    cameras = report["cameras"]
    assert set(cameras) == set(FAULTS)
    counts = {name: (camera["decoded"], camera["failed"]) for name, camera in cameras.items()}
    # Garbage of a kind that is an image by its form, such as noise, is embedded.
    assert counts == {"stalls": (98, 0), "ends": (10, 0), "garbage": (100, 1), "raises": (100, 2)}
    assert cameras["stalls"]["reconnects"] == 2
    assert report["given"] == sum(camera["embedded"] for camera in cameras.values()) == 305
    assert report["problems"] == []


def test_a_soak_that_grows_fails(
    video: Path, detector: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak_module, "_STALL_AFTER_S", 0.2)
    grown = iter(range(100, 10_000))
    monkeypatch.setattr(soak_module, "_rss_mb", lambda: float(next(grown)))
    monkeypatch.setattr(soak_module, "_RSS_EVERY", 20)
    result = run_soak(video, detector, tiny_artifact)
    assert isinstance(result.exception, GateError)
    assert "memory grew by" in str(result.exception)


def test_memory_is_read() -> None:
    assert 10 < soak_module._rss_mb() < 100_000
