"""Holds an engine's sidecar against this machine, before the plan is read: a plan is code."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hamr_edge.crop_canvas import LARGEST_FRAME_HW, SMALLEST_FRAME_HW
from hamr_edge.engine_record import ANY, FLAVOUR_NAMES, TENSORRT, TENSORRT_RTX, EngineRecord, rebuild_hint
from hamr_edge.errors import ArtifactError, UnavailableError
from hamr_edge.sidecar import Sidecar, require_record
from hamr_edge.tensorrt_library import MODULES, flavour_of, import_tensorrt

_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
"""What Windows and macOS call what Linux calls otherwise."""


def describe_build(
    trt: Any,
    *,
    source: str,
    profile: Mapping[str, Sequence[Sequence[int]]],
    compute_capability: str,
    device_name: str = "",
    version_compatible: bool = False,
    options: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> EngineRecord:
    """The record of a plan that was built on this machine, as :func:`check_engine` reads it.

    Args:
        trt: The bindings that built it.
        source: Name of the ONNX file.
        profile: Smallest, likeliest and largest shape of each input.
        compute_capability: Of the GPUs that may run it: ``8.7``, or ``8.0+`` for later ones too.
        device_name: The GPU it was tuned on.
        version_compatible: It was built to run on later versions.
        options: Words of the command line that change the plan.
        details: What else is worth keeping.
    """
    flavour = flavour_of(trt)
    return EngineRecord(
        flavour=flavour,
        version=str(trt.__version__),
        compute_capability=compute_capability,
        # NVIDIA: an engine of TensorRT for RTX runs on Windows and Linux alike.
        system=ANY if flavour == TENSORRT_RTX else _system_here(),
        machine=_machine_here(),
        profile={name: tuple(tuple(shape) for shape in shapes) for name, shapes in profile.items()},
        source=source,
        device_name=device_name,
        version_compatible=version_compatible,
        options=tuple(options),
        details=dict(details or {}),
    )


def import_engine_library(artifact: Path, sidecar: Sidecar) -> Any:
    """The bindings of the TensorRT that an engine was built by.

    What can be said without them and without a GPU is said first: nobody shall install a library for an engine of
    another system.

    Raises:
        ArtifactError: The engine is for another system, or not for the shapes that its sidecar promises.
        UnavailableError: This TensorRT is not here; the message says whether the other one is.
    """
    record = require_record(artifact, sidecar)
    _raise_first(artifact, record, _system_problem(record) or _profile_problem(record, sidecar))
    try:
        return import_tensorrt(MODULES[record.flavour])
    except UnavailableError as error:
        other = TENSORRT if record.flavour == TENSORRT_RTX else TENSORRT_RTX
        try:
            problem = _flavour_problem(record, import_tensorrt(MODULES[other]))
        except UnavailableError:
            problem = f"was built by {FLAVOUR_NAMES[record.flavour]} {record.version}, and no TensorRT is here"
        raise UnavailableError(f"{artifact} {problem}: {error}. Or {rebuild_hint(artifact, record)}") from error


def check_engine(artifact: Path, sidecar: Sidecar, trt: Any, compute_capability: str) -> None:
    """Raise unless an engine can run on this machine, as far as its sidecar tells.

    Args:
        artifact: The ``.engine`` file.
        sidecar: Its sidecar, which vouches for the file.
        trt: The bindings of TensorRT that are here.
        compute_capability: Of the GPU in use: ``8.7``.

    Raises:
        ArtifactError: The engine was built by another TensorRT, for another GPU or system, or not for the shapes that
            its sidecar promises. The message says what the engine wants, what is here, and the command that builds it
            again.
    """
    record = require_record(artifact, sidecar)
    problem = (
        _system_problem(record)
        or _flavour_problem(record, trt)
        or _version_problem(record, str(trt.__version__))
        or _capability_problem(record, compute_capability)
        or _profile_problem(record, sidecar)
    )
    _raise_first(artifact, record, problem)


def runs_on_version(built: str, here: str, version_compatible: bool) -> bool:
    """Does a plan of TensorRT ``built`` load in version ``here``?

    A plan is for the very version that built it. One that was built version-compatible is for later ones too, also for
    11 if 10 built it (NVIDIA, TensorRT 11.4 support matrix).
    """
    return here == built or (version_compatible and _numbers(here) >= _numbers(built))


def runs_on_capability(wanted: str, here: str) -> bool:
    """Is a GPU of compute capability ``here`` one that a plan for ``8.7`` or for ``8.0+`` is for?"""
    least = wanted.removesuffix("+")
    if wanted == least:
        return _numbers(here) == _numbers(least)
    return _numbers(here) >= _numbers(least)


def _raise_first(artifact: Path, record: EngineRecord, problem: str) -> None:
    if problem:
        raise ArtifactError(f"{artifact} {problem}; {rebuild_hint(artifact, record)}")


def _flavour_problem(record: EngineRecord, trt: Any) -> str:
    built, here = record.flavour, flavour_of(trt)
    if built == here:
        return ""
    name, here_name = FLAVOUR_NAMES[built], FLAVOUR_NAMES[here]
    return (
        f"was built by {name} {record.version}, and {here_name} {trt.__version__} is here; neither loads plans of the "
        "other"
    )


def _version_problem(record: EngineRecord, here: str) -> str:
    if runs_on_version(record.version, here, record.version_compatible):
        return ""
    reach = "that version and later ones" if record.version_compatible else "that version alone"
    name = FLAVOUR_NAMES[record.flavour]
    return f"was built by {name} {record.version} and runs on {reach}, and {name} {here} is here"


def _capability_problem(record: EngineRecord, here: str) -> str:
    wanted = record.compute_capability
    if runs_on_capability(wanted, here):
        return ""
    words = f"{wanted[:-1]} and later" if wanted.endswith("+") else wanted
    tuned_on = f" (it was built on {record.device_name})" if record.device_name else ""
    return f"is for GPUs of compute capability {words}{tuned_on}, and this GPU has {here}"


def _system_problem(record: EngineRecord) -> str:
    system, machine = _system_here(), _machine_here()
    if record.system.lower() in (ANY, system) and _machine_name(record.machine) == machine:
        return ""
    wanted = "linux or windows" if record.system == ANY else record.system
    return (
        f"is for {wanted} on {record.machine}, and this machine is {system} on {machine}; a plan does not move from "
        "one to the other"
    )


def _profile_problem(record: EngineRecord, sidecar: Sidecar) -> str:
    """What is wrong with the shapes that an engine was built for."""
    batch = sidecar.max_batch
    # Of each input: smallest and largest sizes of the axes that are open, then the axes that are not.
    wanted: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    if sidecar.form == "frame":
        wanted = {"frame": (SMALLEST_FRAME_HW, LARGEST_FRAME_HW, (3,)), "boxes": ((1,), (batch,), (4,))}
    else:
        wanted = {"images": ((1,), (batch,), (*sidecar.input_size_hw, 3))}
    if set(record.profile) != set(wanted):
        return (
            f"has a profile for {_list(record.profile)}, and the {sidecar.form} form that its sidecar names takes "
            f"{_list(wanted)}"
        )
    for name, (smallest, largest, fixed) in wanted.items():
        if not _covers(record.profile[name], smallest, largest, fixed):
            low, high = (*smallest, *fixed), (*largest, *fixed)
            shapes = ", ".join(map(str, record.profile[name]))
            return f"has the profile {shapes} for {name}, and its sidecar promises every shape from {low} to {high}"
    return ""


def _covers(
    shapes: Sequence[Sequence[int]], smallest: Sequence[int], largest: Sequence[int], fixed: Sequence[int]
) -> bool:
    count = len(smallest)
    if any(len(shape) != count + len(fixed) or tuple(shape[count:]) != tuple(fixed) for shape in shapes):
        return False
    opened = zip(smallest, largest, *(shape[:count] for shape in shapes), strict=True)
    return all(first <= least and first <= usual <= last and most <= last for least, most, first, usual, last in opened)


def _list(names: Mapping[str, object]) -> str:
    return " and ".join(names) or "no input"


def _numbers(version: str) -> tuple[int, ...]:
    """``10.3.0`` as numbers that can be compared; zeros at its end mean nothing, as in 10.3 and 10.3.0."""
    numbers = [int(digits) for digits in re.findall(r"[0-9]+", version)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _system_here() -> str:
    return platform.system().lower()


def _machine_here() -> str:
    return _machine_name(platform.machine())


def _machine_name(machine: str) -> str:
    return _MACHINES.get(machine.lower(), machine.lower())
