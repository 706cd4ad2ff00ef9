"""JSON results, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hamr_edge.atomic import check_target
from hamr_edge.text_file import write_text

STDOUT = "-"


def check_json_target(target: str) -> None:
    """Find out before long work whether :func:`write_json` can write there.

    Raises:
        InputError: The folder is missing or cannot be written to, or the target is a folder.
    """
    if target != STDOUT:
        check_target(Path(target), "--json")


def write_json(values: Any, target: str) -> None:
    """Write values as indented JSON to a file; ``-`` is stdout.

    Raises:
        InputError: The file cannot be written.
    """
    text = json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if target == STDOUT:
        click.echo(text, nl=False)
        return
    write_text(text, target, "--json")
