"""An engine from an ONNX file: parse, look at the memory, build with what earlier builds measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.export.build_memory import MemoryNeed, available_host_bytes, check_need, measure_need
from hamr_edge.export.dla_layers import count_dla_layers
from hamr_edge.export.engine_build import ParsedNetwork, build_network, choose_profile, configure, parse_network
from hamr_edge.export.engine_options import DEFAULTS, EngineOptions
from hamr_edge.export.timing_cache import TimingCache, timing_cache_file
from hamr_edge.tensorrt_library import words_of

_MIB = 1 << 20
_LEAST_WORKSPACE_MIB = 64
"""Scratch memory of a build where next to nothing is spare: with less, layers have no implementation left."""
Shapes = dict[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A plan, and what the sidecar shall know of its build."""

    plan: bytes
    profile: Shapes
    """Smallest, likeliest and largest shape of each input."""
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What a build would do."""

    built_by: str
    """Name and version."""
    inputs: dict[str, str]
    """Type and shape of each, in words."""
    outputs: dict[str, str]
    layers: int
    profile: Shapes
    need: MemoryNeed
    workspace_mib: int | None
    """None: the library's own limit."""
    objection: str
    """Why the library would not build it, in its words; empty where it would."""
    dla_layers: int | None = None
    """Layers for the deep-learning accelerator; None where none was asked for."""


def build_engine(
    trt: Any,
    model_path: Path,
    max_batch: int,
    options: EngineOptions = DEFAULTS,
    *,
    device: CudaDevice | None = None,
    timing_cache: Path | None = None,
    memory_check: bool = True,
    quiet: bool = True,
) -> BuiltEngine:
    """Build the plan of an ONNX file, in the crops or in the frame form.

    Args:
        trt: The bindings.
        model_path: The ONNX file.
        max_batch: Most crops or boxes of a call.
        options: Of the build.
        device: The GPU to build for; None for a library that needs none.
        timing_cache: Folder of what earlier builds measured; None keeps nothing.
        memory_check: Refuse to begin where memory looks short.
        quiet: No progress.

    Raises:
        InputError: The file is no network that the library takes; its words are in the message.
        UnavailableError: The library, an option of it, or memory is not there.
        KeyboardInterrupt: Ctrl-C; nothing is left behind.
    """
    # All of it, not the build alone: the library chooses its GPU when the builder is made.
    with _current(device):
        begin = time.monotonic()
        parsed, profile, need, options = _prepare(trt, model_path, max_batch, options, device)
        if memory_check:
            check_need(need, model_path)
        builder_config, dla_layers = _configure(trt, parsed, profile, max_batch, options)
        cache = None
        if timing_cache is not None and device is not None:
            file = timing_cache_file(timing_cache, trt, device.compute_capability, device.name)
            cache = TimingCache(trt, builder_config, parsed.logger, file)
        plan = build_network(trt, parsed, profile, builder_config, device, quiet)
        if cache is not None:
            cache.save()
        details = {
            "build_s": round(time.monotonic() - begin, 1),
            "layers": int(parsed.network.num_layers),
            "workspace_mib": options.workspace_mib,
            "timing_cache": "none" if cache is None else cache.state,
        }
        return BuiltEngine(plan, profile, details | ({} if dla_layers is None else {"dla_layers": dla_layers}))


def inspect_build(
    trt: Any, model_path: Path, max_batch: int, options: EngineOptions = DEFAULTS, device: CudaDevice | None = None
) -> BuildPlan:
    """Do all that comes before a build; the arguments and errors are those of :func:`build_engine`."""
    with _current(device):
        parsed, profile, need, options = _prepare(trt, model_path, max_batch, options, device)
        builder_config, dla_layers = _configure(trt, parsed, profile, max_batch, options)
        parsed.logger.errors.clear()
        network = parsed.network
        supported = parsed.builder.is_network_supported(network, builder_config)
        return BuildPlan(
            built_by=f"{trt.__name__} {trt.__version__}",
            inputs={_name(tensor): _words(tensor) for tensor in map(network.get_input, range(network.num_inputs))},
            outputs={_name(tensor): _words(tensor) for tensor in map(network.get_output, range(network.num_outputs))},
            layers=int(network.num_layers),
            profile=profile,
            need=need,
            workspace_mib=options.workspace_mib,
            objection="" if supported else words_of(parsed.logger),
            dla_layers=dla_layers,
        )


def _current(device: CudaDevice | None) -> AbstractContextManager[object]:
    return nullcontext() if device is None else device


def _configure(
    trt: Any, parsed: ParsedNetwork, profile: Shapes, max_batch: int, options: EngineOptions
) -> tuple[Any, int | None]:
    """The builder's configuration, and how many layers go to the DLA; None where none was asked for."""
    builder_config = configure(trt, parsed, profile, options)
    if options.dla_core is None:
        return builder_config, None
    return builder_config, count_dla_layers(trt, parsed.network, builder_config, max_batch)


def _prepare(
    trt: Any, model_path: Path, max_batch: int, options: EngineOptions, device: CudaDevice | None
) -> tuple[ParsedNetwork, Shapes, MemoryNeed, EngineOptions]:
    """Parse, choose shapes and scratch memory, and estimate the need."""
    # Before parsing, whose memory is part of the need.
    host_free = available_host_bytes()
    parsed = parse_network(trt, model_path, options)
    profile = _plain(choose_profile(parsed, max_batch, options.opt_batch))
    need = measure_need(parsed.network, model_path, profile, options.workspace_bytes, device, host_free)
    spare = need.spare_device_bytes
    if options.workspace_mib is None and spare is not None:
        # The library's own limit is all the device has, which on a Jetson is the host's memory too.
        options = replace(options, workspace_mib=max(_LEAST_WORKSPACE_MIB, spare // 2 // _MIB))
    return parsed, profile, need, options


def _plain(profile: Mapping[str, Any]) -> Shapes:
    return {name: tuple(tuple(shape) for shape in shapes) for name, shapes in profile.items()}


def _name(tensor: Any) -> str:
    return str(tensor.name)


def _words(tensor: Any) -> str:
    return f"{tensor.dtype.name.lower()} {tuple(tensor.shape)}"
