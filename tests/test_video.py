from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from hamr_edge import capture
from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.video import Capture, ImageSequence, open_source
from tests.motion_jpeg import MotionJpegServer
from tests.video_files import moving_square, square_x, write_video


def test_a_video_file_gives_its_frames_in_order_with_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", moving_square(7), fps=5)
    with open_source(path) as source:
        assert (source.frame_count, source.fps, source.is_live) == (7, 5.0, False)
        frames = list(source)
    assert [frame.number for frame in frames] == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(7) / 5, atol=1e-6)
    assert [square_x(frame.image) for frame in frames] == pytest.approx([4 * i for i in range(7)], abs=1)
    assert frames[0].image.shape == (120, 160, 3)
    frames[0].image[:] = 0  # the receiver owns it
    assert frames[1].image.any()


def test_a_folder_is_read_in_natural_order_whatever_the_sizes(tmp_path: Path) -> None:
    for value, name in enumerate(["f1.png", "f2.PNG", "f10.png"]):
        cv2.imwrite(str(tmp_path / name), np.full((10 + value, 20, 3), value, np.uint8))
    for name in ("notes.txt", "._f3.png"):
        (tmp_path / name).write_text("no image")
    with open_source(tmp_path, fps=4) as source:
        frames = list(source)
        assert source.frame_count == 3
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 1, 2]
    assert [frame.time_s for frame in frames] == [0, 0.25, 0.5]
    assert frames[2].image.shape == (12, 20, 3)


def test_one_image_is_one_frame_even_among_numbered_ones(tmp_path: Path) -> None:
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), np.zeros((8, 8, 3), np.uint8))
    with open_source(tmp_path / "f1.png") as source:
        assert isinstance(source, ImageSequence)
        assert len(list(source)) == 1


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    with open_source(tmp_path) as source, pytest.raises(InputError, match=r"a\.jpg cannot be decoded"):
        list(source)


@pytest.mark.parametrize(
    ("source", "fps", "message"),
    [
        ("gone.avi", None, "gone.avi is not there"),
        ("-1", None, "source -1 is not there"),
        ("empty", None, "holds no images"),
        ("text.avi", 2.0, "for images only"),
        ("text.avi", 0.0, "fps must be above 0"),
        ("text.avi", float("nan"), "fps must be above 0"),
    ],
)
def test_a_source_that_cannot_be(tmp_path: Path, source: str, fps: float | None, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / source if source != "-1" else source, fps)


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(InputError, match="not a video that OpenCV can decode"), open_source(tmp_path / "text.avi"):
        pass


def test_a_video_of_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48)).release()
    with pytest.raises(InputError, match=r"no frame that can be decoded|not a video"), open_source(path) as source:
        list(source)


def test_a_video_that_is_cut_short_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "v.avi", moving_square(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING), open_source(path) as source:
        frames = list(source)
    assert 5 < len(frames) < 28
    assert f"decoded {len(frames)} frames, but the file reports 30" in caplog.text


def test_a_camera_that_is_not_there() -> None:
    source = open_source("97")
    assert isinstance(source, Capture)
    with pytest.raises(UnavailableError, match="camera 97 does not open"):
        source.open()


def test_a_closed_source_says_how_to_open_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", moving_square(2))
    with pytest.raises(HamrEdgeError, match="not open"):
        next(iter(open_source(path)))


def test_a_stream_is_live_and_keeps_the_wall_clocks_time(caplog: pytest.LogCaptureFixture) -> None:
    with (
        MotionJpegServer(frames=12) as camera,
        caplog.at_level(logging.WARNING),
        open_source(camera.url) as source,
    ):
        assert (source.is_live, source.frame_count) == (True, None)
        before = time.time()
        frames = list(source)
        after = time.time()
    assert len(frames) > 8
    times = [frame.time_s for frame in frames]
    assert times[0] == 0
    assert all(0 < after - before < 5 for before, after in itertools.pairwise(times))
    unix_times = [frame.unix_time_s or 0 for frame in frames]
    assert [before, *unix_times, after] == sorted([before, *unix_times, after])
    assert unix_times[-1] - unix_times[0] == pytest.approx(times[-1], abs=0.1)
    assert "stopped giving frames" in caplog.text


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_host_that_never_answers_does_not_hang(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = Capture(f"{scheme}://me:secret@127.0.0.1:{silent.getsockname()[1]}/x", timeout_s=0.2)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=rf"{scheme}://me:\*\*\*@127.0.0.1:\d+/x does not open"):
            source.open()
        assert 0.1 < time.monotonic() - began < 7  # the default would be 8, OpenCV's own 30


def test_a_stream_that_falls_silent_ends(caplog: pytest.LogCaptureFixture) -> None:
    with (
        MotionJpegServer(frames=40, hangs=True) as camera,
        caplog.at_level(logging.WARNING),
        Capture(camera.url, timeout_s=0.3) as source,
    ):
        assert len(list(source)) >= 30
    assert "stopped giving frames" in caplog.text


def _read_late() -> tuple[bool, np.ndarray]:
    """A frame after the time limit, as FFmpeg gives with H.264 that it decodes in several threads."""
    time.sleep(0.03)
    return True, np.zeros((4, 4, 3), np.uint8)


def test_a_frame_after_the_time_limit_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    late = SimpleNamespace(isOpened=lambda: True, get=lambda what: -1.0, read=_read_late, release=lambda: None)
    monkeypatch.setattr(capture, "open_capture", lambda target, timeout_s: late)
    with Capture("rtsp://10.0.0.1/x", timeout_s=0.02) as source, pytest.raises(UnavailableError, match="gave no frame"):
        next(iter(source))
    with Capture(0, timeout_s=0.02) as camera:  # OpenCV cannot limit these
        assert next(iter(camera)).number == 1


def test_closing_in_another_thread_ends_the_frames(caplog: pytest.LogCaptureFixture) -> None:
    with MotionJpegServer(frames=40, hangs=True) as camera, Capture(camera.url, timeout_s=1) as source:
        frames: list[int] = []
        thread = threading.Thread(target=lambda: frames.extend(frame.number for frame in source))
        thread.start()
        while len(frames) == 0 and thread.is_alive() and camera.connections == 0:
            time.sleep(0.01)
        time.sleep(0.2)  # by now the thread waits inside OpenCV, most likely
        source.close()
        source.close()
        thread.join(10)
        assert not thread.is_alive()
        assert "stopped giving frames" not in caplog.text
        with pytest.raises(HamrEdgeError, match="not open"):
            next(iter(source))


def test_a_fresh_source_is_the_same_one_not_open(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", moving_square(3))
    with open_source(path) as source:
        fresh = source.fresh()
        with pytest.raises(HamrEdgeError, match="not open"):
            next(iter(fresh))
        with fresh:
            assert fresh.name == source.name
            assert len(list(fresh)) == len(list(source)) == 3


def test_many_sources_opened_at_once_leave_opencvs_log_as_it_was(tmp_path: Path) -> None:
    log: Any = getattr(cv2.utils, "logging", cv2)
    level = log.getLogLevel()
    path = tmp_path / "text.avi"
    path.write_text("no video")

    def open_one() -> None:
        with pytest.raises(InputError):
            Capture(str(path)).open()

    threads = [threading.Thread(target=open_one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.getLogLevel() == level


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_a_time_limit_that_cannot_be(timeout_s: float) -> None:
    with pytest.raises(InputError, match="timeout_s must be above 0"):
        Capture(0, timeout_s)
