"""This machine's rate of float32 matrix products, with numpy's BLAS and with torch's: the bound of a ranking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from hamr_edge.errors import HamrEdgeError

_ROWS, _COLUMNS = 1024, 4096
_REPEATS = 5
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def product_rates(depth: int, threads: int) -> dict[str, float]:
    """GFLOP/s of a (1024, depth) by (depth, 4096) float32 product: the best of five, in a fresh process.

    Args:
        depth: Length of the sums.
        threads: CPU threads.

    Returns:
        ``numpy`` and ``torch``.

    Raises:
        HamrEdgeError: The process failed.
    """
    # A BLAS reads its number of threads when it is loaded.
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    command = [sys.executable, "-m", "hamr_edge.benchmarks.product_rate", str(depth)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if run.returncode:
        raise HamrEdgeError(f"{' '.join(command)} failed: {run.stderr.strip()[-2000:]}")
    rates: dict[str, float] = json.loads(run.stdout)
    return rates


def _measure(depth: int) -> dict[str, float]:
    import torch

    rng = np.random.default_rng(0)
    rows, columns = (rng.standard_normal((count, depth), dtype=np.float32) for count in (_ROWS, _COLUMNS))
    product = np.empty((_ROWS, _COLUMNS), np.float32)
    tensors = [torch.from_numpy(array) for array in (rows, columns, product)]
    multiply: dict[str, Callable[[], object]] = {
        "numpy": lambda: np.matmul(rows, columns.T, out=product),
        "torch": lambda: torch.mm(tensors[0], tensors[1].T, out=tensors[2]),
    }
    best_s = dict.fromkeys(multiply, float("inf"))
    for _ in range(_REPEATS):
        for library, run in multiply.items():
            start = time.perf_counter()
            run()
            best_s[library] = min(best_s[library], time.perf_counter() - start)
    return {library: 2 * _ROWS * _COLUMNS * depth / seconds / 1e9 for library, seconds in best_s.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(int(sys.argv[1]))))
