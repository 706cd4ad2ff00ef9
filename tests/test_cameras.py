from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder, InputError
from hamr_edge.cameras import Camera, CameraPipeline
from hamr_edge.frame_reader import FrameReader
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.timeline import Timeline
from hamr_edge.video import Frame, FrameSource, open_source
from tests.scripted_source import wait_until
from tests.slow_embedder import HeldEmbedder
from tests.video_files import moving_square, write_video

FRAMES = 40


class ListedFrames(FrameSource):
    """Frames from memory, with a fault at one of them."""

    def __init__(self, name: str, count: int = FRAMES, fault_at: int = -1, fault: Exception | None = None) -> None:
        self.name, self.fps, self.frame_count, self.is_live = name, 10.0, count, False
        self._fault_at, self._fault = fault_at, fault
        self.let_go = threading.Event()

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def fresh(self) -> FrameSource:
        return ListedFrames(self.name, self.frame_count or 0)

    def __iter__(self) -> Iterator[Frame]:
        images = moving_square(FRAMES)
        for index in range(self.frame_count or 0):
            if index == self._fault_at:
                if self._fault is not None:
                    raise self._fault
                self.let_go.wait(30)
            yield Frame(index + 1, index / self.fps, images[index % FRAMES])


def find_square(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The square, and as many boxes around it as the frame's number says, 0 to 3."""
    x = 4 * (frame.number - 1) % 100
    boxes = np.array([[x, 20, x + 20 + more, 60] for more in range(frame.number % 4)], np.float32).reshape(-1, 4)
    return boxes, np.ones(len(boxes), np.float32)


@pytest.fixture
def service(tiny_artifact: Path) -> Iterator[EmbeddingService]:
    with Embedder(tiny_artifact, "cpu", 1) as embedder, EmbeddingService(embedder, max_delay_ms=2) as service:
        yield service


def check_sums(pipeline: CameraPipeline) -> None:
    """After the end: what is not embedded, failed or dropped is what the readers still hold, and nothing else."""
    for name, report in pipeline.report().items():
        lane = pipeline._lanes[name]
        assert report.waiting == lane.reader.status.waiting + len(lane.waiting)
        assert report.decoded == report.embedded + report.failed + report.dropped + report.waiting


def test_every_frame_of_every_camera_comes_once_and_in_order(
    service: EmbeddingService, tiny_artifact: Path, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "v.avi", moving_square(FRAMES))
    cameras = [Camera(f"c{number}", open_source(video), find_square) for number in range(4)]
    numbers: dict[str, list[int]] = {camera.name: [] for camera in cameras}
    timeline = Timeline()
    with Embedder(tiny_artifact, "cpu", 1) as alone, CameraPipeline(cameras, service, timeline=timeline) as pipeline:
        for seen in pipeline:
            numbers[seen.camera].append(seen.frame.number)
            expected = alone.embed(seen.frame.image, seen.boxes)
            np.testing.assert_allclose(seen.embeddings, expected, atol=1e-6)
            assert all(report.waiting >= 0 for report in pipeline.report().values())
    assert numbers == {camera.name: list(range(1, FRAMES + 1)) for camera in cameras}
    for report in pipeline.report().values():
        assert (report.state, report.decoded, report.embedded) == ("ended", FRAMES, FRAMES)
        assert (report.waiting, report.error, report.last_time_s) == (0, "", pytest.approx((FRAMES - 1) / 10, abs=0.01))
        assert report.people == sum(number % 4 for number in range(1, FRAMES + 1))
    assert set(timeline.stage_seconds) == {"decode", "detect"}


def test_faults_stay_with_their_camera(service: EmbeddingService, caplog: pytest.LogCaptureFixture) -> None:
    def raises_sometimes(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        if frame.number % 10 == 3:
            raise RuntimeError("the detector is tired")
        return find_square(frame)

    def garbage_boxes(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        boxes = np.array([[np.nan, 0, 5, 5]], np.float32) if frame.number % 10 == 0 else find_square(frame)[0]
        return boxes, np.ones(len(boxes), np.float32)

    stalls = ListedFrames("stalls", fault_at=20)
    cameras = [
        Camera("good", ListedFrames("good"), find_square),
        Camera("ends", ListedFrames("ends", count=7), find_square),
        Camera("breaks", ListedFrames("breaks", fault_at=9, fault=InputError("frame 10 is garbage")), find_square),
        Camera("stalls", stalls, find_square),
        Camera("tired", ListedFrames("tired"), raises_sometimes),
        Camera("boxes", ListedFrames("boxes"), garbage_boxes),
    ]
    readers = [FrameReader(camera.source, stall_after_s=0.3) for camera in cameras]
    with CameraPipeline(cameras, service, readers=readers) as pipeline:
        seen = [item.camera for item in pipeline]
    stalls.let_go.set()
    check_sums(pipeline)
    report = pipeline.report()
    got = {name: (r.state, r.decoded, r.embedded, r.failed) for name, r in report.items()}
    assert got == {
        "good": ("ended", 40, 40, 0),
        "ends": ("ended", 7, 7, 0),
        "breaks": ("failed", 9, 9, 0),
        "stalls": ("failed", 20, 20, 0),
        "tired": ("ended", 40, 36, 4),
        "boxes": ("ended", 40, 36, 4),
    }
    assert all(seen.count(name) == r.embedded for name, r in report.items())
    assert all(r.waiting == 0 for r in report.values())
    assert "garbage" in report["breaks"].error
    assert "frame 33: the detector is tired" in report["tired"].error
    assert "boxes" in report["boxes"].error
    assert "0.3 s" in report["stalls"].error
    assert "tired: frame 3 failed" in caplog.text


def test_a_detector_that_always_raises_ends_its_camera(service: EmbeddingService) -> None:
    def broken(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        raise RuntimeError("no weights")

    cameras = [Camera("bad", ListedFrames("bad", 100), broken), Camera("good", ListedFrames("good"), find_square)]
    with CameraPipeline(cameras, service) as pipeline:
        assert {seen.camera for seen in pipeline} == {"good"}
    bad = pipeline.report()["bad"]
    assert (bad.state, bad.failed) == ("failed", 25)
    assert "25 frames in a row failed" in bad.error
    assert "no weights" in bad.error
    check_sums(pipeline)


def test_boxes_of_another_frame_size_end_their_camera_at_once(service: EmbeddingService) -> None:
    def refuse(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        raise InputError("box lies outside")

    with CameraPipeline([Camera("a", ListedFrames("a"), refuse)], service) as pipeline:
        assert list(pipeline) == []
    assert pipeline.report()["a"].state == "failed"
    assert pipeline.report()["a"].failed == 1
    assert pipeline.report()["a"].error == "box lies outside"
    check_sums(pipeline)


def test_a_slow_receiver_holds_the_sources_up_and_nothing_grows(service: EmbeddingService) -> None:
    with CameraPipeline([Camera("a", ListedFrames("a"), find_square)], service, in_flight=2) as pipeline:
        frames = iter(pipeline)
        next(frames)
        time.sleep(0.1)
        report = pipeline.report()["a"]
        assert report.waiting <= 2 + 2 + 2  # in flight, ahead, in hand
        assert len(list(frames)) == FRAMES - 1


def test_a_service_that_drops_is_counted(tiny_artifact: Path) -> None:
    with (
        HeldEmbedder(tiny_artifact) as held,
        EmbeddingService(held, max_delay_ms=0, queue_size=1, when_full="drop_oldest") as service,
    ):
        held.hold()
        camera = Camera("a", ListedFrames("a"), find_square)
        with CameraPipeline([camera], service, in_flight=8) as pipeline:
            threading.Timer(0.2, held.let_go).start()
            given = len(list(pipeline))
    report = pipeline.report()["a"]
    assert report.dropped > 0
    assert report.dropped == service.metrics().cameras["a"].dropped
    assert (report.embedded, report.waiting) == (given, 0)
    assert given + report.dropped == FRAMES


@pytest.mark.parametrize("by_question", [False, True])
def test_stopping_gives_what_is_on_its_way_and_no_more(service: EmbeddingService, by_question: bool) -> None:
    asked = threading.Event()
    endless = [Camera(f"c{number}", ListedFrames(f"c{number}", 100_000), find_square) for number in range(2)]
    should_stop = asked.is_set if by_question else None
    with CameraPipeline(endless, service, should_stop=should_stop) as pipeline:
        count = 0
        for _ in pipeline:
            count += 1
            if count == 20:
                asked.set() if by_question else pipeline.stop()
    assert 20 <= count < 100_000
    for report in pipeline.report().values():
        assert report.state == "stopped"
        assert report.embedded + report.waiting == report.decoded
    check_sums(pipeline)


def test_a_receiver_that_is_slow_does_not_outvote_who_wants_to_stop(service: EmbeddingService) -> None:
    count, asked = 0, 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return count >= 10

    cameras = [Camera("a", ListedFrames("a", 100_000), find_square)]
    with CameraPipeline(cameras, service, should_stop=should_stop, in_flight=4) as pipeline:
        for _ in pipeline:
            count += 1
            time.sleep(0.05)  # a frame is ready whenever this is over
            assert count < 100, "nobody asked"
    assert asked >= 3
    check_sums(pipeline)


@pytest.mark.parametrize("by", ["stop", "close"])
def test_iteration_ends_though_a_detector_hangs(
    service: EmbeddingService, by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hamr_edge.cameras._STOP_WAIT_S", 0.2)
    hangs, let_go = threading.Event(), threading.Event()

    def hang_at_3(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        if frame.number == 3:
            hangs.set()
            assert let_go.wait(30)
        return find_square(frame)

    given: list[int] = []
    with CameraPipeline([Camera("door", ListedFrames("door"), hang_at_3)], service) as pipeline:
        iterating = threading.Thread(target=lambda: given.extend(seen.frame.number for seen in pipeline))
        iterating.start()
        assert hangs.wait(10)
        wait_until(lambda: len(given) == 2)
        pipeline.stop() if by == "stop" else pipeline.close()
        iterating.join(20)
        assert not iterating.is_alive()
        let_go.set()
        wait_until(lambda: pipeline.report()["door"].state == "stopped")
    assert given == [1, 2]
    if by == "stop":
        assert "door: the detector does not return" in caplog.text


def test_ticks_come_where_no_frame_does(service: EmbeddingService) -> None:
    source = ListedFrames("a", 10, fault_at=5)
    with CameraPipeline([Camera("a", source, find_square)], service) as pipeline:
        seen, ticks = 0, 0
        for item in pipeline.frames(tick_s=0.01):
            if item is None:
                ticks += 1
                if ticks == 5:
                    source.let_go.set()
            else:
                seen += 1
    assert seen == 10
    assert ticks >= 5
    check_sums(pipeline)


def test_a_frame_that_its_receiver_cannot_use_is_a_failed_one(service: EmbeddingService) -> None:
    cameras = [Camera(name, ListedFrames(name), find_square) for name in ("good", "bad")]
    with CameraPipeline(cameras, service) as pipeline:
        for seen in pipeline:
            if seen.camera == "bad" and (seen.frame.number == 3 or seen.frame.number > 10):
                pipeline.frame_failed(seen, InputError("it is upside down"))
    report = pipeline.report()
    assert (report["good"].embedded, report["good"].failed) == (FRAMES, 0)
    assert report["bad"].embedded == 9
    assert 26 <= report["bad"].failed <= 26 + 5  # those that were on their way already
    assert report["bad"].people == sum(number % 4 for number in range(1, 11) if number != 3)
    assert report["bad"].state == "failed"
    assert "25 frames in a row" in report["bad"].error
    check_sums(pipeline)


def test_a_service_that_breaks_loses_no_count(
    service: EmbeddingService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with CameraPipeline([Camera(name, ListedFrames(name), find_square) for name in "ab"], service) as pipeline:
        for place, _ in enumerate(pipeline):
            if place == 5:
                monkeypatch.setattr(service, "_embed_together", None)
    for report in pipeline.report().values():
        assert report.state == "failed"
        assert "has stopped" in report.error
        assert report.failed >= 1
    check_sums(pipeline)


def test_leaving_early_ends_the_threads(service: EmbeddingService) -> None:
    before = threading.active_count()
    with CameraPipeline([Camera("a", ListedFrames("a", 100_000), find_square)], service) as pipeline:
        next(iter(pipeline))
    assert threading.active_count() <= before
    check_sums(pipeline)


def test_a_detector_that_hangs_holds_up_closing_once_not_once_a_camera(
    service: EmbeddingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hamr_edge.cameras._STOP_WAIT_S", 1.0)
    let_go = threading.Event()

    def hang(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        assert let_go.wait(30)
        return find_square(frame)

    before = threading.active_count()
    cameras = [Camera(f"{number}", ListedFrames(f"{number}"), hang) for number in range(10)]
    pipeline = CameraPipeline(cameras, service)
    pipeline.open()
    wait_until(lambda: all(lane.read == 1 for lane in pipeline._lanes.values()))
    started = time.monotonic()
    pipeline.close()
    assert time.monotonic() - started < 5  # ten cameras, one after another, would take ten seconds
    let_go.set()
    wait_until(lambda: threading.active_count() <= before)


def test_max_frames_counts_for_each_camera(service: EmbeddingService) -> None:
    cameras = [Camera(name, ListedFrames(name), find_square) for name in "ab"]
    with CameraPipeline(cameras, service, max_frames=5) as pipeline:
        assert sorted(seen.frame.number for seen in pipeline) == sorted([1, 2, 3, 4, 5] * 2)


def test_cameras_need_names_of_their_own(service: EmbeddingService) -> None:
    twice = [Camera("a", ListedFrames("a"), find_square)] * 2
    with pytest.raises(InputError, match="name of its own"):
        CameraPipeline(twice, service)
    with pytest.raises(InputError, match="at least one"):
        CameraPipeline([], service)
    with pytest.raises(InputError, match="in_flight"):
        CameraPipeline(twice[:1], service, in_flight=0)
