"""Load a model in a fresh process and time the way to its first embedding; ``benchmarks.cold_start`` starts it.

It lies in the runtime, so that importing it costs what the runtime costs and nothing more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from hamr_edge.backend import Backend, open_backend
from hamr_edge.errors import HamrEdgeError
from hamr_edge.nvidia_smi import memory_used_mb

_LIBRARIES = {".onnx": ("onnxruntime",), ".engine": ("pycuda.driver",)}
_OF_CHECKPOINTS = ("torch", "safetensors")


def _open(model: Path, device: str, threads: int | None, options: dict[str, str]) -> Backend:
    """The one place where further options reach the model."""
    return open_backend(model, device, threads, **options)


def time_first_embedding(
    start: float, model: Path, device: str, threads: int | None, options: dict[str, str]
) -> dict[str, object]:
    """Time this process up to its first embedding.

    Args:
        start: ``time.perf_counter()`` before hamr_edge was imported.
        model: Checkpoint folder, ``.onnx`` or ``.engine``.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        threads: CPU threads; the library's default when None.
        options: Further arguments of ``open_backend``.

    Returns:
        ``import_ms``, ``load_ms``, ``first_embedding_ms``, ``peak_memory_mb``, ``gpu_used_mb`` (the whole GPU's; None
        on the CPU), ``device``.

    Raises:
        HamrEdgeError: The model does not load or run.
    """
    for library in _OF_CHECKPOINTS if model.is_dir() else _LIBRARIES.get(model.suffix, ()):
        try:
            import_module(library)
        except ImportError:  # the backend says it better
            break
    imported = time.perf_counter()
    with _open(model, device, threads, options) as backend:
        loaded = time.perf_counter()
        height, width = backend.sidecar.input_size_hw
        backend.infer(np.full((1, height, width, 3), 127, np.uint8))
        embedded = time.perf_counter()
        on_gpu = backend.device != "cpu"
        return {
            "import_ms": 1000 * (imported - start),
            "load_ms": 1000 * (loaded - imported),
            "first_embedding_ms": 1000 * (embedded - loaded),
            "peak_memory_mb": peak_memory_mb(),
            "gpu_used_mb": memory_used_mb(backend.device) if on_gpu else None,
            "device": backend.device,
        }


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in 1e6 bytes."""
    try:
        # Of this program alone: getrusage also counts what the process was before it became this program.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError):
        pass
    if sys.platform == "win32":
        return _windows_peak() / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes on macOS, KiB elsewhere


def _windows_peak() -> int:
    """PeakWorkingSetSize of PROCESS_MEMORY_COUNTERS, in bytes."""
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint32),
            ("faults", ctypes.c_uint32),
            ("peak", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 7),
        )

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    return int(counters.peak)


def main(start: float, arguments: Sequence[str]) -> None:
    """Print one JSON line and exit; an error's exit code is kept."""
    parser = argparse.ArgumentParser(prog="first_embedding")
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args(arguments)
    options = dict(option.split("=", 1) for option in asked.option)
    try:
        found = time_first_embedding(start, asked.model, asked.device, asked.threads, options)
    except HamrEdgeError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(f"{json.dumps(found)}\n")
