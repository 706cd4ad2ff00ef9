"""What a process pays before the first embedding, and the memory it takes, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.nvidia_smi import memory_used_mb

_START = (
    "import sys, time; start = time.perf_counter(); "
    "from hamr_edge.first_embedding import main; main(start, sys.argv[1:])"
)
"""The clock starts before the first import of ours."""
_LONGEST_S = 900.0
_ERRORS: dict[int, type[HamrEdgeError]] = {2: InputError, 4: UnavailableError}


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Medians over fresh processes; the file is in the system's cache."""

    import_ms: float | None
    """Importing hamr_edge and the libraries that the model needs; None of a peer, which counts it with loading."""
    load_ms: float
    """Opening the model."""
    first_embedding_ms: float
    """The first inference, one crop."""
    to_first_embedding_ms: float
    """All three, without the interpreter's own start."""
    peak_memory_mb: float
    """Largest resident size of the process, 1e6 bytes."""
    gpu_memory_mb: float | None
    """GPU memory in use with the model open and run, less what was in use before; None without a GPU."""
    processes: int


def measure_cold_start(
    model: Path, device: str, threads: int | None, processes: int = 3, extra: Sequence[tuple[str, str]] = ()
) -> ColdStart:
    """Load a model in fresh processes, one after the other.

    One more process runs first and does not count: it brings the files into the system's cache.

    Args:
        model: Checkpoint folder, ``.onnx`` or ``.engine``.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        threads: CPU threads of one inference; the library's default when None.
        processes: How many count.
        extra: Names and values of further arguments of ``open_backend``.

    Raises:
        InputError: ``processes`` is below 1, or the model cannot be used.
        UnavailableError: A library or the device is not there.
        HamrEdgeError: A process failed otherwise; the message holds its last words, ``exit_code`` is its own.
    """
    if processes < 1:
        raise InputError(f"a cold start needs 1 process or more, got {processes}")
    arguments = [str(model), "--device", device, *(["--threads", str(threads)] if threads else [])]
    arguments += [word for name, value in extra for word in ("--option", f"{name}={value}")]
    runs = [_run(model, device, arguments) for _ in range(1 + processes)][1:]
    gpu_mb = [run["gpu_mb"] for run in runs if run["gpu_mb"] is not None]

    def middle(*names: str) -> float:
        return float(median(sum(run[name] for name in names) for run in runs))

    return ColdStart(
        import_ms=middle("import_ms"),
        load_ms=middle("load_ms"),
        first_embedding_ms=middle("first_embedding_ms"),
        to_first_embedding_ms=middle("import_ms", "load_ms", "first_embedding_ms"),
        peak_memory_mb=middle("peak_memory_mb"),
        gpu_memory_mb=float(median(gpu_mb)) if gpu_mb else None,
        processes=processes,
    )


def _run(model: Path, device: str, arguments: Sequence[str]) -> dict[str, Any]:
    """One process's findings."""
    before_mb = None if device == "cpu" else memory_used_mb("cuda:0" if device == "auto" else device)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _START, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HamrEdgeError(f"a fresh process did not load and run {model} within {_LONGEST_S:.0f} s") from error
    if ended.returncode:
        raise _failure(model, ended.returncode, ended.stderr)
    try:
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise HamrEdgeError(
            f"a fresh process that loaded {model} gave no result; it said: {_last_words(ended.stdout)}"
        ) from error
    used_mb = found["gpu_used_mb"]
    return {**found, "gpu_mb": None if used_mb is None or before_mb is None else used_mb - before_mb}


def _failure(model: Path, code: int, said: str) -> HamrEdgeError:
    ended = f"exit code {code}" if code > 0 else f"ended by signal {-code}; out of memory, or a library's fault"
    words = f"a fresh process could not load and run {model} ({ended}); it said: {_last_words(said)}"
    error = _ERRORS.get(code, HamrEdgeError)(words)
    error.exit_code = max(code, 1)
    return error


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "nothing"
