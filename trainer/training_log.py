"""The log of a training run, read by the names of its columns."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from hamr_edge.errors import InputError

EPOCH = "epoch"


def read_training_log(path: Path) -> dict[str, list[float]]:
    """The columns of a ``log.csv``: one number an epoch, NaN where the epoch has none.

    Args:
        path: The log that training wrote; columns may be missing, and there may be others.

    Returns:
        Columns by name, all of one length, ``epoch`` among them.

    Raises:
        InputError: The file is missing, has no epochs, or holds something that is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            names = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"training log {path} cannot be read: {error}") from error
    if EPOCH not in names or not rows:
        raise InputError(
            f"training log {path} has no epochs: expected a column {EPOCH!r} and a line an epoch, got "
            f"{len(rows)} lines of {', '.join(names) or 'nothing'}"
        )
    columns: dict[str, list[float]] = {name: [] for name in names}
    for line, row in enumerate(rows, 2):
        for name, values in columns.items():
            text = row[name]
            try:
                values.append(float(text) if text else math.nan)
            except ValueError as error:
                raise InputError(f"training log {path}, line {line}: {name} is {text!r}, expected a number") from error
    return columns
