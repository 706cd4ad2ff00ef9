"""A comparison as one self-contained HTML page: nothing is loaded from anywhere, and no script runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from hamr_edge.benchmarks.budget_table import budget_table
from hamr_edge.benchmarks.command_words import command_words
from hamr_edge.benchmarks.definitions import DEFINITIONS
from hamr_edge.benchmarks.environment_table import environment_table, settings_table
from hamr_edge.benchmarks.inline_svg import check_matplotlib
from hamr_edge.benchmarks.pareto import trade_offs
from hamr_edge.benchmarks.report_figures import (
    ReportFigure,
    draw_histograms,
    draw_sensitivity,
    draw_throughput,
    draw_trade_off,
    model_swatch,
)
from hamr_edge.benchmarks.report_pictures import pictures_section
from hamr_edge.benchmarks.report_style import STYLE
from hamr_edge.benchmarks.report_tables import ReportTable, models_table, quality_tables, sensitivity_table
from hamr_edge.benchmarks.report_text import answer, printable, summary, title, whole
from hamr_edge.benchmarks.results import ArtifactResult, BenchReport
from hamr_edge.benchmarks.speed_tables import speed_tables

_MARKS = {"pass": "✓ pass", "fail": "✗ fail", "not judged": "beside"}


def check_html_possible() -> None:
    """Find out before long work whether :func:`build_html` can draw.

    Raises:
        UnavailableError: Matplotlib is not installed.
    """
    check_matplotlib()


def build_html(report: BenchReport, dataset_folder: str | Path | None = None, pictures: bool = True) -> str:
    """The page: verdicts, plots, tables, worst crops, machine and settings. Equal reports give equal pages.

    Args:
        report: The comparison.
        dataset_folder: Where the crops lie; as the report says when None.
        pictures: Show crops of people. Pictures that are not found leave gaps.

    Raises:
        UnavailableError: Matplotlib is not installed.
    """
    check_html_possible()
    heading = escape(title(report))
    folder = Path(dataset_folder if dataset_folder is not None else report.data["folder"])
    body = "\n".join(part for part in _parts(report, folder, pictures) if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{heading}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{heading}</h1>
{body}
</main>
</body>
</html>
"""


def _parts(report: BenchReport, folder: Path, pictures: bool) -> Iterator[str]:
    yield f'<p class="lead">{escape(answer(report))}</p>'
    yield f'<p class="pale">{escape(whole(report))}. {escape(printable(str(report.environment.get("date", ""))))}</p>'
    yield _verdicts(report)
    yield _notes(report.notes)
    if report.judged:
        yield _table(budget_table(report), 2)
    yield _plots("Plots", _figures(report), _legend(report))
    yield "<h2>How good</h2>"
    yield from (_table(table) for table in quality_tables(report))
    yield "<h2>How fast, how large</h2>"
    yield from (_table(table) for table in speed_tables(report))
    yield from _blocks(report)
    if pictures:
        yield from _worst_crops(report, folder)
    yield "<h2>Models, settings, machine</h2>"
    yield _table(models_table(report))
    yield f"<h3>Command</h3>\n<pre>{escape(printable(command_words(report)))}</pre>"
    yield '<p class="caption">With <code>--json FILE</code> the same command writes every figure as JSON.</p>'
    yield _table(settings_table(report.config))
    yield _table(environment_table(report.environment))
    meanings = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in DEFINITIONS)
    yield f"<h2>What the figures mean</h2>\n<dl>\n{meanings}\n</dl>"


def _verdicts(report: BenchReport) -> str:
    items = "\n".join(_verdict(result, number, report) for number, result in enumerate(report.results, 1))
    return f'<ul class="verdicts">\n{items}\n</ul>'


def _verdict(result: ArtifactResult, number: int, report: BenchReport) -> str:
    reasons = [escape(printable(failure)) for failure in result.failures]
    reasons += [f"<b>{escape(printable(one.fault))}</b>: {escape(printable(one.sentence))}" for one in result.causes]
    reasons += [f'<span class="note">Note: {escape(printable(note))}</span>' for note in result.notes]
    more = "<ul>" + "".join(f"<li>{reason}</li>" for reason in reasons) + "</ul>" if reasons else ""
    kind = result.verdict if result.role == "artifact" else "beside"
    return (
        f'<li class="{kind}"><span class="verdict">{_MARKS[result.verdict]}</span> '
        f'<span class="swatch" style="background: {model_swatch(number)}"></span>'
        f"<b>{escape(printable(result.name))}</b><br>{escape(summary(result, report.reference))}{more}</li>"
    )


def _notes(notes: Iterable[str]) -> str:
    return "\n".join(f'<p class="note">Note: {escape(printable(note))}</p>' for note in notes)


def _figures(report: BenchReport) -> Iterator[ReportFigure]:
    yield from (draw_trade_off(found, report) for found in trade_offs(report))
    for figure in (draw_throughput(report, True), draw_throughput(report, False), draw_histograms(report)):
        if figure is not None:
            yield figure


def _legend(report: BenchReport) -> str:
    """The models' colours; shown where a screen is too narrow for the names in the plots."""
    names = [report.reference.name, *(result.name for result in report.results)]
    items = "".join(
        f'<li><span class="swatch" style="background: {model_swatch(number)}"></span>{escape(printable(name))}</li>'
        for number, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _plots(heading: str, figures: Iterable[ReportFigure], legend: str = "") -> str:
    shown = "\n".join(_figure(figure) for figure in figures)
    return f'<h2>{escape(heading)}</h2>\n{legend}\n<div class="plots">\n{shown}\n</div>' if shown else ""


def _figure(figure: ReportFigure) -> str:
    return f"""<figure>
<h3>{escape(figure.heading)}</h3>
<div class="scroll" tabindex="0" role="region" aria-label="{escape(figure.heading)}">{figure.svg}</div>
<figcaption>{escape(figure.caption)}</figcaption>
</figure>"""


def _blocks(report: BenchReport) -> Iterator[str]:
    found = [(number, result) for number, result in enumerate(report.results, 1) if result.sensitivity]
    if found:
        yield _plots("What each block costs in int8", (draw_sensitivity(result, number) for number, result in found))
        yield from (_table(sensitivity_table(result)) for _, result in found)


def _worst_crops(report: BenchReport, folder: Path) -> Iterator[str]:
    sections = [section for result in report.results if (section := pictures_section(result, folder))]
    if sections:
        yield "<h2>The crops that moved most</h2>"
        yield (
            "<p>Each with its nearest gallery crops, nearest first, by the reference and by the model. "
            "✓ in a full frame: the same person. ✗ in a dashed frame: another. The figure is the cosine; "
            "<i>new</i>: not among the reference's.</p>"
        )
        yield from sections


def _table(table: ReportTable, level: int = 3) -> str:
    kinds = [' class="words"' if column in table.words else "" for column in table.columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(table.columns, kinds, strict=True)
    )
    lines = []
    for number, (name, *cells) in enumerate(table.rows):
        group = ' class="group"' if number in table.sections else ""
        values = "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells, kinds[1:], strict=True))
        lines.append(f'<tr{group}><th scope="row">{escape(name)}</th>{values}</tr>')
    rows = "\n".join(lines)
    return f"""<section>
<h{level}>{escape(table.title)}</h{level}>
<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
<p class="caption">{escape(table.caption)}</p>
</section>"""
