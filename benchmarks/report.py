"""A comparison in the terminal: tables, then each artifact's verdict with its reasons."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hamr_edge.benchmarks.report_tables import ReportTable, quality_tables
from hamr_edge.benchmarks.report_text import answer, printable, summary, whole
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport
from hamr_edge.benchmarks.speed_tables import speed_tables

_COLOURS = {"pass": "green", "fail": "red"}
_INDENT = 6


def print_report(report: BenchReport, console: Console) -> None:
    """Write the tables, then the verdicts: the last lines are those that stay in sight."""
    console.print(Text(whole(report)))
    for table in (*quality_tables(report, full=False), *speed_tables(report, full=False)):
        console.print()
        console.print(_draw(table))
    console.print()
    for note in report.notes:
        _print_sentence(console, "note:", "yellow", note, 0)
    for result in report.results:
        _print_verdict(result, report, console)
    console.print()
    console.print(Text(answer(report), style="bold"))


def _print_verdict(result: ArtifactResult, report: BenchReport, console: Console) -> None:
    if result.role == "artifact":
        line = Text.assemble(
            (result.verdict, f"bold {_COLOURS[result.verdict]}"), "  ", (printable(result.name), "bold")
        )
        console.print(line.append(f"  {summary(result, report.reference)}"))
    for failure in result.failures:
        _print_sentence(console, "-", "red", failure)
    for cause in result.causes:
        _print_sentence(console, f"cause: {printable(cause.fault)}:", "magenta", cause.sentence)
    for note in result.notes:
        owner = "note:" if result.role == "artifact" else f"note on {printable(result.name)}:"
        _print_sentence(console, owner, "yellow", note, _INDENT if result.role == "artifact" else 0)


def _print_sentence(console: Console, mark: str, colour: str, sentence: str, indent: int = _INDENT) -> None:
    console.print(Padding(Text.assemble((mark, colour), " ", printable(sentence)), (0, 0, 0, indent), expand=False))


def _draw(table: ReportTable) -> Table:
    drawn = Table(title=Text(table.title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False)
    for number, column in enumerate(table.columns):
        left = not number or column in table.words
        drawn.add_column(Text(column), justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for number, row in enumerate(table.rows):
        if number in table.sections:
            drawn.add_section()
        drawn.add_row(*map(Text, row))
    return drawn
