"""NVIDIA's GPUs as ``nvidia-smi`` sees them: clocks, temperature, power, memory, and why a clock is held down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_FIELDS = (
    "name",
    "driver_version",
    "pstate",
    "persistence_mode",
    "clocks.current.sm",
    "clocks.max.sm",
    "clocks.current.memory",
    "temperature.gpu",
    "power.draw",
    "power.limit",
)
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""The newer name and the older one; a driver refuses a field that it does not know."""
_HELD_DOWN = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
"""NVML's nvmlClocksEventReasons (nvml.h); idle, application clocks, sync boost and display clocks are no throttling."""


@dataclass(frozen=True, slots=True)
class GpuState:
    """One GPU now; None is what it does not tell."""

    name: str
    driver: str
    pstate: str | None
    """P0 is the fastest."""
    persistence: bool | None
    clock_mhz: float | None
    """Of the streaming multiprocessors."""
    max_clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    """Mean of the last second on Ampere and later."""
    power_limit_w: float | None
    throttled_by: tuple[str, ...]
    """Such as ``power limit``; empty where nothing holds the clock down, or it is not told."""


def query(fields: Sequence[str], gpu: str | None = None) -> list[list[str | None]]:
    """Ask ``nvidia-smi``.

    Args:
        fields: Names of ``nvidia-smi --help-query-gpu``.
        gpu: Index, UUID or PCI address of one; all when None.

    Returns:
        One list a GPU; None where a GPU has no such value. Empty where the program is missing, fails, or does not know
        a field.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(
            [*command, *(("-i", gpu) if gpu else ())], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return []
    rows = [[_known(value) for value in line.split(",")] for line in found.stdout.splitlines() if line.strip()]
    return rows if all(len(row) == len(fields) for row in rows) else []


def gpu_states() -> list[GpuState]:
    """Every GPU of this machine; none where ``nvidia-smi`` does not work."""
    for reasons in _REASONS:
        rows = query((*_FIELDS, reasons))
        if rows:
            return [_parse(row) for row in rows]
    return [_parse([*row, None]) for row in query(_FIELDS)]


def smi_index(device: str) -> str:
    """The name that ``nvidia-smi -i`` takes for ``cuda:N``: CUDA counts the GPUs that it may see alone."""
    number = int(device.partition(":")[2] or 0)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[number] if number < len(visible) else str(number)


def memory_used_mb(device: str) -> float | None:
    """Memory in use on a GPU, by all programs, in 1e6 bytes; None where it is not told."""
    rows = query(("memory.used",), smi_index(device))
    mebibytes = _number(rows[0][0]) if rows else None
    return None if mebibytes is None else mebibytes * 2**20 / 1e6


def _known(value: str) -> str | None:
    """``[N/A]``, ``[Not Supported]``, ``[Insufficient Permissions]`` and the like stand for nothing."""
    stripped = value.strip()
    return None if not stripped or stripped.startswith("[") or stripped in ("N/A", "Unknown Error") else stripped


def _number(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _parse(row: Sequence[str | None]) -> GpuState:
    name, driver, pstate, persistence, *numbers, reasons = row
    clock, max_clock, memory_clock, temperature, power, limit = (_number(value) for value in numbers)
    try:
        bits = int(reasons, 16) if reasons else 0
    except ValueError:
        bits = 0
    return GpuState(
        name=name or "GPU",
        driver=driver or "",
        pstate=pstate,
        persistence=None if persistence is None else persistence == "Enabled",
        clock_mhz=clock,
        max_clock_mhz=max_clock,
        memory_clock_mhz=memory_clock,
        temperature_c=temperature,
        power_w=power,
        power_limit_w=limit,
        throttled_by=tuple(words for bit, words in _HELD_DOWN.items() if bits & bit),
    )
