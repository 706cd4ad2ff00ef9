from __future__ import annotations

from pathlib import Path

import pytest

from hamr_edge.looped_source import LoopedSource
from hamr_edge.video import open_source
from tests.scripted_source import ScriptedSource
from tests.video_files import moving_square, square_x, write_video


def test_a_loop_goes_on_counting(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", moving_square(6), fps=50)
    with LoopedSource(open_source(video)) as source:
        assert (source.fps, source.frame_count, source.is_live) == (50, None, False)
        frames = [frame for frame, _ in zip(source, range(15), strict=False)]
    assert [frame.number for frame in frames] == list(range(1, 16))
    assert [frame.recorded_number for frame in frames] == [1 + number % 6 for number in range(15)]
    assert [square_x(frame.image) for frame in frames] == [4 * (number % 6) for number in range(15)]
    times = [frame.time_s for frame in frames]
    assert times == pytest.approx([number / 50 for number in range(15)], abs=2e-3)


def test_a_loop_ends_when_it_is_closed(tmp_path: Path) -> None:
    source = LoopedSource(open_source(write_video(tmp_path / "v.avi", moving_square(3))))
    with source:
        frames = iter(source)
        assert next(frames).number == 1
    assert next(frames, None) is None


def test_a_recording_without_frames_ends() -> None:
    with LoopedSource(ScriptedSource([])) as source:
        assert list(source) == []


def test_a_live_source_is_given_as_it_is() -> None:
    with LoopedSource(ScriptedSource([3], is_live=True)) as source:
        assert source.is_live
        assert [(frame.number, frame.recorded_number) for frame in source] == [(1, None), (2, None), (3, None)]
