"""What the embedding service counts: outcomes a camera, batches and latencies; as values and as Prometheus text."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from hamr_edge.prometheus import escape_label, metric_head

OUTCOMES = ("completed", "failed", "dropped", "rejected", "cancelled")
"""What can become of a request. Each has one outcome, once."""
_RECENT = 2048
_LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class CameraMetrics:
    """One camera's requests since the service began; ``submitted`` is the sum of all outcomes and ``pending``."""

    submitted: int
    completed: int
    failed: int
    dropped: int
    rejected: int
    cancelled: int
    pending: int
    """Requests that wait or are being embedded."""
    people: int
    """Embeddings given."""
    latency_ms: dict[str, float]
    """``p50``, ``p95``, ``p99`` and ``max`` from submission to result, of the last 2,048 completed that had people;
    empty before."""


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """The service as it is at one moment."""

    cameras: dict[str, CameraMetrics]
    waiting_crops: int
    """Crops that are in no batch yet."""
    batches: int
    batch_sizes: dict[int, int]
    """How many batches had so many crops."""
    mean_batch: float
    """Crops of a batch, 0 before the first."""
    inference_s: float
    """Seconds in which the network was at work."""

    def total(self, outcome: str) -> int:
        """The sum over all cameras of a field of :class:`CameraMetrics`, such as ``dropped``."""
        return sum(getattr(camera, outcome) for camera in self.cameras.values())


class _Histogram:
    """Counts by upper bound, as Prometheus has them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        comma = "," if labels else ""
        total, lines = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels}{comma}le="{bound}"}} {total}')
        of = f"{{{labels}}}" if labels else ""
        return [*lines, f"{name}_sum{of} {self._sum:.9g}", f"{name}_count{of} {total}"]


@dataclass(slots=True)
class _Camera:
    submitted: int = 0
    people: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    latency: _Histogram = field(default_factory=lambda: _Histogram(_LATENCY_BOUNDS_S))

    def snapshot(self) -> CameraMetrics:
        outcomes = {name: self.outcomes[name] for name in OUTCOMES}
        recent = np.asarray(self.recent_s) * 1000
        latency = {f"p{rank}": float(np.percentile(recent, rank)) for rank in (50, 95, 99)} if len(recent) else {}
        if latency:
            latency["max"] = float(recent.max())
        pending = self.submitted - sum(outcomes.values())
        return CameraMetrics(self.submitted, **outcomes, pending=pending, people=self.people, latency_ms=latency)


class MetricsRecorder:
    """Counts what happens. Safe to use from any thread.

    Args:
        model_labels: Facts about the model for Prometheus, such as its hash.
    """

    def __init__(self, model_labels: dict[str, str]) -> None:
        self._model_labels = model_labels
        self._lock = threading.Lock()
        self._cameras: dict[str, _Camera] = {}
        self._batch_sizes: Counter[int] = Counter()
        self._batch = _Histogram(_BATCH_BOUNDS)
        self._inference_s = 0.0

    def submitted(self, camera: str) -> None:
        """A request came."""
        with self._lock:
            self._cameras.setdefault(camera, _Camera()).submitted += 1

    def completed(self, camera: str, people: int, latency_s: float) -> None:
        """A request has its embeddings, ``latency_s`` after it came; one without people says nothing of the latency."""
        with self._lock:
            seen = self._cameras[camera]
            seen.outcomes["completed"] += 1
            seen.people += people
            if people:
                seen.recent_s.append(latency_s)
                seen.latency.add(latency_s)

    def ended(self, camera: str, outcome: str) -> None:
        """A request ended without embeddings: one of :data:`OUTCOMES`."""
        with self._lock:
            self._cameras[camera].outcomes[outcome] += 1

    def ran(self, crops: int, seconds: float) -> None:
        """The network embedded a batch."""
        with self._lock:
            self._batch_sizes[crops] += 1
            self._batch.add(crops)
            self._inference_s += seconds

    def snapshot(self, waiting_crops: int) -> ServiceMetrics:
        """Everything at this moment."""
        with self._lock:
            sizes = dict(sorted(self._batch_sizes.items()))
            batches = sum(sizes.values())
            return ServiceMetrics(
                {name: camera.snapshot() for name, camera in self._cameras.items()},
                waiting_crops,
                batches,
                sizes,
                sum(size * count for size, count in sizes.items()) / batches if batches else 0.0,
                self._inference_s,
            )

    def prometheus_text(self, waiting_crops: int) -> str:
        """The metrics in Prometheus' text format, version 0.0.4, ending in a line break."""
        with self._lock:
            labels = ",".join(f'{name}="{escape_label(value)}"' for name, value in self._model_labels.items())
            lines = [
                *metric_head("model_info", "gauge", "The model that embeds."),
                f"hamr_edge_model_info{{{labels}}} 1",
            ]
            lines += metric_head("waiting_crops", "gauge", "Crops that are in no batch yet.")
            lines.append(f"hamr_edge_waiting_crops {waiting_crops}")
            lines += metric_head("inference_seconds_total", "counter", "Seconds in which the network was at work.")
            lines.append(f"hamr_edge_inference_seconds_total {self._inference_s:.9g}")
            lines += metric_head("batch_crops", "histogram", "Crops of one batch.")
            lines += self._batch.lines("hamr_edge_batch_crops")
            cameras = {f'camera="{escape_label(name)}"': camera for name, camera in self._cameras.items()}
            lines += metric_head("requests_total", "counter", "Frames by what became of them.")
            for label, camera in cameras.items():
                for outcome in OUTCOMES:
                    count = camera.outcomes[outcome]
                    lines.append(f'hamr_edge_requests_total{{{label},outcome="{outcome}"}} {count}')
            lines += metric_head("requests_pending", "gauge", "Frames that wait or are being embedded.")
            for label, camera in cameras.items():
                pending = camera.submitted - sum(camera.outcomes.values())
                lines.append(f"hamr_edge_requests_pending{{{label}}} {pending}")
            lines += metric_head("people_total", "counter", "Embeddings given.")
            lines += [f"hamr_edge_people_total{{{label}}} {camera.people}" for label, camera in cameras.items()]
            lines += metric_head(
                "latency_seconds", "histogram", "From the submission of a frame with people to its embeddings."
            )
            for label, camera in cameras.items():
                lines += camera.latency.lines("hamr_edge_latency_seconds", label)
        return "\n".join(lines) + "\n"
