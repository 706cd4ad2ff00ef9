from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from hamr_edge import Embedder
from hamr_edge.camera_flags import choose_threads, name_cameras
from hamr_edge.cli import hamr_edge, main
from hamr_edge.detections import load_detections
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.stage_clock import StageClock
from hamr_edge.stop_request import StopRequest
from hamr_edge.video import open_source
from tests.video_files import moving_square, read_video, write_video
from tests.yolox_files import write_yolox, yolox_output


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "v.avi", moving_square(12))


@pytest.fixture(scope="module")
def detections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For ``video``: two people in every second frame, in pixels of a frame twice as large."""
    path = tmp_path_factory.mktemp("detections") / "det.txt"
    lines = [f"{number},-1,{8 * number},20,60,160,.9\n{number},-1,200,40,80,190,.4\n" for number in range(1, 13, 2)]
    path.write_text("".join(lines))
    return path


def _run(*arguments: object, **options: object) -> Result:
    return CliRunner().invoke(hamr_edge, ["embed", *map(str, arguments)], standalone_mode=False, **options)


def test_every_row_is_what_the_embedder_gives(
    tmp_path: Path, video: Path, detections: Path, tiny_artifact: Path
) -> None:
    out, picture = tmp_path / "o.parquet", tmp_path / "o.mp4"
    result = _run(
        video, "-m", tiny_artifact, "--detections", detections, "--detections-scale", 0.5, "-o", out, "--video", picture
    )
    assert result.exception is None, result.output
    table = pq.read_table(out)
    assert table["frame"].to_pylist() == [number for number in range(1, 13, 2) for _ in range(2)]
    known, expected = load_detections(detections, 0.5), []
    with open_source(video) as source, Embedder(tiny_artifact, "cpu") as embedder:
        for frame in source:
            expected.append(embedder.embed(frame.image, known.in_frame(frame.number, (120, 160))[0]))
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), np.concatenate(expected), atol=1e-6)
    np.testing.assert_allclose(table["time"].to_numpy()[::2], np.arange(0, 12, 2) / 10, atol=1e-6)
    np.testing.assert_allclose(table["score"].to_numpy()[:2], [0.9, 0.4], atol=1e-6)
    assert len(read_video(picture)) == 12
    facts = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert str(out) in facts["written"]
    assert facts["embeddings"].split() == ["embeddings", "12"]
    assert "12, the last at 0:01.1" in facts["frames"]
    assert "onnxruntime-cpu" in facts["model"]
    stages = [line.split() for line in result.stdout.split("busy\n")[1].splitlines()]
    assert {stage[0] for stage in stages[:-1]} == {"decode", "detect", "crop", "infer", "write", "annotate"}
    busy = sum(float(stage[2][:-1]) for stage in stages[:-1])
    assert float(stages[-1][5]) == pytest.approx(busy / 100, abs=0.01)
    assert "12 people" in result.stderr


def test_a_folder_and_a_yolox_detector(tmp_path: Path, tiny_artifact: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, size_hw in ((9, (64, 96)), (10, (128, 192)), (11, (64, 96))):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((*size_hw, 3), number, np.uint8))
    detector = write_yolox(tmp_path / "yolox.onnx", yolox_output([(0, (10.0, 8.0, 22.0, 40.0), 0.7)]))
    out = tmp_path / "o.parquet"
    result = _run(folder, "-m", tiny_artifact, "--detector", detector, "-o", out, "--fps", 2, "-q", "--max-frames", 2)
    assert result.exception is None, result.output
    table = pq.read_table(out)
    assert (table["frame"].to_pylist(), table["time"].to_pylist()) == ([1, 2], [0, 0.5])
    np.testing.assert_allclose(np.stack(table["box"].to_numpy()), [[10, 8, 22, 40], [20, 16, 44, 80]], atol=1e-3)
    assert result.stderr == ""
    assert "as many as asked for" in result.stdout


def test_nobody_in_the_video(tmp_path: Path, video: Path, tiny_artifact: Path) -> None:
    result = _run(
        video, "-m", tiny_artifact, "--detector", "hog", "-o", tmp_path / "o.parquet", "--max-frames", 2, "-q"
    )
    assert result.exception is None, result.output
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 0


def test_detections_after_the_end_are_said(
    tmp_path: Path, video: Path, tiny_artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = tmp_path / "d.txt"
    boxes.write_text("1,-1,0,0,50,90\n13,-1,0,0,50,90\n40,-1,0,0,50,90\n")
    arguments = (video, "-m", tiny_artifact, "--detections", boxes, "-o", tmp_path / "o.parquet", "-q")
    with caplog.at_level(logging.WARNING):
        assert _run(*arguments).exception is None
        assert "2 boxes are of frames after the last, 12" in caplog.text
        caplog.clear()
        assert _run(*arguments, "--max-frames", 5).exception is None
        assert not caplog.text


def test_a_wrong_scale_is_found_at_the_first_frame(
    tmp_path: Path, video: Path, tiny_artifact: Path, detections: Path
) -> None:
    result = _run(video, "-m", tiny_artifact, "--detections", detections, "-o", tmp_path / "o.parquet", "-q")
    assert isinstance(result.exception, InputError)
    assert "--detections-scale" in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_an_error_on_the_way_keeps_a_part(
    tmp_path: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((100, 80, 3), number, np.uint8))
    (folder / "3.png").write_text("broken")
    boxes = tmp_path / "d.txt"
    boxes.write_text("".join(f"{number},-1,5,5,50,90\n" for number in range(1, 5)))
    out = tmp_path / "o.parquet"
    with pytest.raises(SystemExit) as stop, caplog.at_level(logging.WARNING):
        main(["embed", str(folder), "-m", str(tiny_artifact), "--detections", str(boxes), "-o", str(out), "-q"])
    assert stop.value.code == 2
    assert "3.png cannot be decoded" in capsys.readouterr().err
    assert "3 embeddings are kept in" in caplog.text
    assert not out.exists()
    assert pq.read_table(tmp_path / "o.partial.parquet")["frame"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give either --detections FILE or --detector"),
        (["--detector", "hog", "--detections", "d.txt"], 2, "give either"),
        (["--detector", "hog", "--detections-scale", "2"], 2, "--detections-scale is for --detections only"),
        (["--detections", "d.txt", "--nms-iou", ".5"], 2, "--nms-iou is for --detector only"),
        (["--detector", "hog", "--identity-threshold", ".5"], 2, "--identity-threshold is for --video only"),
        (["--detector", "ssd"], 2, "detector ssd is of no known kind"),
        (["--detector", "hog", "--fps", "5"], 2, "fps is for images only"),
        (["--detector", "hog", "--video", "gone/o.mp4"], 2, "mkdir -p"),
        (["--detector", "hog", "--max-frames", "0"], 2, "--max-frames"),
        (["--detector", "hog", "--device", "cuda:77"], 4, "cuda:77"),
    ],
)
def test_exit_codes(
    tmp_path: Path,
    video: Path,
    tiny_artifact: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["embed", str(video), "-m", str(tiny_artifact), "-o", str(tmp_path / "o.parquet"), *arguments])
    assert stop.value.code == code
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_source_is_not_overwritten(tmp_path: Path, tiny_artifact: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_text("a video")
    result = _run(path, "-m", tiny_artifact, "--detector", "hog", "-o", tmp_path / "o.parquet", "--video", path)
    assert "is the source" in str(result.exception)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_publishes_what_was_embedded(tmp_path: Path, tiny_artifact: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    image = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))[1].tobytes()
    for number in range(1000):
        (folder / f"{number}.png").write_bytes(image)
    boxes = tmp_path / "d.txt"
    boxes.write_text("".join(f"{number},-1,5,5,50,90\n" for number in range(1, 1001)))
    out = tmp_path / "o.parquet"
    # The annotated video makes each frame slow enough to be interrupted.
    options = ["-m", tiny_artifact, "--detections", boxes, "-o", out, "--video", tmp_path / "o.mp4"]
    code = "from hamr_edge.cli import main; main()"
    command = [sys.executable, "-c", code, "embed", str(folder), *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".o.*.mp4")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "stopped on request" in stdout
    rows = pq.read_table(out).num_rows
    assert 0 < rows < 1000
    assert len(read_video(tmp_path / "o.mp4")) == rows


def test_the_second_request_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with StopRequest() as stop:
        assert not stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_stages_and_the_rest_sum_to_the_total() -> None:
    clock = StageClock()
    for _ in range(3):
        with clock.stage("a"):
            time.sleep(0.002)
    with pytest.raises(HamrEdgeError), clock.stage("b"):
        raise HamrEdgeError("counted all the same")
    clock.stop()
    assert list(clock.seconds) == ["a", "b", "other"]
    assert clock.seconds["a"] >= 0.006
    assert sum(clock.seconds.values()) == pytest.approx(clock.total_s)


@pytest.mark.data
def test_real_video_and_detector(tmp_path: Path, data_root: Path, tiny_artifact: Path) -> None:
    result = _run(
        data_root / "video" / "vtest.avi",
        "--model",
        tiny_artifact,
        "--detections",
        data_root / "video" / "vtest.det.txt",
        "--detections-scale",
        0.625,
        "-o",
        tmp_path / "o.parquet",
        "-q",
    )
    assert result.exception is None, result.output
    table = pq.read_table(tmp_path / "o.parquet")
    assert table.num_rows == 4359
    assert table["frame"][-1].as_py() == 795
    assert table["time"][-1].as_py() == pytest.approx(79.4)


def test_several_sources_share_one_file(tmp_path: Path, video: Path, detections: Path, tiny_artifact: Path) -> None:
    other = write_video(tmp_path / "other.avi", moving_square(5), fps=5)
    out, trace = tmp_path / "o.parquet", tmp_path / "o.json"
    boxes = ["--detections", detections, "--detections", detections, "--detections", detections]
    options = ["--detections-scale", 0.5, "--video", tmp_path / "o.mp4", "--timeline", trace, "-o", out]
    result = _run(video, other, video, "-m", tiny_artifact, *boxes, *options)
    assert result.exception is None, result.output
    rows = pq.read_table(out).to_pylist()
    frames = {name: [row["frame"] for row in rows if row["camera"] == name] for name in {row["camera"] for row in rows}}
    odd = [number for number in range(1, 13, 2) for _ in range(2)]
    assert frames == {"v": odd, "other": odd[:6], "v-2": odd}
    np.testing.assert_array_equal(
        [row["embedding"] for row in rows if row["camera"] == "v"][:2],
        [row["embedding"] for row in rows if row["camera"] == "v-2"][:2],
    )
    counts = {name: len(read_video(tmp_path / f"o.{name}.mp4")) for name in ("v", "other", "v-2")}
    assert counts == {"v": 12, "other": 5, "v-2": 12}
    assert "other" in result.stdout
    assert {event["cat"] for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"} >= {"decode"}


def test_a_source_that_fails_leaves_the_others_and_keeps_a_part(
    tmp_path: Path, video: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "images"
    broken.mkdir()
    cv2.imwrite(str(broken / "1.png"), np.zeros((100, 80, 3), np.uint8))
    (broken / "2.png").write_text("broken")
    boxes = tmp_path / "d.txt"
    boxes.write_text("".join(f"{number},-1,5,5,50,60\n" for number in range(1, 13)))
    out = tmp_path / "o.parquet"
    options = ["-m", tiny_artifact, "--detections", boxes, "--detections", boxes, "-o", out, "-q", "--camera", "a"]
    with pytest.raises(SystemExit) as stop:
        main(["embed", str(broken), str(video), *map(str, options), "--camera", "b"])
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "1 of 2 cameras failed: a:" in said.err
    assert "2.png cannot be decoded" in said.err
    assert not out.exists()
    table = pq.read_table(tmp_path / "o.partial.parquet")
    assert sorted(table["camera"].to_pylist()) == ["a"] + ["b"] * 12
    assert "o.partial.parquet" in said.out
    assert [line.split()[1] for line in said.out.splitlines() if line[:2] in ("a ", "b ")] == ["failed", "ended"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detections", "d.txt"], "--detections is given 1 times for 2 sources"),
        (["--detector", "hog", "--camera", "a"], "--camera is given 1 times for 2 sources"),
        (["--detector", "hog", "--camera", "a", "--camera", "a"], "--camera a is given twice"),
    ],
)
def test_options_of_several_sources(
    tmp_path: Path, video: Path, tiny_artifact: Path, arguments: list[str], message: str
) -> None:
    result = _run(video, video, "-m", tiny_artifact, "-o", tmp_path / "o.parquet", *arguments)
    assert message in str(result.exception)


def test_model_and_detector_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert choose_threads({"threads": None, "detector": "yolox.onnx"}) == 3
    assert choose_threads({"threads": 5, "detector": "yolox.onnx"}) == 5
    assert choose_threads({"threads": None, "detector": "hog"}) is None
    assert choose_threads({"threads": None, "detector": None}) is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert choose_threads({"threads": None, "detector": "yolox.onnx"}) == 1


def test_names_of_cameras() -> None:
    sources = ["a/door.mp4", "b/door.avi", "0", "rtsp://me:secret@10.0.0.5:554/main?x=1", "gst:videotestsrc ! appsink"]
    assert name_cameras(sources) == ["door", "door-2", "camera 0", "10.0.0.5:554/main", "pipeline"]
