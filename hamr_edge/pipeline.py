"""One model for many cameras: any thread submits a frame's people, and crops of several cameras share a batch."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.embedder import Embedder
from hamr_edge.errors import HamrEdgeError, InputError, OverloadError
from hamr_edge.openable import Openable
from hamr_edge.preprocess import check_image
from hamr_edge.request_queue import WHEN_FULL, Piece, Request, RequestQueue, WhenFull
from hamr_edge.service_metrics import MetricsRecorder, ServiceMetrics
from hamr_edge.timeline import Timeline

_log = logging.getLogger(__name__)


class EmbeddingService(Openable):
    """Embeds for any number of cameras and threads with one model.

    ::

        with Embedder("build/model.int8.engine") as embedder, EmbeddingService(embedder) as service:
            future = service.submit("door", frame, boxes)     # from any thread
            embeddings = future.result()                      # (N, D), as embedder.embed(frame, boxes) gives them

    ``submit`` cuts the crops out in the caller's thread: the frame may be used again as soon as it returns, and only
    crops wait. One thread of the service runs the network. It takes a batch when ``max_batch`` crops wait, or when the
    oldest request has waited ``max_delay_ms``; while a batch runs, the next one gathers. Cameras take turns with equal
    shares of a batch.

    Every request ends in one of these ways, is counted there, and its future says so: its embeddings; the error of
    this request; :class:`OverloadError` where it was dropped or rejected; cancelled.

    Left without an error, the ``with`` block finishes what was submitted; left with one, it cancels what waits.

    Args:
        embedder: Open; the service does not close it, and nobody else may use it meanwhile (engines excepted). The
            artifact's ``crops`` form is the one to use: one in the ``frame`` form gets the crops laid out in a frame.
        max_delay_ms: How long a request waits for others to share its batch; 0 runs what is there.
        max_batch: Crops of one batch; the artifact's maximum when None.
        queue_size: Requests of one camera that may wait.
        when_full: What a request does that finds its camera's line full. ``block`` waits for room: nothing is lost,
            and the camera's thread slows down. ``drop_oldest`` gives up the camera's oldest request: the newest frames
            count. ``reject`` gives up the new one.
        timeline: Gets spans of the stages ``crop`` and ``infer``.

    Raises:
        InputError: A setting makes no sense.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        max_delay_ms: float = 5.0,
        max_batch: int | None = None,
        queue_size: int = 8,
        when_full: WhenFull = "block",
        timeline: Timeline | None = None,
    ) -> None:
        sidecar = embedder.sidecar
        if not 0 <= max_delay_ms <= 60_000:
            raise InputError(f"max_delay_ms must be 0 to 60,000 milliseconds, got {max_delay_ms:g}")
        if max_batch is not None and not 1 <= max_batch <= sidecar.max_batch:
            raise InputError(f"max_batch must be 1 to {sidecar.max_batch}, the artifact's maximum; got {max_batch}")
        if queue_size < 1:
            raise InputError(f"queue_size must be at least 1 request a camera, got {queue_size}")
        if when_full not in WHEN_FULL:
            raise InputError(f"when_full must be one of {', '.join(WHEN_FULL)}, got {when_full!r}")
        self.max_batch = max_batch or sidecar.max_batch
        self.queue_size, self.when_full = queue_size, when_full
        self._embedder, self._timeline = embedder, timeline
        self._queue = RequestQueue(queue_size, when_full, self.max_batch, max_delay_ms / 1000)
        self._counts = MetricsRecorder(
            {
                "sha256": sidecar.artifact_sha256,
                "precision": sidecar.precision,
                "embedding_dim": str(sidecar.embedding_dim),
            }
        )
        self._worker: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._is_closed = False
        self._closing = threading.Lock()
        self._ending = threading.Lock()

    def open(self) -> None:
        """Start the service's thread; a closed service stays closed."""
        if self._is_closed:
            raise HamrEdgeError("this embedding service was closed; make a new one")
        if self._worker is None:
            # A daemon: a program that forgets to close the service still ends.
            self._worker = threading.Thread(target=self._run, name="hamr-edge infer", daemon=True)
            self._worker.start()

    def close(self, finish: bool = True) -> None:
        """Let no more requests in, end those that are in, and stop the thread; a second call does nothing.

        Args:
            finish: True embeds what waits. False cancels it; a batch that runs is finished.
        """
        with self._closing:
            self._is_closed = True
            self._queue.close()
            worker = self._worker
            given_up = self._queue.clear() if not finish or worker is None else []
        for request in given_up:  # outside the lock: a future's callback may close the service too
            self._cancel(request)
        if worker is not None and worker is not threading.current_thread():
            worker.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(finish=kind is None)

    def submit(
        self, camera: str, frame: NDArray[np.uint8], boxes: ArrayLike, timeout_s: float | None = None
    ) -> Future[NDArray[np.float32]]:
        """Ask for the embeddings of the people in a frame, from any thread.

        Args:
            camera: Whose frame it is: requests of one name share a line and its limit.
            frame: (H, W, 3) uint8 BGR; free to change once this returns.
            boxes: (N, 4) xyxy pixels; partly outside the frame is clipped.
            timeout_s: With ``block``: how long to wait for room before the request is rejected; for ever when None.

        Returns:
            A future of the (N, D) float32 embeddings, rows of unit L2 norm in the boxes' order; the caller owns them.
            Its exception is an InputError where the frame or a box is not as expected, an OverloadError where the
            request was dropped or rejected, or what the network raised for these crops. ``cancel()`` works until the
            first crop is in a batch. Callbacks run in the thread that ends the request: the service's, or that of
            whoever submits or closes. They should be short.

        Raises:
            HamrEdgeError: The service is not open.
        """
        if self._is_closed or self._worker is None:
            raise HamrEdgeError(self._why_not_open())
        submitted_s = time.perf_counter()
        self._counts.submitted(camera)
        try:
            with self._span("crop", camera):
                crops = self._embedder.crop(check_image(frame), boxes)
        except BaseException as error:  # whatever it is, it is this request's alone
            self._counts.ended(camera, "failed")
            if not isinstance(error, Exception):  # Ctrl-C is for the caller
                raise
            return _refused(error)
        embeddings = np.empty((len(crops), self._embedder.sidecar.embedding_dim), np.float32)
        request = Request(camera, crops, embeddings, submitted_s)
        if not len(crops):
            self._complete(request)
            return request.future
        may_block = threading.current_thread() is not self._worker
        try:
            admission = self._queue.put(request, timeout_s, may_block)
        except BaseException:  # Ctrl-C while it waits for room
            self._queue.discard(request)
            self._cancel(request)
            raise
        if admission.displaced is not None:
            self._drop(admission.displaced)
        if admission.outcome == "rejected":
            self._counts.ended(camera, "rejected")
            return _refused(OverloadError(self._why_rejected(camera, may_block)))
        if admission.outcome == "closed":
            self._cancel(request)
        return request.future

    def metrics(self) -> ServiceMetrics:
        """Counts, queue, batch sizes and latencies at this moment; from any thread."""
        return self._counts.snapshot(self._queue.waiting_rows)

    def prometheus_text(self) -> str:
        """The metrics in Prometheus' text format; from any thread."""
        return self._counts.prometheus_text(self._queue.waiting_rows)

    def _run(self) -> None:
        pieces: list[Piece] = []
        try:
            while pieces := self._queue.take():
                started = [piece for piece in pieces if self._start(piece)]
                if started:
                    self._embed_together(started)
        except BaseException as error:  # nobody may wait for ever, whatever happened here
            self._failure = error
            _log.exception("the embedding service has stopped")
        finally:
            self._is_closed = True
            self._queue.close()
            for request in {*self._queue.clear(), *(piece.request for piece in pieces)}:
                self._fail(request, HamrEdgeError(f"the embedding service has stopped: {self._failure!r}"))

    def _start(self, piece: Piece) -> bool:
        """Whether a piece is still wanted; from now on its future cannot be cancelled."""
        request = piece.request
        with self._ending:
            if request.is_ended:
                return False
            if request.future.running() or request.future.set_running_or_notify_cancel():
                return True
            request.is_ended = True
        self._queue.discard(request)
        self._counts.ended(request.camera, "cancelled")
        return False

    def _embed_together(self, pieces: list[Piece]) -> None:
        """Embed a batch; where that fails, each request by itself, so that only the one at fault fails."""
        try:
            embeddings = self._infer(pieces)
        except Exception as error:
            if len(pieces) == 1:
                self._fail(pieces[0].request, error)
                return
            _log.warning("a batch of %d cameras' requests failed (%s); each is tried by itself", len(pieces), error)
            for piece in pieces:
                self._embed_together([piece])
            return
        row = 0
        for piece in pieces:
            request, count = piece.request, len(piece.crops)
            request.embeddings[piece.rows] = embeddings[row : row + count]
            request.finished += count
            row += count
            if request.finished == len(request.crops):
                self._complete(request)

    def _infer(self, pieces: list[Piece]) -> NDArray[np.float32]:
        crops = pieces[0].crops if len(pieces) == 1 else np.concatenate([piece.crops for piece in pieces])
        cameras = dict.fromkeys(piece.request.camera for piece in pieces)
        started = time.perf_counter()
        with self._span("infer", ", ".join(cameras)):
            embeddings = self._embedder.embed_batch(crops)
        self._counts.ran(len(crops), time.perf_counter() - started)
        return embeddings

    # One thread ends a request, the first that comes: a batch may finish while the service is closed. Nobody else
    # touches the future's state, but for the user's own cancel(). No lock is held while a future's callbacks run.

    def _complete(self, request: Request) -> None:
        if self._ends_first(request):
            seconds = time.perf_counter() - request.submitted_s
            self._counts.completed(request.camera, len(request.crops), seconds)
            _settle(request, request.embeddings)

    def _fail(self, request: Request, error: Exception, outcome: str = "failed") -> None:
        self._queue.discard(request)
        if not self._ends_first(request):
            return
        if request.future.running() or request.future.set_running_or_notify_cancel():
            self._counts.ended(request.camera, outcome)
            _settle(request, error)
        else:  # by the user, before
            self._counts.ended(request.camera, "cancelled")

    def _drop(self, request: Request) -> None:
        words = (
            f"{request.camera}: a frame with {len(request.crops)} people was dropped for a newer one: "
            f"{self.queue_size} frames waited already; the model is too slow for these cameras, or queue_size too small"
        )
        self._fail(request, OverloadError(words), "dropped")

    def _cancel(self, request: Request) -> None:
        """End a request that nobody will embed, wherever it stands."""
        if not self._ends_first(request):
            return
        self._counts.ended(request.camera, "cancelled")
        if request.future.cancel():
            request.future.set_running_or_notify_cancel()  # tells those who wait
        else:  # some of its crops were in a batch
            _settle(request, CancelledError("the embedding service was closed"))

    def _ends_first(self, request: Request) -> bool:
        """Whether the caller is the one who ends a request."""
        with self._ending:
            first, request.is_ended = not request.is_ended, True
        return first

    def _why_not_open(self) -> str:
        if self._failure is not None:
            return f"the embedding service has stopped: {self._failure!r}"
        if self._is_closed:
            return "the embedding service was closed"
        return "the embedding service is not open; use 'with EmbeddingService(embedder) as service:' or .open()"

    def _why_rejected(self, camera: str, may_block: bool) -> str:
        if self.when_full == "block" and not may_block:
            return f"{camera}: a future's callback cannot wait for room: its thread is the one that makes room"
        return f"{camera}: {self.queue_size} frames wait already; the model is too slow for these cameras"

    def _span(self, stage: str, camera: str) -> AbstractContextManager[None]:
        return nullcontext() if self._timeline is None else self._timeline.span(stage, camera)


def _refused(error: Exception) -> Future[NDArray[np.float32]]:
    future: Future[NDArray[np.float32]] = Future()
    future.set_exception(error)
    return future


def _settle(request: Request, result: NDArray[np.float32] | Exception) -> None:
    """Give a request's future its result or error; what its callbacks do is theirs."""
    try:
        if isinstance(result, Exception):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)
    except SystemExit:  # Future logs other errors of callbacks; this one would end the thread that serves everybody
        _log.error("%s: a callback of a future called sys.exit(), which ends nothing here", request.camera)
