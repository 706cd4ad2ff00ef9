"""What changed since an older report, in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hamr_edge.benchmarks.history import Change, History
from hamr_edge.benchmarks.markdown_report import escape_markdown, markdown_table
from hamr_edge.benchmarks.report_text import printable

_TITLE = "Since the old report"
_COLUMNS = ("model", "quantity", "old", "new", "change", "noise up to", "is")
_COLOURS = {"better": "green", "worse": "red"}


def print_history(history: History, console: Console) -> None:
    """Write what changed, then how much stayed as it was, then what a reader must know."""
    console.print()
    if history.moved:
        table = Table(
            title=_TITLE, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
        )
        for column in _COLUMNS:
            table.add_column(column, overflow="fold")
        for change in history.moved:
            *cells, verdict = _cells(change)
            table.add_row(*map(Text, cells), Text(verdict, style=_COLOURS[change.verdict]))
        console.print(table)
        console.print()
    for line in _lines(history):
        console.print(Text(printable(line)))


def history_to_markdown(history: History) -> str:
    """The same as a section of a Markdown document."""
    table = [markdown_table(_COLUMNS, [_cells(change) for change in history.moved], _COLUMNS), ""]
    first, *others = map(escape_markdown, _lines(history))
    lines = [f"## {_TITLE}", "", *(table if history.moved else []), first, "", *(f"- {line}" for line in others)]
    return "\n".join(lines).rstrip() + "\n"


def _cells(change: Change) -> tuple[str, ...]:
    """A worse or better one that fails no gate says so."""
    verdict = change.verdict if change.gated else f"{change.verdict}, not judged"
    cells = (change.model, change.quantity, change.old, change.new, change.change, change.noise, verdict)
    return tuple(printable(cell) for cell in cells)


def _lines(history: History) -> Iterator[str]:
    better, worse, same, unknown = (history.count(word) for word in ("better", "worse", "same", "not comparable"))
    total = len(history.changes)
    counted = f"Since the old report, {worse} of {total} quantities got worse, {better} better, {same} not beyond noise"
    yield counted + (f", {unknown} cannot be compared." if unknown else ".")
    for models, what in ((history.gone, "no longer measured"), (history.came, "measured for the first time")):
        if models:
            yield f"{what}: {', '.join(models)}"
    for change in history.changes:
        if change.note and change.verdict != "not comparable":
            yield f"{change.model}, {change.quantity}: {change.note}"
    for note in history.notes:
        yield f"note: {note}"
