"""Progress on stderr, so that results on stdout stay clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def stderr_console(quiet: bool = False) -> Console:
    """A console for words that are not results."""
    return Console(stderr=True, quiet=quiet, highlight=False)


def stdout_console() -> Console:
    """A console for results; wide where nobody watches, so that tables in files and pipes do not fold."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Progress]:
    """A bar with count, time spent and time left; extra text goes into the task's ``note`` field."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=stderr_console(), disable=quiet) as progress:
        yield progress
