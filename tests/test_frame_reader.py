from __future__ import annotations

import logging
import math
import threading
import time
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
from hamr_edge.video import open_source
from tests.scripted_source import AT_ONCE, ScriptedSource, check_counts, wait_until
from tests.video_files import moving_square, write_video


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


def test_a_paced_recording_comes_at_its_own_times_and_waiting_is_no_stall() -> None:
    with FrameReader(ScriptedSource([4], fps=5), paced=True, stall_after_s=0.1) as reader:
        came_s = []
        for frame in reader:
            came_s.append(time.monotonic() - frame.time_s)
            assert reader.status.state != "stalled"
        status = reader.status
    assert len(came_s) == 4
    assert min(came_s) >= came_s[0] - 0.01  # none before its time
    assert (status.state, status.abandoned) == ("ended", 0)


def test_a_live_source_and_one_that_is_not_paced_come_at_once() -> None:
    for paced, is_live in ((True, True), (False, False)):
        started_s = time.monotonic()
        with FrameReader(ScriptedSource([4], is_live=is_live, fps=0.1), paced=paced, when_full="block") as reader:
            assert len(list(reader)) == 4
        assert time.monotonic() - started_s < 5


def test_closing_wakes_the_thread_that_waits_for_a_frames_time(caplog: pytest.LogCaptureFixture) -> None:
    reader = FrameReader(ScriptedSource([3], fps=0.01), paced=True)
    with reader:
        assert reader.read() is not None
        threading.Timer(0.05, reader.close).start()
        assert reader.read() is None
    wait_until(lambda: not any(thread.name == "decode scripted" for thread in threading.enumerate()))
    assert caplog.text == ""  # nothing was left behind


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
