from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.frame_reader import FrameReader
from hamr_edge.reconnect import Reconnect
from hamr_edge.video import Capture, open_source
from tests.motion_jpeg import MotionJpegServer
from tests.scripted_source import AT_ONCE, ScriptedSource, check_counts, wait_until


def test_a_recording_that_hangs_is_stalled_and_then_an_error(never: threading.Event) -> None:
    with FrameReader(ScriptedSource([2, never]), reconnect=AT_ONCE, stall_after_s=0.1) as reader:
        assert reader.status.state in ("opening", "running")
        wait_until(lambda: reader.status.state == "stalled")
        assert [reader.read() is not None for _ in range(2)] == [True, True]
        with pytest.raises(UnavailableError, match=r"scripted hangs: no frame and no error for 0\.1 s"):
            reader.read()
        status = reader.status
        assert (status.state, status.abandoned, status.reconnects) == ("failed", 1, 0)
        check_counts(status)


def test_a_slow_reader_is_no_stall() -> None:
    with FrameReader(ScriptedSource([3]), ahead=1, stall_after_s=0.2) as reader:
        for _ in range(3):
            time.sleep(0.25)
            assert reader.status.state in ("running", "ended")
            assert reader.read() is not None
        assert reader.read() is None


def test_a_camera_that_hangs_is_opened_anew_and_its_late_frames_are_ignored(never: threading.Event) -> None:
    waiting = threading.Event()
    source = ScriptedSource([3, never, 100], [never, 5], [4, waiting], is_live=True)
    with FrameReader(source, ahead=8, when_full="block", reconnect=AT_ONCE, stall_after_s=0.3) as reader:
        frames = [reader.read() for _ in range(7)]  # the second session hangs before its first frame
        assert [frame.number for frame in frames if frame] == [1, 2, 3, 4, 5, 6, 7]
        assert [int(frame.image[0, 0, 0]) for frame in frames if frame] == [1, 2, 3, 1, 2, 3, 4]
        times = [frame.time_s for frame in frames if frame]
        assert times[:3] == [0, 0.01, 0.02]
        assert times[3] > 0.6  # two stalls
        np.testing.assert_allclose(np.diff(times[3:]), 0.01)
        assert all(frame.unix_time_s for frame in frames if frame)
        assert source.log.count("fresh") == 2
        never.set()
        wait_until(lambda: source.log.count("close") == 2)  # each thread that was left behind closes its own
        status = reader.status
        assert (status.decoded, status.reconnects, status.abandoned) == (7, 1, 2)
        check_counts(status)
        waiting.set()


def test_the_reader_shows_the_source_that_it_reads(never: threading.Event) -> None:
    class Camera(ScriptedSource):
        """Knows what it is once it is open, as a capture does."""

        def fresh(self) -> Camera:
            other = Camera()
            other.sessions, other.log, other.given = self.sessions, self.log, self.given
            return other

        def open(self) -> None:
            super().open()
            if self.log.count("open") == 1:
                never.wait(20)
            self.fps, self.is_live = 8.0, True

    given = Camera([1], [3, never], UnavailableError("gone"))
    with FrameReader(given, ahead=9, reconnect=AT_ONCE, stall_after_s=0.2) as reader:
        assert reader.source is given
        assert reader.read() is not None
        assert reader.source is not given
        assert (given.fps, given.is_live) == (100.0, False)
        assert (reader.source.fps, reader.source.is_live) == (8.0, True)
        assert [reader.read() is not None for _ in range(2)] == [True, True]
        with pytest.raises(TimeoutError):
            reader.read(timeout_s=0.5)  # another that does not open
        assert (reader.source.fps, reader.source.is_live) == (8.0, True)
        never.set()


def test_a_camera_that_breaks_off_goes_on_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    gone = UnavailableError("the camera is gone")
    source = ScriptedSource([3, gone], gone, gone, [2], [2, InputError("enough")], is_live=True)
    with caplog.at_level(logging.WARNING), FrameReader(source, ahead=99, reconnect=AT_ONCE) as reader:
        frames = [frame for frame in (reader.read() for _ in range(7)) if frame]
        with pytest.raises(InputError, match="enough"):
            reader.read()
        check_counts(reader.status)
    assert [frame.number for frame in frames] == [1, 2, 3, 4, 5, 6, 7]
    assert all(before.time_s <= after.time_s for before, after in itertools.pairwise(frames))
    assert reader.status.reconnects == 2
    assert source.log == ["open", "close", "open", "open", *["open", "close"] * 2]
    assert "the camera is gone; attempt 3 to open it again in 0.0 s" in caplog.text
    assert "stopped giving frames" in caplog.text


def test_a_camera_that_is_not_there_yet_is_waited_for() -> None:
    gone = UnavailableError("not there")
    with FrameReader(ScriptedSource(gone, gone, [3], [1, InputError("end")]), reconnect=AT_ONCE) as reader:
        assert reader.read() is not None
        assert reader.status.reconnects == 0
        assert len(list(reader)) == 2
    with FrameReader(ScriptedSource(gone)) as reader, pytest.raises(UnavailableError) as raised:
        reader.read()
    assert raised.value is gone


def test_attempts_end() -> None:
    gone = UnavailableError("the camera is gone")
    source = ScriptedSource([1], gone, is_live=True)
    with FrameReader(source, reconnect=Reconnect(0.05, longest_delay_s=0.05, attempts=3)) as reader:
        assert reader.read() is not None
        with pytest.raises(UnavailableError) as raised:
            reader.read()
    assert raised.value is gone
    assert source.log.count("open") == 4


def test_a_camera_that_breaks_off_after_each_reconnect_has_not_recovered() -> None:
    source = ScriptedSource([1], is_live=True)
    with FrameReader(source, ahead=9, reconnect=Reconnect(0.2, longest_delay_s=0.2, attempts=2)) as reader:
        assert all(reader.read() for _ in range(3))
        with pytest.raises(UnavailableError, match="scripted stopped giving frames"):
            reader.read()
    assert source.log.count("open") == 3


def test_a_recording_that_breaks_is_not_opened_again() -> None:
    source = ScriptedSource([3, UnavailableError("the disk is gone")])
    with FrameReader(source, reconnect=AT_ONCE) as reader, pytest.raises(UnavailableError, match="the disk"):
        list(reader)
    assert source.log.count("open") == 1


def test_threads_that_hang_do_not_pile_up_for_ever(never: threading.Event) -> None:
    source = ScriptedSource([never], is_live=True)
    before = threading.active_count()
    with (
        FrameReader(source, reconnect=AT_ONCE, stall_after_s=0.01) as reader,
        pytest.raises(UnavailableError, match="hangs"),
    ):
        reader.read()
    assert threading.active_count() == before + reader.status.abandoned == before + 8
    never.set()
    wait_until(lambda: threading.active_count() == before)


def test_a_network_camera_that_dies_and_comes_back() -> None:
    with MotionJpegServer() as camera:
        reader = FrameReader(open_source(camera.url), reconnect=Reconnect(0.02, longest_delay_s=0.1))
        reader.open()
        first = [reader.read() for _ in range(10)]
        port = camera.port
    wait_until(lambda: reader.read() and reader.status.state == "reconnecting" if reader.status.waiting else True)
    wait_until(lambda: reader.status.state == "reconnecting")
    assert "stopped giving frames" in reader.status.error or "does not open" in reader.status.error
    with MotionJpegServer(port), reader:
        last = [reader.read() for _ in range(20)]
    frames = [frame for frame in (*first, *last) if frame]
    assert len(frames) == 30
    for before, after in itertools.pairwise(frames):
        assert before.number < after.number
        assert before.time_s < after.time_s
        assert 1e9 < (before.unix_time_s or 0) <= (after.unix_time_s or 0)
    status = reader.status
    assert (status.reconnects, status.abandoned) == (1, 0)
    check_counts(status)


def test_a_process_ends_although_a_thread_hangs_in_opencv() -> None:
    code = (
        "import sys; from hamr_edge.video import Capture; from hamr_edge.frame_reader import FrameReader\n"
        "reader = FrameReader(Capture(sys.argv[1], timeout_s=60), stall_after_s=0.5)\n"
        "reader.open(); numbers = []\n"
        "try:\n    numbers.extend(frame.number for frame in reader)\n"
        "except Exception as error: print(type(error).__name__, 'hangs' in str(error))\n"
        "print(reader.status.state, reader.status.abandoned)"
    )
    with MotionJpegServer(frames=100, hangs=True) as camera:
        done = subprocess.run(
            [sys.executable, "-c", code, camera.url], capture_output=True, text=True, timeout=30, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["UnavailableError", "True", "failed", "1"]


def test_a_camera_on_the_network_that_falls_silent_is_opened_again() -> None:
    with (
        MotionJpegServer(frames=40, hangs=True) as camera,
        FrameReader(
            Capture(camera.url, timeout_s=0.3), ahead=99, reconnect=Reconnect(0.02, longest_delay_s=0.02)
        ) as reader,
    ):
        wait_until(lambda: camera.connections == 3)
        frames = [reader.read() for _ in range(60)]
        assert [frame.number for frame in frames if frame] == list(range(1, 61))
        assert reader.status.reconnects >= 1
        assert reader.status.abandoned == 0
