from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from hamr_edge.service_metrics import OUTCOMES, MetricsRecorder


@given(
    events=st.lists(st.tuples(st.sampled_from(["door", 'a"b\\c\nd', "büro"]), st.sampled_from([*OUTCOMES, ""]))),
    latency_s=st.floats(0, 100),
)
def test_counts_add_up_and_prometheus_reads_the_same(events: list[tuple[str, str]], latency_s: float) -> None:
    counts = MetricsRecorder({"sha256": "ab", "precision": "fp32"})
    for camera, outcome in events:
        counts.submitted(camera)
        if outcome == "completed":
            counts.completed(camera, 3, latency_s)
        elif outcome:
            counts.ended(camera, outcome)
    now = counts.snapshot(waiting_crops=7)
    for name, camera in now.cameras.items():
        mine = [outcome for camera_name, outcome in events if camera_name == name]
        assert camera.submitted == len(mine)
        assert camera.pending == mine.count("")
        assert {outcome: getattr(camera, outcome) for outcome in OUTCOMES} == {
            outcome: mine.count(outcome) for outcome in OUTCOMES
        }
        assert camera.people == 3 * camera.completed
    families = {family.name: family for family in text_string_to_metric_families(counts.prometheus_text(7))}
    read = {
        (sample.labels["camera"], sample.labels["outcome"]): sample.value
        for sample in families["hamr_edge_requests"].samples
    }
    assert read == {(name, outcome): getattr(c, outcome) for name, c in now.cameras.items() for outcome in OUTCOMES}
    assert families["hamr_edge_waiting_crops"].samples[0].value == 7
    assert families["hamr_edge_model_info"].samples[0].labels == {"sha256": "ab", "precision": "fp32"}
    latencies = [s for s in families["hamr_edge_latency_seconds"].samples if s.name.endswith("_count")]
    assert {s.labels["camera"]: s.value for s in latencies} == {name: c.completed for name, c in now.cameras.items()}


def test_histograms_count_up_to_each_bound_and_percentiles_are_of_the_latest() -> None:
    counts = MetricsRecorder({})
    for crops in (1, 2, 3, 8, 500):
        counts.ran(crops, 0.25)
    for latency_ms in [9000] * 10 + list(range(1, 2049)):
        counts.submitted("a")
        counts.completed("a", 1, latency_ms / 1000)
    text = counts.prometheus_text(0)
    buckets = {
        bound: f'hamr_edge_batch_crops_bucket{{le="{bound}"}} {n}' for bound, n in {1: 1, 2: 2, 4: 3, 8: 4}.items()
    }
    assert all(line in text.splitlines() for line in buckets.values())
    assert 'hamr_edge_batch_crops_bucket{le="+Inf"} 5' in text
    assert "hamr_edge_batch_crops_sum 514" in text
    now = counts.snapshot(0)
    assert now.batch_sizes == {1: 1, 2: 1, 3: 1, 8: 1, 500: 1}
    assert (now.batches, now.mean_batch, now.inference_s) == (5, 514 / 5, 1.25)
    latency = now.cameras["a"].latency_ms
    assert latency["max"] == 2048  # the ten slow ones were long ago
    assert abs(latency["p50"] - 1024.5) < 1e-6
    assert now.total("people") == 2058


def test_before_anything_happens() -> None:
    counts = MetricsRecorder({})
    now = counts.snapshot(0)
    assert (now.cameras, now.mean_batch, now.total("dropped")) == ({}, 0.0, 0)
    counts.submitted("a")
    assert counts.snapshot(0).cameras["a"].latency_ms == {}
