"""Every request ends once, whoever ends it: the network, its user, a full line, a close, a fault of the service."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from concurrent.futures import Future, wait

import numpy as np
import pytest

from hamr_edge.errors import HamrEdgeError
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.request_queue import Piece
from tests.slow_embedder import HeldEmbedder

FRAME = np.full((60, 60, 3), 100, np.uint8)
PERSON = [[5, 5, 20, 40]]


def check_ended(service: EmbeddingService, futures: list[Future[np.ndarray]]) -> None:
    assert not wait(futures, 20).not_done
    metrics = service.metrics()
    assert metrics.total("pending") == metrics.waiting_crops == 0
    outcomes = ("completed", "failed", "dropped", "rejected", "cancelled")
    assert metrics.total("submitted") == sum(map(metrics.total, outcomes))


def test_a_request_that_was_cancelled_keeps_nobody_waiting_when_the_service_breaks(
    held: HeldEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = EmbeddingService(held, max_delay_ms=0, max_batch=1, queue_size=50)
    service.open()
    held.hold()
    busy = service.submit("busy", FRAME, PERSON)
    assert held.running.wait(10)
    futures = [service.submit("door", FRAME, PERSON) for _ in range(8)]
    assert futures[3].cancel()

    def give_out(pieces: list[Piece]) -> None:
        raise MemoryError

    monkeypatch.setattr(service, "_embed_together", give_out)  # a fault outside the network's own errors
    held.let_go()
    check_ended(service, [busy, *futures])
    assert service.metrics().cameras["door"].cancelled == 1
    assert all(isinstance(future.exception(), HamrEdgeError) for future in futures if not future.cancelled())
    with pytest.raises(HamrEdgeError, match="MemoryError"):
        service.submit("door", FRAME, PERSON)
    service.close()


def test_a_close_between_taking_a_batch_and_starting_it_cancels_no_more_than_it_must(
    held: HeldEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large request has rows in the batch that was taken, and rows that wait."""
    service = EmbeddingService(held, max_delay_ms=200, max_batch=4)
    take, closing = service._queue.take, []

    def take_while_closing() -> list[Piece]:
        pieces = take()
        if pieces and not closing:
            closing.append(threading.Thread(target=lambda: service.close(finish=False)))
            closing[0].start()
            while not service._is_closed or service._queue.waiting_rows:
                time.sleep(0.001)
        return pieces

    monkeypatch.setattr(service._queue, "take", take_while_closing)
    service.open()
    small, large = service.submit("yard", FRAME, PERSON), service.submit("door", FRAME, PERSON * 10)
    check_ended(service, [small, large])
    closing[0].join(20)
    assert small.result().shape == (1, 12)
    assert large.cancelled()
    assert service._failure is None


def test_a_callback_may_close_the_service(held: HeldEmbedder) -> None:
    service = EmbeddingService(held, max_delay_ms=0)
    service.open()
    held.hold()
    busy = service.submit("busy", FRAME, PERSON)
    assert held.running.wait(10)
    waiting = service.submit("door", FRAME, PERSON)
    waiting.add_done_callback(lambda _: service.close(finish=False))
    closing = threading.Thread(target=lambda: service.close(finish=False), daemon=True)
    closing.start()
    held.let_go()
    closing.join(20)
    assert not closing.is_alive(), "it waits for itself"
    check_ended(service, [busy, waiting])


def test_a_callback_that_calls_exit_ends_nobody_elses_service(
    held: HeldEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddingService(held, max_delay_ms=0) as service:
        held.hold()
        first = service.submit("door", FRAME, PERSON)
        first.add_done_callback(lambda _: sys.exit(1))
        held.let_go()
        first.result(20)
        assert service.submit("yard", FRAME, PERSON).result(20).shape == (1, 12)
    assert "sys.exit()" in caplog.text


@pytest.mark.parametrize("stage", ["crop", "wait"])
def test_ctrl_c_in_submit_is_counted(held: HeldEmbedder, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with EmbeddingService(held, max_delay_ms=0) as service:
        monkeypatch.setattr(*((held, "crop") if stage == "crop" else (service._queue, "put")), interrupt)
        with pytest.raises(KeyboardInterrupt):
            service.submit("door", FRAME, PERSON)
        check_ended(service, [])


def test_frames_without_people_say_nothing_of_the_latency(held: HeldEmbedder) -> None:
    with EmbeddingService(held, max_delay_ms=0) as service:
        for _ in range(5):
            service.submit("door", FRAME, np.empty((0, 4))).result(20)
        assert service.metrics().cameras["door"].latency_ms == {}
        service.submit("door", FRAME, PERSON).result(20)
        assert service.metrics().cameras["door"].latency_ms["p50"] > 0
        assert 'latency_seconds_count{camera="door"} 1' in service.prometheus_text()


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_every_request_ends_and_is_counted(held: HeldEmbedder, seed: int) -> None:
    """Four threads submit and cancel, batches fail, and somebody closes the service in the middle of it."""
    rng = random.Random(seed)
    infer = type(held).embed_batch

    def infer_or_fail(batch: np.ndarray) -> np.ndarray:
        if rng.random() < 0.1:
            raise RuntimeError("no luck")
        return infer(held, batch)

    held.embed_batch = infer_or_fail  # type: ignore[method-assign]
    service = EmbeddingService(
        held,
        max_delay_ms=rng.choice([0, 1]),
        max_batch=rng.choice([1, 3, 8]),
        queue_size=rng.choice([1, 3]),
        when_full=rng.choice(["block", "drop_oldest", "reject"]),
    )
    futures: list[Future[np.ndarray]] = []

    def work(camera: str, chance: random.Random) -> None:
        for _ in range(40):
            try:
                future = service.submit(camera, FRAME, PERSON * chance.randint(0, 6), chance.choice([None, 0.001]))
            except HamrEdgeError:  # closed
                return
            futures.append(future)
            if chance.random() < 0.15:
                future.cancel()

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    logging.disable(logging.ERROR)
    try:
        service.open()
        threads = [threading.Thread(target=work, args=(name, random.Random(f"{seed} {name}"))) for name in "abcd"]
        for thread in threads:
            thread.start()
        if seed % 2:
            time.sleep(0.02 * rng.random())
            service.close(finish=seed % 4 == 1)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), "a submitter hangs"
        service.close()
    finally:
        sys.setswitchinterval(switch_s)
        logging.disable(logging.NOTSET)
    assert service._failure is None
    check_ended(service, futures)
