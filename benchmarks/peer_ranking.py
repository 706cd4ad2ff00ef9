"""The ranking code of fast-reid and torchreid, loaded from the user's own clones of them; nothing of it is copied here.

Only the few files that rank are run: each package's ``__init__`` is passed over, so their other requirements
(scikit-learn, faiss, yacs, gdown) need not be installed. Their Cython modules are compiled in a folder of the caller's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.evaluation import EmbeddedTest

MAX_RANK = 10


@dataclass(frozen=True, slots=True)
class Peer:
    """One project's ranking code. Scores are ``rank1``, ``rank5``, ``rank10``, ``map`` and, in fast-reid, ``minp``."""

    name: str
    revision: str
    """The clone's commit, or unknown."""
    metrics: tuple[str, ...]
    """Distances it offers, the default first."""
    build_distances: Callable[[NDArray[np.float32], NDArray[np.float32], str], NDArray[np.float32]]
    """(Q, D), (G, D) and a metric to (Q, G)."""
    rank: Callable[[NDArray[np.float32], EmbeddedTest, bool], dict[str, float]]
    """Scores of a (Q, G) distance matrix, in Cython or, with False, in Python."""
    re_rank: Callable[..., NDArray[np.float32]]
    """Re-ranked (Q, G) distances from Euclidean (Q, G), (Q, Q) and (G, G)."""


def load_fastreid(clone: Path, build: Path) -> Peer:
    """Load fast-reid's ranking code.

    Args:
        clone: A clone of JDAI-CV/fast-reid.
        build: An empty folder for its compiled module.

    Raises:
        InputError: The clone lacks a file.
        UnavailableError: torch or Cython is not installed, or its module does not compile.
    """
    folder = _package_folder(clone, "fastreid", "evaluation/rank_cylib/rank_cy.pyx")
    torch = _import_torch()
    _compile(folder / "evaluation/rank_cylib/rank_cy.pyx", build)
    for name in ("fastreid", "fastreid.evaluation", "fastreid.utils"):
        _open_package(name, folder.parent / name.replace(".", "/"))
    _open_package("fastreid.evaluation.rank_cylib", build)
    if importlib.util.find_spec("faiss") is None:
        # Imported beside the distances; only their re-ranking on a GPU calls it.
        stand_in: Any = ModuleType("faiss")
        stand_in.METRIC_L2 = 1
        sys.modules["faiss"] = stand_in
    ranking = _import_peer("fastreid.evaluation.rank")
    distances = _import_peer("fastreid.utils.compute_dist")

    def build_distances(query: NDArray[np.float32], gallery: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
        found: NDArray[np.float32] = distances.build_dist(torch.from_numpy(query), torch.from_numpy(gallery), metric)
        return found

    def rank(matrix: NDArray[np.float32], test: EmbeddedTest, cython: bool) -> dict[str, float]:
        cmc, precisions, penalties = ranking.evaluate_rank(matrix, *test[2:], max_rank=MAX_RANK, use_cython=cython)
        return {**_ranks(cmc), "map": float(np.mean(precisions)), "minp": float(np.mean(penalties))}

    re_rank = _import_peer("fastreid.evaluation.rerank").re_ranking
    return Peer("fast-reid", _revision(clone), ("cosine", "euclidean"), build_distances, rank, re_rank)


def load_torchreid(clone: Path, build: Path) -> Peer:
    """Load torchreid's ranking code.

    Args:
        clone: A clone of KaiyangZhou/deep-person-reid.
        build: An empty folder for its compiled module.

    Raises:
        InputError: The clone lacks a file.
        UnavailableError: torch or Cython is not installed, or its module does not compile.
    """
    folder = _package_folder(clone, "torchreid", "metrics/rank_cylib/rank_cy.pyx")
    torch = _import_torch()
    _compile(folder / "metrics/rank_cylib/rank_cy.pyx", build)
    for name in ("torchreid", "torchreid.metrics", "torchreid.utils"):
        _open_package(name, folder.parent / name.replace(".", "/"))
    _open_package("torchreid.metrics.rank_cylib", build)
    ranking = _import_peer("torchreid.metrics.rank")
    distances = _import_peer("torchreid.metrics.distance")

    def build_distances(query: NDArray[np.float32], gallery: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
        matrix = distances.compute_distance_matrix(torch.from_numpy(query), torch.from_numpy(gallery), metric)
        found: NDArray[np.float32] = matrix.numpy()
        return found

    def rank(matrix: NDArray[np.float32], test: EmbeddedTest, cython: bool) -> dict[str, float]:
        cmc, precision = ranking.evaluate_rank(matrix, *test[2:], max_rank=MAX_RANK, use_cython=cython)
        return {**_ranks(cmc), "map": float(precision)}

    re_rank = _import_peer("torchreid.utils.rerank").re_ranking
    return Peer("torchreid", _revision(clone), ("euclidean", "cosine"), build_distances, rank, re_rank)


def _ranks(cmc: NDArray[np.float32]) -> dict[str, float]:
    return {f"rank{k}": float(cmc[k - 1]) for k in (1, 5, 10)}


def _package_folder(clone: Path, package: str, needed: str) -> Path:
    folder = clone / package
    if not (folder / needed).is_file():
        raise InputError(f"{clone} is no clone of {package}: it has no {package}/{needed}")
    return folder


def _open_package(name: str, folder: Path) -> None:
    """Let modules of a package be imported without its ``__init__``."""
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


def _compile(source: Path, build: Path) -> None:
    if importlib.util.find_spec("Cython") is None:
        raise UnavailableError("the peers' ranking is Cython, which is not installed; pip install cython setuptools")
    shutil.copy(source, build)
    flags = f"-I{np.get_include()} -DNPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION"
    # The optimisation flags are those of this Python's own extensions, as in the peers' setup.py.
    run = subprocess.run(
        [sys.executable, "-m", "Cython.Build.Cythonize", "-i", "-q", str(build / source.name)],
        capture_output=True,
        text=True,
        check=False,
        cwd=build,
        env={**os.environ, "CFLAGS": f"{flags} {os.environ.get('CFLAGS', '')}"},
    )
    if run.returncode:
        raise UnavailableError(f"{source} does not compile: {run.stderr.strip()[-2000:]}")


def _import_peer(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{name} of the clone cannot be imported: {error}") from error


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise UnavailableError("the peers compute distances with torch; pip install 'hamr-edge[train]'") from error
    return torch


def _revision(clone: Path) -> str:
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
