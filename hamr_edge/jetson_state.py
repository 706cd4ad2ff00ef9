"""What a Jetson tells of itself: model, release, power mode, and the clocks of its GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hamr_edge.cpu_state import ROOT, read_number, read_text

_GPU_NAMES = ("gpu", "ga10b", "gv11b", "gp10b", "gm20b")
"""How the device tree calls Jetsons' GPUs."""


def jetson_state(root: Path = ROOT) -> dict[str, Any] | None:
    """Model and modes of a Jetson; None on another machine.

    Args:
        root: The folder that holds ``etc``, ``proc`` and ``sys``.

    Returns:
        ``model``; ``release``: first line of ``/etc/nv_tegra_release``; ``power_mode``: such as ``MAXN``, of
        ``nvpmodel -q``; ``gpu_clock_mhz``, ``gpu_max_clock_mhz``; ``gpu_pinned``: lowest and highest clock are set
        alike, as ``jetson_clocks`` does. None is what cannot be read.
    """
    release = read_text(root / "etc/nv_tegra_release")
    model = read_text(root / "proc/device-tree/model")
    if release is None and "jetson" not in (model or "").lower():
        return None
    gpu = _gpu_folder(root)
    clock, lowest, highest = (
        None if gpu is None else read_number(gpu / name) for name in ("cur_freq", "min_freq", "max_freq")
    )
    return {
        "model": model,
        "release": release.splitlines()[0] if release else None,
        "power_mode": _power_mode(),
        "gpu_clock_mhz": None if clock is None else round(clock / 1e6),
        "gpu_max_clock_mhz": None if highest is None else round(highest / 1e6),
        "gpu_pinned": None if lowest is None or highest is None else lowest == highest,
    }


def _gpu_folder(root: Path) -> Path | None:
    """``/sys/class/devfreq/17000000.gpu`` on Orin with JetPack 6, ``17000000.ga10b`` with 5."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        name = read_text(folder / "device/of_node/name") or folder.name.rpartition(".")[2]
        if name in _GPU_NAMES:
            return folder
    return None


def _power_mode() -> str | None:
    """``NV Power Mode: MAXN`` and a line with its number is the answer."""
    program = shutil.which("nvpmodel", path="/usr/sbin") or shutil.which("nvpmodel")
    if program is None:
        return None
    try:
        said = subprocess.run([program, "-q"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    match = re.search(r"NV Power Mode:\s*(\S.*)", said)
    return match[1].strip() if match else None
