"""A comparison as Markdown, to paste into an issue or a design review."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from hamr_edge.benchmarks.budget_table import budget_table
from hamr_edge.benchmarks.command_words import command_words
from hamr_edge.benchmarks.environment_table import environment_table
from hamr_edge.benchmarks.report_tables import ReportTable, models_table, quality_tables, sensitivity_table
from hamr_edge.benchmarks.report_text import answer, printable, summary, title, whole
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport
from hamr_edge.benchmarks.speed_tables import speed_tables

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")
"""What Markdown, or GitHub's kind of it, would take for more than a letter."""
_MARKS = {"pass": "✅ pass", "fail": "❌ fail", "not judged": "beside"}


def to_markdown(report: BenchReport) -> str:
    """The whole report in GitHub's Markdown: verdicts, tables, the command, and the machine."""
    return "\n".join(_lines(report)).rstrip("\n") + "\n"


def _lines(report: BenchReport) -> Iterator[str]:
    yield f"## {escape_markdown(title(report))}"
    yield ""
    yield f"**{escape_markdown(answer(report))}**"
    yield ""
    for result in report.results:
        yield from _verdict(result, report)
    yield ""
    for note in report.notes:
        yield f"> {escape_markdown(note)}"
        yield ""
    yield f"{escape_markdown(whole(report))}."
    yield ""
    tables = [*quality_tables(report), *speed_tables(report)]
    tables.extend(sensitivity_table(result) for result in report.results if result.sensitivity)
    if report.judged:
        tables.insert(0, budget_table(report))
    for table in tables:
        yield from _section(table)
    yield "<details><summary>Models, command and machine</summary>"
    yield ""
    yield from _section(models_table(report))
    yield from _code(command_words(report))
    yield from _section(environment_table(report.environment))
    yield "</details>"


def _verdict(result: ArtifactResult, report: BenchReport) -> Iterator[str]:
    words = escape_markdown(summary(result, report.reference))
    yield f"- {_MARKS[result.verdict]}: **{escape_markdown(result.name)}** {words}"
    for failure in result.failures:
        yield f"  - {escape_markdown(failure)}"
    for cause in result.causes:
        yield f"  - **{escape_markdown(cause.fault)}**: {escape_markdown(cause.sentence)}"
    for note in result.notes:
        yield f"  - note: {escape_markdown(note)}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str] = ()) -> str:
    """A table of texts; the first column and those of words on the left, figures on the right."""
    rules = ["---" if not number or column in words else "---:" for number, column in enumerate(columns)]
    lines = ([escape_markdown(cell) for cell in row] for row in rows)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (map(escape_markdown, columns), rules, *lines))


def _section(table: ReportTable) -> Iterator[str]:
    yield f"### {escape_markdown(table.title)}"
    yield ""
    yield markdown_table(table.columns, table.rows, table.words)
    yield ""
    yield escape_markdown(table.caption)
    yield ""


def _code(text: str) -> Iterator[str]:
    """A fenced block; its fence is longer than any run of backticks inside."""
    shown = printable(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    yield from (fence, shown, fence, "")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", printable(text))
