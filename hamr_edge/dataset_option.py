"""The options that say what kind of data set a folder holds, the same in every command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hamr_edge.dataset import KINDS


def dataset_option(of: str, flag: str = "--dataset") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The click option ``flag`` for the kind of the data set that ``of`` names; see ``open_dataset``.

    Its parameter is called ``dataset_kind`` (``test_dataset_kind`` for ``--test-dataset``).
    """
    return click.option(
        flag,
        f"{flag.strip('-').replace('-', '_')}_kind",
        type=click.Choice(KINDS),
        default="auto",
        show_default=True,
        metavar=None if flag == "--dataset" else "KIND",
        help=f"What {of} is. A standard set has its published counts checked; market-layout, msmt17-layout and folders "
        "are not counted; auto goes by what the folder holds, and by its name."
        if flag == "--dataset"
        else f"What {of} is, like --dataset.",
    )
