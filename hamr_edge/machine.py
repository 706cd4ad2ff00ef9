"""What this machine is: facts that doctor and bench report. Imports no library to learn its version."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

LIBRARIES = (
    "hamr-edge",
    "numpy",
    "opencv-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnx",
    "onnxscript",
    "torch",
    "safetensors",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "tensorrt-rtx-cu13-libs",
    "pycuda",
    "cuda-bindings",
    "pyarrow",
)


def cpu_name() -> str:
    """The processor's name, or its architecture where the name cannot be had."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_governor() -> str | None:
    """The frequency governor of the first core; None where it cannot be read."""
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def nvidia_gpus() -> list[str]:
    """Name and driver of each NVIDIA GPU that ``nvidia-smi`` names; none where it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]


def library_versions() -> dict[str, str]:
    """Version of each installed library that hamr-edge can use."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_machine() -> dict[str, object]:
    """CPU, cores, GPUs, operating system and Python, for a report."""
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "governor": cpu_governor(),
        "gpus": nvidia_gpus(),
        "os": platform.platform(),
        "python": platform.python_version(),
    }
