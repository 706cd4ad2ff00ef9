from __future__ import annotations

import itertools
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge import frame_reader
from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.frame_reader import FrameReader
from hamr_edge.frame_source import Frame
from hamr_edge.reader_status import ReaderStatus
from hamr_edge.reconnect import Reconnect
from hamr_edge.video import Capture, open_source
from tests.motion_jpeg import MotionJpegServer
from tests.scripted_source import ScriptedSource
from tests.video_files import moving_square, write_video

AT_ONCE = Reconnect(first_delay_s=0.01, longest_delay_s=0.02)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for what must happen; fail after 10 s."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def check_counts(status: ReaderStatus) -> None:
    assert status.decoded == status.delivered + status.dropped + status.waiting


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a source hangs on; its thread goes on at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_recording_comes_whole_as_the_source_gives_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", moving_square(17))
    with open_source(path) as source:
        wanted = list(source)
    with FrameReader(open_source(path), ahead=3) as reader:
        frames = list(reader)
        assert reader.read() is None
        assert (reader.source.fps, reader.source.frame_count) == (10.0, 17)
        assert reader.status == ReaderStatus("ended", 17, 17, 0, 0, 0, 0, "")
    assert [(frame.number, frame.time_s, frame.unix_time_s) for frame in frames] == [
        (frame.number, frame.time_s, None) for frame in wanted
    ]
    for frame, same in zip(frames, wanted, strict=True):
        np.testing.assert_array_equal(frame.image, same.image)
    assert reader.status.state == "closed"


def test_a_recording_waits_for_its_reader() -> None:
    source = ScriptedSource([50])
    with FrameReader(source, ahead=3) as reader:
        wait_until(lambda: reader.status.waiting == 3)
        time.sleep(0.02)
        assert len(source.given) <= 4
        assert [frame.number for frame in reader] == list(range(1, 51))
        assert reader.status.dropped == 0
    assert source.log == ["open", "close"]


@pytest.mark.parametrize("choice", ["its own", "drop_oldest"])
def test_a_live_source_drops_the_oldest_and_counts_it(choice: str, never: threading.Event) -> None:
    source = ScriptedSource([50, never], is_live=choice == "its own")
    with FrameReader(source, ahead=3, when_full=None if choice == "its own" else "drop_oldest") as reader:
        wait_until(lambda: reader.status.decoded == 50)
        check_counts(reader.status)
        frames = [reader.read() for _ in range(3)]
        assert [frame.number for frame in frames if frame] == [48, 49, 50]
        assert reader.status == ReaderStatus("running", 50, 3, 47, 0, 0, 0, "")
        never.set()


def test_a_live_source_may_be_told_to_wait() -> None:
    with FrameReader(ScriptedSource([30], is_live=True), when_full="block") as reader:
        assert [frame.number for frame in reader] == list(range(1, 31))


@given(
    count=st.integers(0, 30),
    ahead=st.integers(1, 5),
    when_full=st.sampled_from(["block", "drop_oldest"]),
    reads=st.integers(0, 40),
    fails=st.booleans(),
)
def test_counts_add_up(count: int, ahead: int, when_full: Any, reads: int, fails: bool) -> None:
    source = ScriptedSource([count, InputError("broken")] if fails else [count])
    numbers = []
    reader = FrameReader(source, ahead=ahead, when_full=when_full)
    with reader:
        for _ in range(reads):
            if fails and len(numbers) + reader.status.dropped == count:
                with pytest.raises(InputError):
                    reader.read()
                break
            frame = reader.read()
            check_counts(reader.status)
            if frame is None:
                break
            numbers.append(frame.number)
    status = reader.status
    check_counts(status)
    assert status.delivered == len(numbers)
    assert numbers == sorted(set(numbers))
    if when_full == "block":
        assert status.dropped == 0
        assert numbers == list(range(1, min(count, reads) + 1))


def test_what_the_source_raises_comes_as_it_was_after_the_frames_before_it() -> None:
    error = ZeroDivisionError("odd")
    with FrameReader(ScriptedSource([3, error], is_live=True), ahead=9, reconnect=AT_ONCE) as reader:
        for number in (1, 2, 3):
            frame = reader.read()
            assert frame is not None
            assert frame.number == number
        for _ in range(2):
            with pytest.raises(ZeroDivisionError) as raised:
                reader.read()
            assert raised.value is error
        status = reader.status
    assert (status.state, status.error) == ("failed", "odd")


def test_a_damaged_file_is_said_as_without_a_reader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "v.avi", moving_square(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING), FrameReader(open_source(path), reconnect=AT_ONCE) as reader:
        count = len(list(reader))
        assert reader.status.state == "ended"
    assert f"decoded {count} frames, but the file reports 30" in caplog.text
    path.write_bytes(bytes(5000))
    with (
        FrameReader(open_source(path), reconnect=AT_ONCE) as reader,
        pytest.raises(InputError, match="not a video that OpenCV can decode"),
    ):
        reader.read()


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


def test_a_time_limit_of_the_reader_leaves_the_frame_to_come(never: threading.Event) -> None:
    with FrameReader(ScriptedSource([1, never, 1])) as reader:
        assert reader.read(timeout_s=5) is not None
        with pytest.raises(TimeoutError, match=r"scripted gave no frame within 0\.01 s"):
            reader.read(timeout_s=0.01)
        never.set()
        frame = reader.read(timeout_s=5)
        assert frame is not None
        assert frame.number == 2


@pytest.mark.parametrize("ahead_of_close", ["waits", "hangs", "backs off"])
def test_close_wakes_who_reads_and_never_hangs(
    ahead_of_close: str, never: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_reader, "_CLOSE_WAIT_S", 0.05)
    sources = {
        "waits": ScriptedSource([9]),
        "hangs": ScriptedSource([never, 9]),
        "backs off": ScriptedSource(UnavailableError("gone")),
    }
    source = sources[ahead_of_close]
    reader = FrameReader(source, reconnect=Reconnect(60, longest_delay_s=60), stall_after_s=math.inf)
    reader.open()
    reader.open()
    got: list[Frame | None] = []
    readers = [threading.Thread(target=lambda: got.append(reader.read())) for _ in range(2)]
    if ahead_of_close == "waits":
        wait_until(lambda: reader.status.waiting == 2)
    else:
        for thread in readers:
            thread.start()
        wait_until(lambda: source.log if ahead_of_close == "hangs" else reader.status.state == "reconnecting")
    for _ in range(2):
        reader.close()
    if ahead_of_close == "hangs":  # still, and nobody waits for it
        assert any(thread.name == "decode scripted" for thread in threading.enumerate())
    for thread in readers:
        if thread.ident:
            thread.join(5)
            assert not thread.is_alive()
    assert reader.read() is None
    assert not any(got)
    assert reader.status.state == "closed"
    check_counts(reader.status)
    never.set()
    wait_until(lambda: "close" in source.log or ahead_of_close == "backs off")
    with pytest.raises(HamrEdgeError, match="was closed; make another"):
        reader.open()


def test_each_frame_goes_to_one_of_several_threads() -> None:
    numbers: list[int] = []
    with FrameReader(ScriptedSource([500])) as reader:
        threads = [threading.Thread(target=lambda: numbers.extend(f.number for f in reader)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted(numbers) == list(range(1, 501))


def test_a_reader_that_is_not_open_says_so() -> None:
    reader = FrameReader(ScriptedSource([1]))
    reader.close()
    assert reader.status == ReaderStatus("closed", 0, 0, 0, 0, 0, 0, "")
    with pytest.raises(HamrEdgeError, match="not open"):
        reader.read()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ahead": 0}, "ahead must be at least 1 frame, got 0"),
        ({"when_full": "reject"}, "when_full must be block, drop_oldest or None, got 'reject'"),
        ({"stall_after_s": 0}, "stall_after_s must be above 0, got 0"),
        ({"stall_after_s": math.nan}, "stall_after_s must be above 0, got nan"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrameReader(ScriptedSource([1]), **settings)


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
