from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hamr_edge.benchmarks.history import compare_history, worse
from hamr_edge.benchmarks.history_report import history_to_markdown, print_history
from tests.history_cases import INT8, MADE, OSNET, moved, with_changes, with_speed
from tests.made_reports import made_report


def test_a_report_has_not_changed_since_itself() -> None:
    history = compare_history(MADE, MADE)
    assert (history.moved, history.came, history.gone, history.notes) == ((), (), (), ())
    assert history.count("same") == len(history.changes) > 50
    assert worse(history) == []
    assert compare_history(MADE, made_report().to_json()) == history  # tuples, as they come, are as good as lists


@pytest.mark.parametrize(
    ("path", "value", "quantity", "verdict"),
    [
        ("verdict", "fail", "verdict", "worse"),
        ("parity.map", lambda score: score - 0.005, "mAP", "worse"),
        ("parity.map", lambda score: score + 0.005, "mAP", "better"),
        ("parity.map", lambda score: score - 0.0027, None, None),  # the two half intervals are 0.2 points each: 0.28
        ("parity.map", lambda score: score - 0.0029, "mAP", "worse"),
        ("parity.rank1", lambda score: score - 1 / 264, None, None),
        ("parity.rank1", lambda score: score - 2 / 264, "rank-1", "worse"),
        ("cross_gallery.map", lambda score: score - 0.01, "mAP against the reference's gallery", "worse"),
        ("parity.p01_cosine", lambda cosine: cosine - 0.0005, None, None),
        ("parity.p01_cosine", lambda cosine: cosine - 0.002, "1st percentile of the cosine", "worse"),
        ("separation.d_prime", lambda distance: 0.9 * distance, "d' of people", "worse"),
        ("match_threshold.shift", 0.02, "shift of the match threshold", "worse"),
        ("match_threshold.shift", lambda shift: -shift, None, None),
        ("latency.0.speedup", with_speed(0.9), "speed against the reference, batch 1", "worse"),
        ("latency.2.speedup", with_speed(1.1), "speed against the reference, batch 32", "better"),
        ("end_to_end.1.speedup", with_speed(0.7), "speed against the reference, a frame with 8 boxes", "worse"),
        ("latency.0.p50_ms", 1000.0, None, None),
        ("size_bytes", lambda size: size * 1.01, None, None),
        ("size_bytes", lambda size: size * 1.1, "file size", "worse"),
        ("cold_start.peak_memory_mb", lambda size: size * 1.05, None, None),
        ("cold_start.peak_memory_mb", lambda size: size * 0.8, "peak memory", "better"),
        ("cold_start.load_ms", lambda time: time * 1.4, None, None),
        ("cold_start.load_ms", lambda time: time * 1.7, "load time", "worse"),
        ("cold_start.to_first_embedding_ms", lambda time: time * 2, "time to the first embedding", "worse"),
        ("cold_start.gpu_memory_mb", 900.0, None, None),  # the old report has none
    ],
)
def test_one_change_is_found_and_no_other(path: str, value: Any, quantity: str | None, verdict: str | None) -> None:
    new = with_changes((path, value))
    history = compare_history(MADE, new)
    assert moved(history) == ([(quantity, verdict)] if quantity else [])
    assert len(worse(history)) == (verdict == "worse")
    other_way = {"better": "worse", "worse": "better", None: None}[verdict]
    assert moved(compare_history(new, MADE)) == ([(quantity, other_way)] if quantity else [])


@given(st.floats(0.2, 5), st.floats(0.0, 0.4))
def test_a_speed_counts_beyond_its_interval_and_what_bench_repeats(factor: float, spread: float) -> None:
    old, new = (
        with_changes(("latency.0.speedup", with_speed(1))),
        with_changes(("latency.0.speedup", with_speed(factor, spread))),
    )
    apart = factor * (1 - spread) > 1.005 or factor * (1 + spread) < 0.995
    expected = "same" if not apart or 1 / 1.03 <= factor <= 1.03 else "better" if factor > 1 else "worse"
    (found,) = (
        change
        for change in compare_history(old, new).changes
        if (change.model, change.quantity) == ("model.int8-cpu.onnx", "speed against the reference, batch 1")
    )
    assert found.verdict == expected


@given(st.floats(-0.5, 0.35), st.floats(0, 0.2), st.floats(0, 0.2))
def test_a_score_counts_beyond_its_intervals(lost: float, old_half: float, new_half: float) -> None:
    old = with_changes(("parity.map_interval", [-old_half, old_half]))
    new = with_changes(("parity.map_interval", [-new_half, new_half]), ("parity.map", lambda score: score - lost))
    noise = max(0.001, (old_half**2 + new_half**2) ** 0.5)
    expected = [] if abs(lost) <= noise else [("mAP", "worse" if lost > 0 else "better")]
    if abs(abs(lost) - noise) > 1e-6:
        assert moved(compare_history(old, new)) == expected


def test_a_change_says_what_was_and_what_counts_as_noise() -> None:
    history = compare_history(MADE, with_changes(("parity.map", 0.5), ("latency.0.speedup", with_speed(0.5))))
    score, speed = worse(history)
    assert score == (
        "model.int8-cpu.onnx: mAP got worse: 60.25 % before, 50.00 % now (-10.25 points; noise is up to 0.28 points)"
    )
    assert "1.720 (1.694 to 1.754), 16.05 ms before, 0.860 (0.856 to 0.864), 16.05 ms now (-50.0 %;" in speed
    assert speed.endswith("the reference's own p50 was 27.6 ms, is 27.6 ms")


def test_a_speed_that_is_not_known_well_says_so_and_is_no_change() -> None:
    history = compare_history(MADE, with_changes(("latency.0.speedup", with_speed(0.7, spread=0.5))))
    (note,) = (change.note for change in history.changes if change.note)
    assert (history.moved, note) == (
        (),
        "moved by -30 %, but is not known well enough to tell; see --max-seconds",
    )


def test_without_intervals_a_query_more_or_less_is_noise() -> None:
    known = ("parity.rank1_interval", None)
    old = with_changes(known)
    for queries, expected in ((1, []), (2, [("rank-1", "worse")])):
        new = with_changes(known, ("parity.rank1", lambda score, lost=queries: score - lost / 264))
        assert moved(compare_history(old, new)) == expected


def test_a_threshold_that_moves_up_is_as_bad_as_one_that_moves_down() -> None:
    down, up, stayed = (with_changes(("match_threshold.shift", shift)) for shift in (-0.02, 0.02, 0.0))
    assert compare_history(down, up).moved == ()
    assert [moved(compare_history(stayed, far)) for far in (down, up)] == [
        [("shift of the match threshold", "worse")]
    ] * 2


def test_energy_counts_where_one_sensor_told_it() -> None:
    energy = {"sensor": "rapl package-0", "batch": 8, "millijoules_per_image": 300.0}
    old, more = with_changes(("energy", energy)), {**energy, "millijoules_per_image": 400.0}
    assert moved(compare_history(old, with_changes(("energy", more)))) == [("energy of an image", "worse")]
    for other in ({"sensor": "ina3221 VDD_IN"}, {"batch": 1}):
        history = compare_history(old, with_changes(("energy", {**more, **other})))
        assert (history.moved, history.count("not comparable")) == ((), 1)


def test_a_verdict_under_another_budget_says_so() -> None:
    (change,) = compare_history(MADE, with_changes(("verdict", "fail"), ("budgets.map", 0.1))).moved
    assert change.note == "other budgets: map was 0.5, is 0.1"


def test_a_model_beside_is_told_and_fails_no_gate() -> None:
    history = compare_history(MADE, with_changes(("parity.map", 0.1), place=OSNET))
    assert moved(history) == [("mAP", "worse")]
    assert worse(history) == []


def test_models_that_came_or_went_are_told() -> None:
    history = compare_history(MADE, with_changes(("name", "model.int4.onnx"), ("artifact", "model.int4.onnx")))
    assert history.gone == ("model.int8-cpu.onnx (int8-cpu, onnxruntime-cpu)",)
    assert history.came == ("model.int4.onnx (int8-cpu, onnxruntime-cpu)",)


def test_nothing_in_common_fails_the_gate() -> None:
    new = copy.deepcopy(MADE)
    for result in new["results"]:
        result["backend"] = "tensorrt"
    (sentence,) = worse(compare_history(MADE, new))
    assert sentence.startswith("nothing could be compared: ")


def test_files_may_lie_in_another_folder_unless_names_would_be_mixed() -> None:
    elsewhere = with_changes(("name", "release/model.int8-cpu.onnx"), ("parity.map", 0.5))
    assert moved(compare_history(MADE, elsewhere)) == [("mAP", "worse")]
    twins = copy.deepcopy(elsewhere)
    twins["results"].append({**twins["results"][INT8], "name": "next/model.int8-cpu.onnx"})
    assert len(compare_history(MADE, twins).came) == 2


RUBBISH = st.sampled_from([None, True, -1, 0, float("inf"), float("nan"), "", "x", [], [3], {}, {"batch": 1}])


@given(st.data())
def test_rubbish_in_a_field_is_passed_over(data: st.DataObject) -> None:
    """Whatever a field holds, no error and no change of another model."""
    result = MADE["results"][INT8]
    name = data.draw(st.sampled_from(sorted(set(result) - {"artifact", "name", "role", "precision", "backend"})))
    path = name
    if isinstance(result[name], dict) and data.draw(st.booleans()):
        path = f"{name}.{data.draw(st.sampled_from(sorted(result[name])))}"
    elif name == "latency" and data.draw(st.booleans()):
        path = f"latency.0.{data.draw(st.sampled_from(['batch', 'p50_ms', 'speedup', 'speedup.median']))}"
    broken = with_changes((path, data.draw(RUBBISH)))
    for history in (compare_history(MADE, broken), compare_history(broken, MADE)):
        assert {change.model for change in history.moved} <= {"model.int8-cpu.onnx"}
        history_to_markdown(history)


def test_the_tables_list_what_changed_and_count_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    history = compare_history(MADE, with_changes(("parity.map", 0.5), ("name", "model.[red]*\x1b.onnx")))
    assert history.moved == ()  # another name is another model
    history = compare_history(MADE, with_changes(("parity.map", 0.5)))
    print_history(history, Console(width=160))
    shown = capsys.readouterr().out
    for text in ("model.int8-cpu.onnx", "60.25 %", "50.00 %", "-10.25 points", "0.28 points", "worse"):
        assert text in shown
        assert text in history_to_markdown(history)
    same = history.count("same")
    assert f"1 of {same + 1} quantities got worse, 0 better, {same} not beyond noise" in shown
    beside = compare_history(MADE, with_changes(("parity.map", 0.1), place=OSNET))
    print_history(beside, Console(width=160))
    assert "worse, not judged" in capsys.readouterr().out


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    old = with_changes(("name", "[bold]a|b\x1b[31m.onnx"))
    history = compare_history(
        old, {**old, "results": with_changes(("name", "[bold]a|b\x1b[31m.onnx"), ("verdict", "fail"))["results"]}
    )
    print_history(history, Console(width=160))
    shown = capsys.readouterr().out
    assert "[bold]a|b" in shown
    assert "\x1b" not in shown
    assert "\\[bold\\]a\\|b" in history_to_markdown(history)
