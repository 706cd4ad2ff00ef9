"""The machine's state, to be taken before and after a measurement, and what changed in between."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hamr_edge.cpu_state import ROOT, cpu_quota, cpu_state, in_virtual_machine, read_number, read_text
from hamr_edge.jetson_state import jetson_state
from hamr_edge.machine import usable_cores
from hamr_edge.nvidia_smi import gpu_states

_WARMER_C = 15.0
"""A rise of temperature worth telling."""
_SLOWER = 0.9
"""A clock below this share of what it was has fallen."""


def machine_state(root: Path = ROOT) -> dict[str, Any]:
    """Clocks, temperatures, power and load now; all that can be read without rights, for a report.

    Args:
        root: The folder that holds ``sys``, ``proc`` and ``etc``; another than ``/`` in tests.

    Returns:
        ``cores``: those this process may run on, by affinity and by a container's time limit, ``quota``;
        ``virtual_machine``; ``cpu``: :func:`~hamr_edge.cpu_state.cpu_state`; ``temperatures_c`` by thermal zone;
        ``gpus``: of nvidia-smi; ``jetson``: :func:`~hamr_edge.jetson_state.jetson_state`.
    """
    quota = cpu_quota(root)
    cores = usable_cores()
    return {
        "cores": cores if quota is None else min(float(cores), round(quota, 2)),
        "quota": quota,
        "virtual_machine": in_virtual_machine(root),
        "cpu": cpu_state(root),
        "temperatures_c": _temperatures(root),
        "gpus": [asdict(gpu) for gpu in gpu_states()],
        "jetson": jetson_state(root),
    }


def _temperatures(root: Path) -> dict[str, float]:
    """By the zone's type, such as ``cpu-thermal``; zones that are off give no number."""
    temperatures: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = read_number(zone / "temp")
        if value is not None and -40_000 < value < 200_000:
            name = read_text(zone / "type") or zone.name
            temperatures[name if name not in temperatures else zone.name] = value / 1000
    return temperatures


def state_changes(before: dict[str, Any], after: dict[str, Any], cpu_timed: bool = True) -> list[str]:
    """Sentences on what makes times taken between two states doubtful; none is well.

    Args:
        before: :func:`machine_state` before the measurement.
        after: The same after it.
        cpu_timed: Something ran on the CPU's cores between the two, so that a load of as many is its own.
    """
    sentences = [*_load_sentences(before, after, cpu_timed), *_jetson_sentences(before["jetson"], after["jetson"])]
    sentences += _fallen("the CPU's clock", before["cpu"]["clock_mhz"], after["cpu"]["clock_mhz"])
    for number, (old, new) in enumerate(zip(before["gpus"], after["gpus"], strict=False)):
        who = f"GPU {number}, {new['name']},"
        if new["throttled_by"]:
            sentences.append(
                f"{who} is held down by its {' and '.join(new['throttled_by'])} at {_shown(new['clock_mhz'], 'MHz')} "
                f"of {_shown(new['max_clock_mhz'], 'MHz')}; times are those of a throttled GPU: cool it, raise the "
                "power limit, or lock a clock that it can keep ('nvidia-smi -lgc')"
            )
        sentences += _warmer(who.rstrip(","), old["temperature_c"], new["temperature_c"])
    for zone, new_c in after["temperatures_c"].items():
        sentences += _warmer(zone, before["temperatures_c"].get(zone), new_c)
    return sentences


def _load_sentences(before: dict[str, Any], after: dict[str, Any], cpu_timed: bool) -> list[str]:
    cores, idle, busy = before["cores"], before["cpu"]["load_average"], after["cpu"]["load_average"]
    if idle is not None and idle > 0.5 * cores:
        return [
            f"the machine was busy before it began: load {idle:.1f} on {cores:g} cores; times are those of a shared "
            "machine, so stop other programs"
        ]
    if busy is not None and busy > (1.5 if cpu_timed else 1.0) * cores:
        return [
            f"other programs ran meanwhile: the load rose from {_shown(idle, '')} to {busy:.1f} on {cores:g} cores; "
            "stop them and measure again"
        ]
    return []


def _jetson_sentences(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[str]:
    if before is None or after is None:
        return []
    if before["power_mode"] != after["power_mode"]:
        return [f"the power mode changed from {before['power_mode']} to {after['power_mode']} while it ran"]
    # An idle GPU that is not pinned drops its clock by itself: only a pinned one can fall.
    if before["gpu_pinned"]:
        return _fallen("the GPU's pinned clock", before["gpu_clock_mhz"], after["gpu_clock_mhz"])
    if before["gpu_pinned"] is False:
        return ["the GPU's clock is not pinned, and rises and falls with its load; pin it with 'sudo jetson_clocks'"]
    return []


def _fallen(what: str, before: float | None, after: float | None) -> list[str]:
    if before is None or after is None or after >= _SLOWER * before:
        return []
    return [f"{what} fell from {before:.0f} to {after:.0f} MHz while it ran; it may be too hot, or saving power"]


def _warmer(what: str, before: float | None, after: float | None) -> list[str]:
    if before is None or after is None or after - before < _WARMER_C:
        return []
    return [
        f"{what} warmed from {before:.0f} to {after:.0f} degrees C while it ran; a machine that is warm already gives "
        "times that repeat: run once more"
    ]


def _shown(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}".strip()
