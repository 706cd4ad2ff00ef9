"""The options of ``export`` that make ONNX files of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CALIBRATORS, CalibrationConfig
from hamr_edge.errors import InputError
from hamr_edge.export.config import FORMS, PRECISIONS, ExportConfig

Function = TypeVar("Function", bound=Callable[..., Any])
_MAX_BATCH = 32
_FLAGS = (
    click.option("--precision", default="fp32", show_default=True, help=f"Comma-separated: {', '.join(PRECISIONS)}."),
    click.option("--form", default="crops", show_default=True, help=f"Comma-separated: {', '.join(FORMS)}."),
    click.option(
        "--min-cosine",
        type=float,
        help="Least agreement of any crop, of engines with their .onnx; as well as the precision allows.",
    ),
    click.option(
        "--embedding-dim", type=int, help="Compact embeddings of so many values (PCA-whitening); needs --data."
    ),
    click.option(
        "--calibrator",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", *CALIBRATORS]),
        help="How int8 ranges are chosen; auto tries all.",
    ),
    click.option(
        "--calibration-crops", type=int, default=512, show_default=True, help="Training crops int8 is made on."
    ),
    click.option(
        "--allow-random-calibration", is_flag=True, help="int8 from noise, without --data: to try the way only."
    ),
    click.option("--max-map-drop", type=float, default=0.5, show_default=True, help="Points of mAP int8 may lose."),
    click.option(
        "--max-rank1-drop", type=float, default=0.3, show_default=True, help="Points of rank-1 int8 may lose."
    ),
    click.option("--min-p01-cosine", type=float, default=0.98, show_default=True, help="Least 1st percentile, int8."),
    click.option("--held-out-crops", type=int, default=2000, show_default=True, help="Most crops int8 is judged on."),
)
_NAMES = (
    "precision",
    "form",
    "embedding_dim",
    "calibrator",
    "calibration_crops",
    "allow_random_calibration",
    "max_map_drop",
    "max_rank1_drop",
    "min_p01_cosine",
    "held_out_crops",
)


def checkpoint_flags(function: Function) -> Function:
    """Give a command the options that :func:`checkpoint_config` reads."""
    for option in reversed(_FLAGS):
        function = option(function)
    return function


def checkpoint_config(flags: dict[str, Any], max_batch: int | None, seed: int) -> ExportConfig:
    """The settings that the options make.

    Raises:
        InputError: One is not as expected.
    """
    return ExportConfig(
        precisions=_words(flags["precision"]),
        forms=_words(flags["form"]),
        max_batch=_MAX_BATCH if max_batch is None else max_batch,
        min_cosine=flags["min_cosine"],
        seed=seed,
        embedding_dim=flags["embedding_dim"],
        calibration=CalibrationConfig(
            flags["calibration_crops"], flags["calibrator"], seed, flags["allow_random_calibration"]
        ),
        budget=Budget(flags["max_map_drop"], flags["max_rank1_drop"], flags["min_p01_cosine"]),
        held_out_crops=flags["held_out_crops"],
    )


def refuse_checkpoint_flags(context: click.Context) -> None:
    """Raise where an option for checkpoints was given with an .onnx file, which is finished.

    Raises:
        InputError: The message names the options.
    """
    source = click.core.ParameterSource.COMMANDLINE
    given = [name for name in _NAMES if context.get_parameter_source(name) == source]
    if given:
        words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"an .onnx file has its precision and form already; leave out {words}, or export a checkpoint")


def _words(listed: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in listed.split(","))
