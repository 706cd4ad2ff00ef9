from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hamr_edge.benchmarks.history import compare_history, worse
from hamr_edge.benchmarks.report_values import read_report
from tests.history_cases import INT8, MADE, moved, of_the_version_before, with_changes, with_speed


@pytest.mark.parametrize(
    "other", [("data.images", 100), ("data.name", "full"), ("config.mirror", True), ("config.max_crops", 50)]
)
def test_scores_on_other_crops_are_never_compared(other: tuple[str, Any]) -> None:
    elsewhere = with_changes(other, place=None)
    elsewhere["results"][INT8]["parity"].update(map=0.1, rank1=0.1, p01_cosine=0.5)
    history = compare_history(MADE, elsewhere)
    assert history.moved == ()
    assert history.notes[0].startswith("other crops: ")
    assert {change.quantity for change in history.changes if change.verdict == "not comparable"} >= {"mAP", "rank-1"}


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("environment.cpu", "another", "CPU was AMD EPYC, is another"),
        ("environment.threads", 1, "threads was not set, is 1"),
        ("environment.gpus", ["Orin, 540.4"], "GPU was none, is Orin"),
    ],
)
def test_another_machine_gives_ratios_and_no_gate(path: str, value: Any, what: str) -> None:
    elsewhere = with_changes((path, value), place=None)
    elsewhere["results"][INT8]["latency"][0]["speedup"] = with_speed(0.5)
    elsewhere["results"][INT8]["cold_start"]["peak_memory_mb"] = 9e9
    history = compare_history(MADE, elsewhere)
    assert moved(history) == [("speed against the reference, batch 1", "worse")]
    assert worse(history) == []
    assert history.notes[0].startswith("another machine: ")
    assert what in history.notes[0]
    lost = copy.deepcopy(elsewhere)
    lost["results"][INT8]["parity"]["map"] = 0.1
    assert len(worse(compare_history(MADE, lost))) == 1


def test_another_power_mode_counts_only_where_both_tell_it() -> None:
    old, new = (
        with_changes(("environment.state.jetson", {"power_mode": mode}), place=None) for mode in ("MAXN", "15W")
    )
    assert compare_history(old, new).notes[0].startswith("another machine: power mode was MAXN, is 15W")
    assert compare_history(MADE, new).notes == ()


def test_ratios_to_another_reference_are_not_compared() -> None:
    for path, value in (("backend", "onnxruntime-cpu"), ("embedding_dim", 512), ("size_bytes", 90_000_000)):
        new = with_changes((f"reference.{path}", value), place=None)
        new["results"][INT8]["latency"][0]["speedup"] = with_speed(0.2)
        history = compare_history(MADE, new)
        assert history.moved == ()
        assert history.notes[0].startswith("another reference: ")


def test_another_checkpoint_must_differ_by_more_than_chance() -> None:
    new = with_changes(("reference.source_sha256", "cd" * 32), place=None)
    new["results"][INT8]["parity"].update(map=0.58, p01_cosine=0.5)  # two trainings alike came out 2 points apart
    history = compare_history(MADE, new)
    assert history.moved == ()
    assert history.notes[0].startswith("another checkpoint: its source was abababababab, and is cdcdcdcdcdcd")
    new["results"][INT8]["parity"]["map"] = 0.40
    assert moved(compare_history(MADE, new)) == [("mAP", "worse")]


def test_other_versions_are_told() -> None:
    new = with_changes(("environment.libraries", {"onnxruntime": "1.33.0"}), place=None)
    assert compare_history(MADE, new).notes == (
        "other versions: numpy was 2.4.6, is not installed, onnxruntime was 1.32.0, is 1.33.0; "
        "a change may come of them",
    )


def test_another_driver_is_another_version_and_no_other_machine() -> None:
    old, new = (with_changes(("environment.gpus", [f"NVIDIA L4, {driver}"]), place=None) for driver in (580, 590))
    assert compare_history(old, new).notes == (
        "other versions: GPU and driver was NVIDIA L4, 580, is NVIDIA L4, 590; a change may come of them",
    )
    (machine,) = compare_history(MADE, new).notes
    assert machine.startswith("another machine: GPU was none, is NVIDIA L4; ")


def test_a_reference_that_scores_otherwise_is_told() -> None:
    new = with_changes(("reference.retrieval.map", 0.61), place=None)
    (note,) = compare_history(MADE, new).notes
    assert "its mAP went from 60.39 to 61.00 %" in note


def test_other_batch_sizes_are_told() -> None:
    new = with_changes(("latency.2.batch", 64))
    for result in new["results"]:
        result["latency"] = [{**timed, "batch": 64 if timed["batch"] == 32 else timed["batch"]}
                             for timed in result["latency"]]  # fmt: skip
    history = compare_history(MADE, new)
    assert history.notes == ("timed in one of the two only, batches of 32, 64; repeat --batch as it was",)


def test_a_report_of_the_version_before_is_read(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(of_the_version_before()))
    old = read_report(file)
    history = compare_history(old, MADE)
    assert history.moved == ()
    assert history.came == (
        "osnet_x1_0.onnx (fp32, onnxruntime-cpu, beside)",
        "boxmot (fp32, boxmot 13, beside)",
    )
    assert history.notes == (
        "the old report does not tell cold start, end to end, energy, match threshold, separation",
        "the old report has no interval of its speeds: the spread over its rounds stands for it, so that only a large "
        "change shows",
    )
    lost = with_changes(("parity.map", 0.5), ("latency.0.speedup", with_speed(0.3)))
    assert moved(compare_history(old, lost)) == [
        ("mAP", "worse"),
        ("speed against the reference, batch 1", "worse"),
    ]
    assert compare_history(old, old).moved == ()
