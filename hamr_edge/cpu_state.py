"""The processors of this machine now: clocks, governor, and how much of them this process may use (Linux)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

ROOT = Path("/")


def read_text(path: Path) -> str | None:
    """A small file of the kernel, stripped; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """The first number of a small file; None where there is none."""
    words = (read_text(path) or "").split()
    try:
        return float(words[0]) if words else None
    except ValueError:
        return None


def cpu_state(root: Path = ROOT) -> dict[str, Any]:
    """Clocks, governor and load.

    Args:
        root: The folder that holds ``sys`` and ``proc``.

    Returns:
        ``clock_mhz``: mean over the cores now; ``max_clock_mhz``: the fastest core's limit as set; ``governors``;
        ``pinned``: lowest and highest clock are set alike, as ``jetson_clocks`` does; ``load_average`` of the last
        minute, in programs. None is what cannot be read.
    """
    cores = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    clocks, lowest, highest = (
        [value for core in cores if (value := read_number(core / name)) is not None]
        for name in ("scaling_cur_freq", "scaling_min_freq", "scaling_max_freq")
    )
    if not clocks:
        clocks = [1000 * value for value in _cpuinfo_mhz(root)]
    load = read_number(root / "proc/loadavg")
    return {
        "clock_mhz": round(sum(clocks) / len(clocks) / 1000) if clocks else None,
        "max_clock_mhz": round(max(highest) / 1000) if highest else None,
        "governors": sorted({name for core in cores if (name := read_text(core / "scaling_governor"))}),
        "pinned": lowest == highest if lowest and len(lowest) == len(highest) else None,
        "load_average": load if load is not None else _system_load(root),
    }


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores that the container's time limit is worth; None without a limit. The least along the way up counts.

    Reads control groups of version 2 (``cpu.max``) and 1 (``cpu.cfs_quota_us``).
    """
    limits = [limit for folder in _group_folders(root) if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def in_virtual_machine(root: Path = ROOT) -> bool | None:
    """Whether a hypervisor runs this system, whose other guests take time unseen; None where it is not told (ARM)."""
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith("flags"):
            return "hypervisor" in line.split()
    return True if read_text(root / "sys/hypervisor/type") else None


def _group_folders(root: Path) -> list[Path]:
    """Folders of this process's control groups, each with its parents; within a container, the mount is its own."""
    mount = root / "sys/fs/cgroup"
    folders = [mount, mount / "cpu", mount / "cpu,cpuacct"]
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = mount / controllers if controllers else mount
        path = Path(group.lstrip("/"))
        folders += [base / part for part in (path, *path.parents) if ".." not in part.parts]
    return list(dict.fromkeys(folders))


def _limit(folder: Path) -> float | None:
    words = (read_text(folder / "cpu.max") or "").split()
    if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
        return int(words[0]) / int(words[1])
    quota, period = read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _cpuinfo_mhz(root: Path) -> list[float]:
    lines = (read_text(root / "proc/cpuinfo") or "").splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def _system_load(root: Path) -> float | None:
    return os.getloadavg()[0] if root == ROOT and hasattr(os, "getloadavg") else None
