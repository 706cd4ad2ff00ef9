"""The report's words, tables and terminal output."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hamr_edge.benchmarks.budget_table import budget_table
from hamr_edge.benchmarks.command_words import command_words
from hamr_edge.benchmarks.pareto import TradeOffPoint, pareto_front, trade_offs
from hamr_edge.benchmarks.report import print_report
from hamr_edge.benchmarks.report_tables import ReportTable, models_table, quality_tables
from hamr_edge.benchmarks.report_text import answer, milliseconds, points, printable, shorten, summary
from hamr_edge.benchmarks.results import BenchReport
from hamr_edge.benchmarks.speed_tables import speed_tables
from tests.made_reports import made_latency, made_report, made_result

REPORT = made_report()


def shown(report: BenchReport, width: int = 140, terminal: bool = False) -> str:
    words = io.StringIO()
    print_report(
        report,
        Console(
            file=words,
            width=width,
            highlight=False,
            force_terminal=terminal,
            color_system="truecolor" if terminal else None,
        ),
    )
    return words.getvalue()


def table_of(report: BenchReport, title: str, full: bool = True) -> ReportTable:
    tables = (*quality_tables(report, full), *speed_tables(report, full))
    return next(table for table in tables if table.title.startswith(title))


def cell(table: ReportTable, model: str, column: str) -> str:
    row = next(row for row in table.rows if row[0] == model)
    return row[table.columns.index(column)]


def test_piped_output_is_plain_and_fits() -> None:
    text = shown(REPORT)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 140
    assert all(line == line.rstrip() or "─" not in line for line in text.splitlines()[-8:])
    assert "\x1b" in shown(REPORT, terminal=True)


def test_figures_stay_whole_on_100_columns() -> None:
    text = shown(REPORT, 100)
    assert max(map(len, text.splitlines())) <= 100
    for figure in ("1.72 (1.69 to 1.75)", "0.978000", "60.25", "-0.14 (-0.34 to +0.06)"):
        assert figure in text


def test_verdicts_come_last_with_reasons_and_causes() -> None:
    text = shown(REPORT)
    end = text[text.rindex("Energy") :]
    assert "pass  model.int8-cpu.onnx" in end
    assert "fail  model.bgr.onnx" in end
    assert "- mAP fell 4.30 points" in end
    assert "cause: colour order: red and blue are swapped" in end
    assert "note: 264 queries" in end
    assert "3 of 4 artifacts are as good as market" in end


def test_a_model_beside_has_no_verdict() -> None:
    assert "pass  boxmot" not in shown(REPORT)
    assert [row[0] for row in budget_table(REPORT).rows] == [result.name for result in REPORT.judged]


def test_columns_and_tables_without_figures_are_left_out() -> None:
    assert "not finite" not in table_of(REPORT, "Agreement").columns
    assert "upload" not in table_of(REPORT, "Stages").columns
    bare = replace(made_result("a.onnx", 1.1), stages=None, cold_start=None)
    report = made_report(
        results=(bare,), reference=replace(REPORT.reference, stages=None, cold_start=None, energy=None)
    )
    titles = [table.title for table in speed_tables(report)]
    assert not any(title.startswith(("Stages", "Energy")) for title in titles)
    assert table_of(report, "Start").columns == ("model", "file MB", "values")


def test_crops_that_are_not_finite_are_told() -> None:
    first = REPORT.results[0]
    broken = replace(first, parity=replace(first.parity, not_finite=7))
    assert cell(table_of(made_report(results=(broken,)), "Agreement"), first.name, "not finite") == "7"


def test_what_has_no_value_is_a_dash() -> None:
    agreement, apart = table_of(REPORT, "Agreement"), table_of(REPORT, "Telling")
    assert cell(agreement, "osnet_x1_0.onnx", "least cosine") == "-"
    assert cell(agreement, "boxmot", "in a batch") == "-"
    assert cell(apart, "osnet_x1_0.onnx", "shift") == "-"
    assert "boxmot" not in [row[0] for row in table_of(REPORT, "Latency").rows]
    assert "boxmot" in [row[0] for row in table_of(REPORT, "End to end").rows]


def test_upload_is_shown_of_a_gpu() -> None:
    first = REPORT.results[0]
    assert first.stages is not None
    gpu = replace(first, device="cuda:0", stages=replace(first.stages, upload_ms=0.31))
    assert cell(table_of(made_report(results=(gpu,)), "Stages"), first.name, "upload") == "0.31"


def test_a_time_that_is_not_sure_is_marked() -> None:
    unsure = made_result("a.onnx", 1.0, end_to_end=(), batches=())
    unsure = replace(unsure, latency=(made_latency(8, 1.0, uncertainty=0.05),))
    assert cell(table_of(made_report(results=(unsure,)), "Latency"), "a.onnx", "± %") == "5.0 !"


def test_a_peer_does_not_tell_what_importing_takes() -> None:
    first = REPORT.results[0]
    assert first.cold_start is not None
    peer = replace(first, cold_start=replace(first.cold_start, import_ms=None))
    table = table_of(made_report(results=(peer,)), "Start")
    assert (cell(table, first.name, "import ms"), cell(table, first.name, "load ms")) == ("-", "840.0")


def test_a_speed_that_is_not_sure_is_not_told_as_if_it_were() -> None:
    sure, unsure = (replace(REPORT.results[0], latency=(made_latency(8, 1.5, uncertainty=by),)) for by in (0.01, 0.38))
    for result, told in ((sure, False), (unsure, True)):
        assert ("not sure: to 38 %" in answer(made_report(results=(result,)))) is told
        assert ("not sure: to 38 %" in summary(result, REPORT.reference)) is told


def test_batches_are_grouped() -> None:
    table = table_of(REPORT, "End to end")
    assert [table.rows[row][1] for row in sorted(table.sections)] == ["8", "32"]
    assert [row[1] for row in table.rows] == sorted((row[1] for row in table.rows), key=int)


def test_every_table_is_rectangular() -> None:
    for full in (True, False):
        for table in (*quality_tables(REPORT, full), *speed_tables(REPORT, full), models_table(REPORT)):
            assert {len(row) for row in table.rows} == {len(table.columns)}, table.title


def test_answer_names_who_is_fastest_and_who_is_not_as_good() -> None:
    words = answer(REPORT)
    assert "model.int8-cpu.onnx, changes mAP by -0.14 points" in words
    assert "1.72 times the reference's speed at batch 32" in words
    assert words.endswith("Not so: model.bgr.onnx.")


def test_answer_for_one_for_none_and_for_nothing_judged() -> None:
    good, bad, beside = REPORT.results[0], REPORT.results[3], REPORT.results[4]
    assert answer(made_report(results=(good,))).startswith("model.fp32.onnx is as good as market")
    assert answer(made_report(results=(bad,))).startswith("model.bgr.onnx misses what was asked")
    assert answer(made_report(results=(bad, bad))).startswith("Both artifacts miss")
    assert answer(made_report(results=(beside,))).startswith("Nothing was judged")


def test_summary_of_a_peer_is_of_frames() -> None:
    assert "for a frame with 32 boxes" in summary(REPORT.results[5], REPORT.reference)
    assert " MB" not in summary(REPORT.results[5], REPORT.reference)


def test_budgets_stand_beside_what_was_measured() -> None:
    asked = {"map": 0.5, "rank1": None, "separation": 0.8, "speedup": 1.1, "cross_map": 1.0, "threshold_shift": 0.01}
    report = made_report(results=(made_result("a.onnx", 1.25, lost=0.0014, budgets=asked),))
    table = budget_table(report)
    assert dict(zip(table.columns, table.rows[0], strict=True)) == {
        "artifact": "a.onnx",
        "verdict": "pass",
        "mAP lost": "0.14 of 0.5",
        "d' of the reference's": "0.972 of 0.8",
        "mAP lost, its gallery": "0.07 of 1",
        "threshold moved": "0.0014 of 0.01",
        "least x speed": "1.250 of 1.1",
    }


def test_command_repeats_what_was_set() -> None:
    assert command_words(REPORT) == (
        "hamr-edge bench build/model.fp32.onnx build/model.fp16.onnx build/model.int8-cpu.onnx build/model.bgr.onnx "
        "--reference runs/market --data Market-1501-mini --batch 1 --batch 8 --batch 32 --budget map=0.5 "
        "--beside osnet_x1_0.onnx"
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"torch_modes": ["bf16", "compile"]}, "--torch bf16,compile"),
        ({"mirror": True}, "--mirror"),
        ({"threads": 2, "max_crops": None}, "--threads 2"),
        ({"input_description": "rgb-float-imagenet"}, "--input rgb-float-imagenet"),
        ({"peers": ["plain=python a.py"]}, "--peer 'plain=python a.py'"),
        ({"something_new": 3}, ""),
    ],
)
def test_options_of_the_command(config: dict[str, object], words: str) -> None:
    assert (
        command_words(made_report(config=config))
        .removesuffix(words)
        .endswith("--data Market-1501-mini ".rstrip() + " " * bool(words))
    )


@pytest.mark.parametrize(("change", "text"), [(-0.0014, "-0.14"), (0.002, "+0.20"), (-0.00001, "0.00"), (0.0, "0.00")])
def test_points_have_a_sign_unless_they_round_to_nothing(change: float, text: str) -> None:
    assert points(change) == text


def test_milliseconds_have_about_three_digits() -> None:
    assert [milliseconds(value) for value in (0.126, 9.5, 27.63, 382.5, 2100.4)] == [
        "0.13",
        "9.50",
        "27.6",
        "382.5",
        "2100",
    ]


@given(st.text())
def test_printable_text_obeys_no_terminal(text: str) -> None:
    words = printable(text)
    words.encode("utf-8")
    assert (
        words.isprintable()
        or not words.strip()
        or all(ord(letter) > 126 for letter in words if not letter.isprintable())
    )
    assert "\n" not in words
    assert "\x1b" not in words


@given(st.text(min_size=1, max_size=60), st.integers(3, 30))
def test_short_names_keep_both_ends(text: str, most: int) -> None:
    short = shorten(text, most)
    assert len(short) == min(len(text), most)
    assert short[-1] == text[-1]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_pareto_front_is_what_nobody_beats(pairs: list[tuple[int, int]]) -> None:
    found = [TradeOffPoint(place, float(ms), score / 10) for place, (ms, score) in enumerate(pairs)]
    front = pareto_front(found)
    assert front
    by_time = sorted(front, key=lambda place: pairs[place])
    for first, second in pairwise(by_time):
        assert pairs[first] == pairs[second] or pairs[first][1] < pairs[second][1]
    for place, (ms, score) in enumerate(pairs):
        assert place in front or any(pairs[other][0] <= ms and pairs[other][1] >= score for other in front)


def test_trade_off_is_of_frames_that_all_were_timed_with() -> None:
    assert [(found.batch, len(found.points)) for found in trade_offs(REPORT)] == [(1, 7), (32, 7)]
    small = replace(REPORT.results[0], end_to_end=REPORT.results[0].end_to_end[:2])
    assert [found.batch for found in trade_offs(made_report(results=(small,)))] == [1, 8]
    ready = replace(REPORT.results[0], end_to_end=())
    reference = replace(REPORT.reference, end_to_end=())
    found = trade_offs(made_report(results=(ready,), reference=reference))
    assert [one.of for one in found] == ["a ready batch of 1 crop", "a ready batch of 32 crops"]
    assert (
        trade_offs(made_report(results=(replace(ready, latency=()),), reference=replace(reference, latency=()))) == []
    )
