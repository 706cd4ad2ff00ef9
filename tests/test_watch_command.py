from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from hamr_edge import Embedder, InputError
from hamr_edge.annotate import draw_people
from hamr_edge.cli import hamr_edge, main
from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import HamrEdgeError, UnavailableError
from hamr_edge.gallery import Gallery
from hamr_edge.sidecar import load_sidecar, sidecar_path, write_sidecar
from hamr_edge.video import open_source
from tests.artifacts import write_tiny_artifact
from tests.motion_jpeg import MotionJpegServer
from tests.video_files import moving_square, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "v.avi", moving_square(30), fps=100)


@pytest.fixture(scope="module")
def detections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detections") / "det.txt"
    path.write_text("".join(f"{number},-1,{4 * number - 4},30,20,20,.9\n" for number in range(1, 31)))
    return path


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, tiny_artifact: Path, video: Path) -> Path:
    """A gallery in which the white square is Ada."""
    path = tmp_path_factory.mktemp("gallery") / "people.npz"
    with open_source(video) as source, Embedder(tiny_artifact, "cpu") as embedder:
        gallery = Gallery(EmbeddingSpace.of(embedder.sidecar))
        gallery.enrol("Ada", embedder.embed(next(iter(source)).image, [[0, 30, 20, 50]]))
        gallery.save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(hamr_edge, ["watch", *map(str, arguments)], standalone_mode=False)


def test_cameras_are_watched_to_their_end(video: Path, detections: Path, tiny_artifact: Path, known: Path) -> None:
    options = ["--detections", detections, "--detections", detections, "--camera", "a", "--camera", "b"]
    result = run(video, video, "-m", tiny_artifact, *options, "--gallery", known, "--fast")
    assert result.exception is None, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line[:2] in ("a ", "b ")}
    assert rows == {name: ["ended", "30", "30", "0", "0", "0", "30"] for name in "ab"}
    assert "people.npz, 1 people" in result.stdout


def test_seconds_end_a_loop(video: Path, detections: Path, tiny_artifact: Path) -> None:
    started = time.monotonic()
    options = ["--detections", detections, "--loop", "--fast", "--seconds", 3, "--quiet"]
    result = run(video, "-m", tiny_artifact, *options)
    assert result.exception is None, result.output
    assert time.monotonic() - started < 20
    assert "stopped on request" in result.stdout
    assert result.stderr == ""
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line[:6] in ("frames", "embedd"))
    frames, people = int(facts["frames"].split(",")[0]), int(facts["embeddings"])
    assert people == frames > 60  # one person in each frame of each pass


def test_frames_that_come_seldom_are_no_stall(tmp_path: Path, tiny_artifact: Path) -> None:
    folder, boxes = tmp_path / "images", tmp_path / "det.txt"
    folder.mkdir()
    for number, image in enumerate(moving_square(3)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    boxes.write_text("1,-1,0,30,20,20,.9\n")
    result = run(
        folder, "-m", tiny_artifact, "--detections", boxes, "--fps", 1.5, "--stall-after", 0.3, "--reconnect", 0
    )
    assert result.exception is None, result.output
    assert "frames      3," in result.stdout
    assert "hangs" not in result.output


def test_a_gallery_of_another_model_is_refused(video: Path, detections: Path, tmp_path: Path, known: Path) -> None:
    other = write_tiny_artifact(tmp_path / "other.onnx", seed=5)
    write_sidecar(replace(load_sidecar(other), source_sha256="1" * 64), sidecar_path(other))
    result = run(video, "-m", other, "--detections", detections, "--gallery", known)
    assert isinstance(result.exception, InputError)


def test_a_gallery_of_another_precision_can_be_allowed(
    video: Path, detections: Path, tiny_artifact: Path, tmp_path: Path, known: Path
) -> None:
    mixed, int8 = tmp_path / "mixed.npz", replace(load_sidecar(tiny_artifact), artifact_sha256="8" * 64, parity={})
    gallery = Gallery(EmbeddingSpace.of(int8))
    gallery.enrol("Bo", np.eye(1, int8.embedding_dim, dtype=np.float32))
    gallery.save(mixed)
    options = ["-m", tiny_artifact, "--detections", detections, "--gallery", mixed, "--fast", "--quiet"]
    assert "not known to agree" in str(run(video, *options).exception)
    result = run(video, *options, "--allow-mixed")
    assert result.exception is None, result.output
    assert "mixed.npz, 1 people" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", ".5"], "--threshold is for --gallery only"),
        (["--allow-mixed"], "--allow-mixed is for --gallery only"),
        (["--http", "here"], "[HOST:]PORT"),
        (["--seconds", "0"], "range x>0"),
    ],
)
def test_options_that_make_no_sense(
    video: Path, detections: Path, tiny_artifact: Path, arguments: list[str], message: str
) -> None:
    result = run(video, "-m", tiny_artifact, "--detections", detections, *arguments)
    assert message in str(result.exception)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for Linux's display")
def test_a_window_needs_a_display(
    video: Path, detections: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    result = run(video, "-m", tiny_artifact, "--detections", detections, "--window")
    assert isinstance(result.exception, UnavailableError)
    assert "--http 8080" in str(result.exception)


def test_a_source_that_does_not_open_is_an_error(
    tmp_path: Path, detections: Path, tiny_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "v.avi"
    broken.write_text("no video")
    with pytest.raises(SystemExit) as stop:
        main(["watch", str(broken), "-m", str(tiny_artifact), "--detections", str(detections), "--quiet"])
    assert stop.value.code == 2
    assert "v.avi is not a video" in capsys.readouterr().err


@pytest.mark.parametrize("reconnect", [0, 1])
def test_cameras_that_all_fail_after_their_first_frames_are_an_error(
    detections: Path, tiny_artifact: Path, reconnect: int
) -> None:
    with MotionJpegServer(frames=20) as camera, MotionJpegServer(frames=20) as other:
        options = ["--detections", detections, "--detections", detections, "--reconnect", reconnect]
        result = run(camera.url, other.url, "-m", tiny_artifact, *options)
    assert isinstance(result.exception, HamrEdgeError), result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("127.0.0.1")]
    assert all(int(row[3]) > 0 for row in rows)  # embedded
    assert len(rows) == 2


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_what_a_camera_does_is_logged_and_quiet_leaves_the_error_that_ends_the_run(
    detections: Path, tiny_artifact: Path, quiet: list[str]
) -> None:
    options = ["-m", str(tiny_artifact), "--detections", str(detections), "--reconnect", "1", *quiet]
    code = "from hamr_edge.cli import main; main()"
    command = [sys.executable, "-c", code, "watch", "http://me:secret@127.0.0.1:1/x", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    *lines, last = done.stderr.splitlines()
    assert last.startswith("Error: http://me:***@127.0.0.1:1/x does not open")
    if quiet:
        assert lines == []
    else:
        assert re.match(r"\d\d:\d\d:\d\d WARNING .* attempt 1 to open it again", lines[0])
        assert not [line for line in lines if "refused" in line]
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_the_page_shows_people_and_ctrl_c_ends_with_a_summary(
    video: Path, detections: Path, tiny_artifact: Path, known: Path
) -> None:
    options = ["-m", tiny_artifact, "--detections", detections, "--gallery", known, "--loop", "--http", "0"]
    code = "from hamr_edge.cli import main; main()"
    command = [sys.executable, "-c", code, "watch", str(video), *map(str, options), "--camera", "door"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        with urlopen(f"{url}camera/door.mjpg", timeout=20) as stream:
            assert stream.readline() == b"--frame\r\n"
        with urlopen(f"{url}metrics", timeout=20) as answer:
            assert 'hamr_edge_requests_total{camera="door",outcome="completed"}' in answer.read().decode()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "stopped on request" in stdout


def test_labels_are_drawn(frame: np.ndarray) -> None:
    boxes = np.array([[20, 60, 60, 110]], np.float32)
    plain = draw_people(frame, boxes, np.array([3]))
    named = draw_people(frame, boxes, np.array([3]), labels=["Zoë 0.91"])
    assert (plain != named).any()
