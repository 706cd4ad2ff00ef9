"""The options of ``export`` that say how engines are built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from hamr_edge.errors import InputError
from hamr_edge.export.engine_export import EngineConfig
from hamr_edge.export.engine_options import HARDWARE_COMPATIBILITY, EngineOptions
from hamr_edge.export.timing_cache import default_timing_cache

Function = TypeVar("Function", bound=Callable[..., Any])
_FLAGS = (
    click.option("--opt-batch", type=int, help="Engine: the batch it is tuned for.  [default: 8]"),
    click.option("--workspace", "workspace_mib", type=int, metavar="MIB", help="Engine: most scratch memory, in MiB."),
    click.option(
        "--optimization-level", type=int, help="Engine: 0 builds fastest, 5 runs fastest; TensorRT's own is 3."
    ),
    click.option("--tf32", is_flag=True, help="Engine: let float32 products round to TF32."),
    click.option("--version-compatible", is_flag=True, help="Engine: runs on later versions of TensorRT too."),
    click.option(
        "--hardware-compatible",
        "hardware_compatibility",
        type=click.Choice(HARDWARE_COMPATIBILITY),
        default="none",
        show_default=True,
        help="Engine: other GPUs it shall run on.",
    ),
    click.option("--dla-core", type=int, help="Engine: put what can be on this DLA core of a Jetson; needs --batch 1."),
    click.option(
        "--timing-cache",
        type=click.Path(path_type=Path, file_okay=False),
        help="Engine: folder of what builds measured, a file a GPU and version.  [default: in the user's cache]",
    ),
    click.option("--no-memory-check", is_flag=True, help="Engine: build even where memory looks short."),
    click.option(
        "--unchecked", is_flag=True, help="Engine: publish it though it cannot be run here; its sidecar says so."
    ),
    click.option("--dry-run", is_flag=True, help="Engine: parse and check everything, build nothing."),
    click.option("--device", default="auto", show_default=True, help="Engine: the GPU to build for."),
)
_NAMES = (
    "max_batch",
    "min_cosine",
    "opt_batch",
    "workspace_mib",
    "optimization_level",
    "tf32",
    "version_compatible",
    "hardware_compatibility",
    "dla_core",
    "timing_cache",
    "no_memory_check",
    "unchecked",
    "dry_run",
    "device",
)


def engine_flags(function: Function) -> Function:
    """Give a command the options that :func:`engine_config` reads, but for ``min_cosine``, and ``dry_run``."""
    for option in reversed(_FLAGS):
        function = option(function)
    return function


def engine_config(flags: dict[str, Any], max_batch: int | None, seed: int) -> EngineConfig:
    """The settings that the options make.

    Raises:
        InputError: One is out of range.
    """
    names = ("opt_batch", "workspace_mib", "optimization_level", "tf32", "version_compatible")
    options = EngineOptions(
        **{name: flags[name] for name in (*names, "hardware_compatibility", "dla_core")},
    )
    return EngineConfig(
        options=options,
        max_batch=max_batch,
        device=flags["device"],
        timing_cache=flags["timing_cache"] or default_timing_cache(),
        memory_check=not flags["no_memory_check"],
        unchecked=flags["unchecked"],
        min_cosine=flags.get("min_cosine"),
        seed=seed,
    )


def refuse_engine_flags(context: click.Context) -> None:
    """Raise where an option for engines was given and none is built.

    Raises:
        InputError: The message names the options.
    """
    source = click.core.ParameterSource.COMMANDLINE
    given = [
        option.opts[0]
        for option in context.command.params
        if option.name in _NAMES and context.get_parameter_source(option.name) == source
    ]
    if given:
        raise InputError(
            f"--preset makes files of an .onnx as it is and builds no engine; leave out {', '.join(given)}, or "
            "--preset to build one with --format engine"
        )
