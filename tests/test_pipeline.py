from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder, HamrEdgeError, InputError
from hamr_edge.errors import OverloadError
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.timeline import Timeline
from tests.slow_embedder import POISON, HeldEmbedder

PERSON = [[10, 10, 40, 90]]


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(5, 60, (count, 2))], axis=1).astype(np.float32)


def test_many_threads_get_exactly_what_serial_calls_give(tiny_artifact: Path) -> None:
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (16, 120, 160, 3), np.uint8)
    boxes = [random_boxes(rng, count) for count in rng.integers(0, 13, 1000)]
    with Embedder(tiny_artifact, "cpu", 1) as embedder:
        serial = [embedder.embed(frames[call % 16], boxes[call]) for call in range(1000)]
        # ONNX Runtime's kernel for a single row rounds differently from the one for more: this is the other one.
        together = [embedder.embed(frames[call % 16], np.repeat(boxes[call], 2, axis=0))[::2] for call in range(1000)]
        wrong: list[tuple[int, int]] = []

        def work(thread: int, service: EmbeddingService) -> None:
            futures = [service.submit(f"camera {thread}", frames[call % 16], boxes[call]) for call in range(1000)]
            for call, future in enumerate(futures):
                got = future.result(60)
                if not ((got == serial[call]) | (got == together[call])).all() or got.shape != (len(boxes[call]), 12):
                    wrong.append((thread, call))

        with EmbeddingService(embedder, max_delay_ms=1, queue_size=16) as service:
            threads = [threading.Thread(target=work, args=(thread, service)) for thread in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            metrics = service.metrics()
    assert wrong == []
    assert metrics.total("completed") == metrics.total("submitted") == 8000
    assert metrics.total("people") == 8 * sum(map(len, boxes))
    assert max(metrics.batch_sizes) == 8
    assert sum(size * count for size, count in metrics.batch_sizes.items()) == metrics.total("people")


def test_cameras_share_a_batch_and_each_gets_its_rows(held: HeldEmbedder, frame: np.ndarray) -> None:
    boxes = np.array([[0, 0, 30, 60], [50, 20, 90, 110]], np.float32)
    with EmbeddingService(held, max_delay_ms=10_000, max_batch=4) as service:
        first, second = service.submit("a", frame, boxes), service.submit("b", frame, boxes[::-1])
        np.testing.assert_array_equal(first.result(10), second.result(10)[::-1])
    assert held.batches == [4]


def test_the_frame_may_be_used_again_at_once(held: HeldEmbedder, frame: np.ndarray) -> None:
    expected = held.embed(frame, PERSON)
    held.hold()
    with EmbeddingService(held, max_delay_ms=0) as service:
        future = service.submit("a", frame, PERSON)
        frame[:] = 0
        held.let_go()
        np.testing.assert_allclose(future.result(10), expected, atol=1e-6)


def test_the_deadline_fires_a_partial_batch(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=20) as service:
        assert service.submit("a", frame, PERSON).result(10).shape == (1, 12)
    assert held.batches == [1]


def test_a_request_with_more_people_than_a_batch_is_split(held: HeldEmbedder, frame: np.ndarray) -> None:
    boxes = random_boxes(np.random.default_rng(0), 30)
    with EmbeddingService(held, max_delay_ms=0) as service:
        got = service.submit("a", frame, boxes).result(10)
    np.testing.assert_allclose(got, held.embed(frame, boxes), atol=1e-6)
    assert held.batches[:4] == [8, 8, 8, 6]


def test_nobody_in_the_frame_needs_no_batch(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held) as service:
        assert service.submit("a", frame, np.empty((0, 4))).result(0).shape == (0, 12)
    assert held.batches == []


def test_an_error_fails_its_request_alone(held: HeldEmbedder, frame: np.ndarray) -> None:
    white = np.full_like(frame, POISON)
    held.hold()
    with EmbeddingService(held, max_delay_ms=0) as service:
        blocker = service.submit("a", frame, PERSON)
        held.running.wait(10)
        bad, good = service.submit("a", white, PERSON), service.submit("b", frame, PERSON)
        not_boxes, not_a_frame = service.submit("a", frame, [[5, 5, 1, 1]]), service.submit("a", frame[0], PERSON)
        held.let_go()
        assert blocker.result(10).shape == good.result(10).shape == (1, 12)
        with pytest.raises(RuntimeError, match="poisoned"):
            bad.result(10)
        with pytest.raises(InputError, match="is inverted"):
            not_boxes.result(10)
        with pytest.raises(InputError, match="frame must be"):
            not_a_frame.result(10)
        counts = service.metrics().cameras
    assert (counts["a"].submitted, counts["a"].completed, counts["a"].failed) == (4, 1, 3)
    assert (counts["b"].submitted, counts["b"].completed) == (1, 1)


def test_a_split_request_that_fails_fails_once(held: HeldEmbedder, frame: np.ndarray) -> None:
    white = np.full_like(frame, POISON)
    with EmbeddingService(held, max_delay_ms=0, max_batch=2) as service:
        bad = service.submit("a", white, PERSON * 7)
        with pytest.raises(RuntimeError, match="poisoned"):
            bad.result(10)
        assert service.submit("a", frame, PERSON).result(10).shape == (1, 12)
    assert service.metrics().cameras["a"].failed == 1
    assert service.metrics().waiting_crops == 0


def busy(service: EmbeddingService, held: HeldEmbedder, frame: np.ndarray) -> Future[np.ndarray]:
    """Let the service's thread wait inside a batch."""
    held.hold()
    future = service.submit("busy", frame, PERSON)
    assert held.running.wait(10)
    return future


def test_drop_oldest_gives_up_the_oldest_and_counts_it(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=0, queue_size=2, when_full="drop_oldest") as service:
        busy(service, held, frame)
        futures = [service.submit("a", frame, PERSON) for _ in range(5)]
        assert [future.done() for future in futures] == [True, True, True, False, False]
        with pytest.raises(OverloadError, match="a: a frame with 1 people was dropped"):
            futures[0].result()
        held.let_go()
        wait(futures, 10)
    counts = service.metrics().cameras["a"]
    assert (counts.submitted, counts.dropped, counts.completed, counts.pending) == (5, 3, 2, 0)


def test_reject_refuses_the_new_one(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=0, queue_size=2, when_full="reject") as service:
        busy(service, held, frame)
        futures = [service.submit("a", frame, PERSON) for _ in range(4)]
        with pytest.raises(OverloadError, match="2 frames wait already"):
            futures[3].result(0)
        assert service.metrics().cameras["a"].pending == 2
        held.let_go()
    assert service.metrics().cameras["a"].rejected == 2


def test_block_waits_for_room_or_until_its_time_is_up(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=0, queue_size=1) as service:
        busy(service, held, frame)
        service.submit("a", frame, PERSON)
        with pytest.raises(OverloadError):
            service.submit("a", frame, PERSON, timeout_s=0.01).result(0)
        came = threading.Event()
        waiting = threading.Thread(target=lambda: (service.submit("a", frame, PERSON).result(10), came.set()))
        waiting.start()
        assert not came.wait(0.05)
        held.let_go()
        assert came.wait(10)
        waiting.join(10)


def test_a_callback_may_submit_but_never_waits_for_itself(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=0, queue_size=1) as service:
        first = busy(service, held, frame)
        inner: list[Future[np.ndarray]] = []
        ready = threading.Event()

        def submit_three(_: Future[np.ndarray]) -> None:
            inner.extend(service.submit("a", frame, PERSON) for _ in range(3))
            ready.set()

        first.add_done_callback(submit_three)
        held.let_go()
        assert ready.wait(10)
        assert inner[0].result(10).shape == (1, 12)
        with pytest.raises(OverloadError, match="callback cannot wait"):
            inner[1].result(10)


def test_leaving_finishes_what_was_submitted(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=10_000) as service:
        futures = [service.submit("a", frame, PERSON) for _ in range(6)]
    assert all(future.result(0).shape == (1, 12) for future in futures)
    with pytest.raises(HamrEdgeError, match="closed"):
        service.submit("a", frame, PERSON)
    with pytest.raises(HamrEdgeError, match="make a new one"):
        service.open()


def test_leaving_with_an_error_cancels_what_waits(held: HeldEmbedder, frame: np.ndarray) -> None:
    service = EmbeddingService(held, max_delay_ms=0, max_batch=2)
    service.open()
    running = busy(service, held, frame)
    waiting = [service.submit("a", frame, PERSON * 3) for _ in range(3)]
    threading.Timer(0.05, held.let_go).start()
    with pytest.raises(ZeroDivisionError), service:
        raise ZeroDivisionError
    assert running.result(0).shape == (1, 12)
    assert all(future.cancelled() for future in waiting)
    assert service.metrics().cameras["a"].cancelled == 3


def test_closing_in_the_middle_of_a_request_ends_it(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=0, max_batch=2) as service:
        held.hold()
        half_done = service.submit("a", frame, PERSON * 5)
        assert held.running.wait(10)
        threading.Timer(0.05, held.let_go).start()
        service.close(finish=False)
        with pytest.raises(CancelledError, match="closed"):
            half_done.result(0)
    assert service.metrics().cameras["a"].cancelled == 1


def test_a_submission_that_waits_for_room_ends_when_the_service_closes(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=0, queue_size=1) as service:
        busy(service, held, frame)
        service.submit("a", frame, PERSON)
        ended: list[bool] = []
        waiting = threading.Thread(target=lambda: ended.append(service.submit("a", frame, PERSON).cancelled()))
        waiting.start()
        time.sleep(0.02)
        threading.Timer(0.05, held.let_go).start()
        service.close(finish=False)
        waiting.join(10)
    assert ended == [True]
    counts = service.metrics().cameras["a"]
    assert counts.submitted == counts.cancelled == 2


def test_a_caller_may_cancel_what_waits(held: HeldEmbedder, frame: np.ndarray) -> None:
    with EmbeddingService(held, max_delay_ms=0) as service:
        running = busy(service, held, frame)
        waiting = service.submit("a", frame, PERSON)
        assert waiting.cancel()
        assert not running.cancel()
        held.let_go()
    assert held.batches == [1]
    assert service.metrics().cameras["a"].cancelled == 1


def test_nobody_waits_for_ever_when_the_service_itself_breaks(
    held: HeldEmbedder, frame: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddingService(held, max_delay_ms=0) as service:
        busy(service, held, frame)
        waiting = service.submit("a", frame, PERSON)
        held.embed_batch = lambda batch: (_ for _ in ()).throw(SystemExit("broken"))  # type: ignore[method-assign]
        held.let_go()
        with pytest.raises(HamrEdgeError, match="broken"):
            waiting.result(10)
        with pytest.raises(HamrEdgeError, match="has stopped"):
            service.submit("a", frame, PERSON)
    assert "has stopped" in caplog.text


def test_a_service_that_is_not_open_says_so(tiny_artifact: Path, frame: np.ndarray) -> None:
    with Embedder(tiny_artifact) as embedder:
        service = EmbeddingService(embedder)
        with pytest.raises(HamrEdgeError, match="not open"):
            service.submit("a", frame, PERSON)
        service.close()
        service.close()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_delay_ms": -1}, "max_delay_ms"),
        ({"max_delay_ms": float("nan")}, "max_delay_ms"),
        ({"max_batch": 9}, "1 to 8"),
        ({"max_batch": 0}, "max_batch"),
        ({"queue_size": 0}, "queue_size"),
        ({"when_full": "wait"}, "block, drop_oldest, reject"),
    ],
)
def test_settings_that_make_no_sense(tiny_artifact: Path, setting: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbeddingService(Embedder(tiny_artifact), **setting)  # type: ignore[arg-type]


def test_crop_and_infer_are_on_the_timeline(held: HeldEmbedder, frame: np.ndarray) -> None:
    timeline = Timeline()
    with EmbeddingService(held, max_delay_ms=0, timeline=timeline) as service:
        service.submit("door", frame, PERSON).result(10)
    assert [(span.stage, span.camera) for span in timeline.spans] == [("crop", "door"), ("infer", "door")]
