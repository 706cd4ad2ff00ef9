from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from hamr_edge.errors import InputError
from hamr_edge.timeline import Span, TimedSource, Timeline, overlap_share
from hamr_edge.video import open_source
from tests.video_files import moving_square, square_x, write_video


def spans(stage: str, *times: tuple[float, float]) -> list[Span]:
    return [Span(stage, "", "t", start, end) for start, end in times]


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ([(0, 10)], [(2, 4), (8, 12)], 0.4),
        ([(0, 2), (1, 3), (5, 6)], [(0, 100)], 1.0),
        ([(0, 2), (4, 6)], [(1, 5)], 0.5),
        ([(0, 4)], [(1, 3), (1, 3), (2, 3)], 0.5),
        ([(0, 4)], [(4, 8)], 0.0),
        ([(0, 4)], [], 0.0),
        ([], [(0, 4)], 0.0),
    ],
)
def test_the_share_of_a_stage_in_which_another_was_at_work(
    first: list[tuple[float, float]], second: list[tuple[float, float]], share: float
) -> None:
    assert overlap_share(spans("a", *first) + spans("b", *second), "a", "b") == pytest.approx(share)


def test_spans_of_many_threads_are_summed_and_kept(tmp_path: Path) -> None:
    timeline = Timeline()
    barrier = threading.Barrier(3)

    def work(number: int) -> None:
        with timeline.span("detect", f"camera {number}"):
            barrier.wait(10)
            time.sleep(0.01)

    threads = [threading.Thread(target=work, args=[number], name=f"thread {number}") for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ValueError, match="on purpose"), timeline.span("crop"):
        raise ValueError("on purpose")
    timeline.stop()
    timeline.stop()
    assert timeline.stage_seconds["detect"] >= 0.03
    assert list(timeline.stage_seconds) == ["detect", "crop"]
    assert timeline.total_s < timeline.stage_seconds["detect"]  # they worked side by side
    timeline.write_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    threads_named = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    work_events = [event for event in events if event["ph"] == "X"]
    assert len(work_events) == 4
    detects = [event for event in work_events if event["name"] == "detect"]
    assert {threads_named[event["tid"]] for event in detects} == {"thread 0", "thread 1", "thread 2"}
    latest_start, first_end = max(e["ts"] for e in detects), min(e["ts"] + e["dur"] for e in detects)
    assert latest_start < first_end
    with pytest.raises(InputError, match="--timeline"):
        timeline.write_trace(tmp_path / "nowhere" / "trace.json")


def test_threads_of_one_name_have_a_row_each(tmp_path: Path) -> None:
    timeline, barrier = Timeline(), threading.Barrier(2)

    def work() -> None:
        with timeline.span("decode"):
            barrier.wait(10)

    threads = [threading.Thread(target=work, name="decode v.avi") for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    timeline.write_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert len({event["tid"] for event in events if event["ph"] == "X"}) == 2


def test_a_timed_source_gives_the_same_frames(tmp_path: Path) -> None:
    timeline = Timeline()
    source = TimedSource(open_source(write_video(tmp_path / "v.avi", moving_square(5))), timeline, "door")
    with source:
        assert (source.fps, source.frame_count, source.is_live) == (10.0, 5, False)
        assert [square_x(frame.image) for frame in source] == [0, 4, 8, 12, 16]
    assert [(span.stage, span.camera) for span in timeline.spans] == [("decode", "door")] * 6  # the last finds the end
