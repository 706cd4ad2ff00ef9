"""Where the time of one inference goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds of one inference. On a CPU nothing travels: both ways are 0.

    As trtexec has them: upload is its H2D, compute its GPU Compute Time, download its D2H; their sum is its Latency.
    """

    upload_ms: float
    compute_ms: float
    download_ms: float


def time_compute(run: Callable[[], object]) -> StageTimes:
    """Time one call whose data does not travel, by the wall clock."""
    start = time.perf_counter()
    run()
    return StageTimes(0.0, (time.perf_counter() - start) * 1000.0, 0.0)


def time_steps(
    upload: Callable[[], object], compute: Callable[[], object], download: Callable[[], object]
) -> StageTimes:
    """Time three steps by the wall clock; each must return only when the device is done with it."""
    marks = [time.perf_counter()]
    for step in (upload, compute, download):
        step()
        marks.append(time.perf_counter())
    first, second, third = ((after - before) * 1000.0 for before, after in pairwise(marks))
    return StageTimes(first, second, third)
