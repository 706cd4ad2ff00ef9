from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from hamr_edge.frame_reader import FrameReader
from hamr_edge.played_source import PlayedSource
from hamr_edge.video import open_source
from tests.video_files import moving_square, square_x, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "v.avi", moving_square(6), fps=50)


def test_frames_come_at_their_time(video: Path) -> None:
    with PlayedSource(open_source(video)) as source:
        assert (source.fps, source.frame_count, source.is_live) == (50, 6, False)
        started = time.monotonic()
        moments = [(frame.time_s, time.monotonic() - started) for frame in source]
    assert len(moments) == 6
    assert all(moment >= time_s - 0.002 for time_s, moment in moments)


def test_a_loop_goes_on_counting(video: Path) -> None:
    with PlayedSource(open_source(video), paced=False, loop=True) as source:
        assert source.frame_count is None
        frames = [frame for frame, _ in zip(source, range(15), strict=False)]
    assert [frame.number for frame in frames] == list(range(1, 16))
    assert [square_x(frame.image) for frame in frames] == [4 * (number % 6) for number in range(15)]
    times = [frame.time_s for frame in frames]
    assert times == pytest.approx([number / 50 for number in range(15)], abs=2e-3)


def test_closing_wakes_a_thread_that_waits_for_a_frames_time(tmp_path: Path) -> None:
    slow = write_video(tmp_path / "slow.avi", moving_square(3), fps=0.1)
    with FrameReader(PlayedSource(open_source(slow))) as reader:
        assert reader.read() is not None
        threading.Timer(0.05, reader.close).start()
        started = time.monotonic()
        assert reader.read() is None
    assert time.monotonic() - started < 5
