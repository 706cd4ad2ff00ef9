"""Where and when a benchmark ran: without this, its times say nothing."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any

from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.machine import describe_machine, library_versions
from hamr_edge.machine_state import machine_state


def describe_environment(config: BenchConfig, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Machine, libraries, threads, load and date (ISO 8601, UTC), and the machine's state.

    Args:
        config: The comparison's.
        state: :func:`~hamr_edge.machine_state.machine_state` before the measurement; now when None.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **describe_machine(),
        "threads": config.threads,
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "state": machine_state() if state is None else state,
        "libraries": library_versions(),
    }
