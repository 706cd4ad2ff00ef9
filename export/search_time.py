"""Time of an exact search over a gallery, by the width of the embedding: run as a program, in one thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_NEIGHBOURS = 10


def measure_search_ms(dims: Sequence[int], vectors: int, rounds: int, seed: int = 0) -> dict[int, float]:
    """Median time of one query's exact search, dot products with every row and its 10 best, in a process of its own.

    numpy's libraries read their number of threads when they are loaded, so the one thread needs a new process. In each
    round every width has one turn, in random order: two searches, of which the second is timed.

    Args:
        dims: Values of an embedding.
        vectors: Rows of the gallery, at least 10; what they hold does not change the time.
        rounds: Turns of each width.
        seed: Gives rows and order.

    Returns:
        Milliseconds by width.
    """
    numbers = [str(number) for number in (vectors, rounds, seed, *dims)]
    result = subprocess.run(
        [sys.executable, "-m", "hamr_edge.export.search_time", *numbers],
        env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(dims, json.loads(result.stdout), strict=True))


def main(vectors: int, rounds: int, seed: int, *dims: int) -> list[float]:
    """What the process does: the median milliseconds of each of ``dims``."""
    rng = np.random.default_rng(seed)
    values = rng.random(vectors * max(dims), dtype=np.float32)  # every width's gallery, one at a time
    galleries = [values[: vectors * dim].reshape(vectors, dim) for dim in dims]
    times_s = np.empty((rounds, len(dims)))
    for turn in times_s:
        for place in rng.permutation(len(dims)).tolist():
            query = rng.random(dims[place], dtype=np.float32)
            _search(galleries[place], query)
            start = time.perf_counter()
            _search(galleries[place], query)
            turn[place] = time.perf_counter() - start
    medians: list[float] = (1000 * np.median(times_s, axis=0)).tolist()
    return medians


def _search(gallery: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.int64]:
    similarity = gallery @ query
    best = np.argpartition(-similarity, _NEIGHBOURS - 1)[:_NEIGHBOURS]
    return best[np.argsort(-similarity[best])]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*map(int, sys.argv[1:]))))
