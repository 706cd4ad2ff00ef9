"""How fast and how well each index searches a large gallery: ``python -m hamr_edge.benchmarks.gallery_search``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from hamr_edge.backend import open_backend
from hamr_edge.cli import run_and_exit
from hamr_edge.dataset import open_dataset
from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import InputError
from hamr_edge.evaluation import embed_files
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_index import INDEX_KINDS
from hamr_edge.progress import stderr_console, stdout_console

_PEOPLE_AT_ONCE = 2000
_LEAST_VIEWS = 4
_REPEATS = 50
_SPACE = ("drawn" + "0" * 59, "drawn" + "0" * 59)


@dataclass(frozen=True, slots=True)
class Population:
    """Where people's embeddings lie, and how far one's views from each other: two normal distributions."""

    mean: NDArray[np.float32]
    between: NDArray[np.float32]
    """(P, D): a person's centre is the mean plus standard normal numbers times these."""
    within: NDArray[np.float32]
    """(W, D): a view is the centre plus standard normal numbers times these; then it is made a unit row."""

    def draw_people(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(count, D) centres."""
        drawn = rng.standard_normal((count, len(self.between)), dtype=np.float32)
        return self.mean + drawn @ self.between

    def draw_views(self, centres: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """One view of each centre, rows of unit norm."""
        drawn = rng.standard_normal((len(centres), len(self.within)), dtype=np.float32)
        views = centres + drawn @ self.within
        views /= np.linalg.norm(views, axis=1, keepdims=True)
        return views


def fit_population(embeddings: NDArray[np.float32], identities: NDArray[np.int64]) -> Population:
    """Fit both distributions to people that the model was not trained on.

    The centres of P people span P - 1 directions, and so will those of any number of people drawn: more crowded than
    so many people would be, so harder to search.

    Raises:
        InputError: Fewer than 2 people have at least 4 views.
    """
    people = [
        embeddings[identities == identity]
        for identity in np.unique(identities[identities > 0]).tolist()
        if np.count_nonzero(identities == identity) >= _LEAST_VIEWS
    ]
    if len(people) < 2:
        raise InputError(f"the data set's gallery must show at least 2 people {_LEAST_VIEWS} times, got {len(people)}")
    centres = np.array([views.mean(axis=0) for views in people])
    spread = np.concatenate([views - views.mean(axis=0) for views in people])
    freedom = sum(len(views) - 1 for views in people)
    # A square root of each covariance; of D rows where there were more.
    within = np.linalg.qr(spread / np.sqrt(freedom))[1]
    mean = centres.mean(axis=0)
    between = (centres - mean) / np.sqrt(len(people) - 1)
    return Population(mean, between.astype(np.float32), within.astype(np.float32))


def uniform_population(dim: int) -> Population:
    """Every direction as likely, a person's views no nearer than others': nothing for an index to go by."""
    return Population(np.zeros(dim, np.float32), np.zeros((1, dim), np.float32), np.eye(dim, dtype=np.float32))


def _time_ms(call: Callable[[int], object], repeats: int) -> list[float]:
    times = []
    for turn in range(repeats):
        start = time.perf_counter()
        call(turn)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _memory_gb() -> float:
    """Resident now, of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 2**20


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Artifact whose embeddings are imitated.")
@click.option("--data", type=click.Path(path_type=Path), help="Data set that it embeds for that.")
@click.option("--dim", type=click.IntRange(2), default=512, show_default=True, help="Without --model: uniform rows.")
@click.option("--people", type=click.IntRange(1), default=50_000, show_default=True)
@click.option("--views", type=click.IntRange(1), default=20, show_default=True, help="Embeddings a person.")
@click.option("--queries", type=click.IntRange(8), default=1000, show_default=True)
@click.option("--index", "kinds", default=",".join(INDEX_KINDS), show_default=True, help="By commas.")
@click.option("--seed", type=int, default=0, show_default=True)
def gallery_search(
    model: Path | None, data: Path | None, dim: int, people: int, views: int, queries: int, kinds: str, seed: int
) -> None:
    """Draw people's embeddings like a model's own, and search them by each index. Linux alone: it reads /proc."""
    if (model is None) != (data is None):
        raise click.UsageError("--model and --data go together")
    population = uniform_population(dim)
    if model is not None and data is not None:
        crops = open_dataset(data).gallery
        with open_backend(model) as backend:
            population = fit_population(embed_files(backend, crops.paths, quiet=False), crops.identities)
    say = stderr_console().print
    rng = np.random.default_rng(seed)
    centres = population.draw_people(people, rng)
    rows = np.concatenate(
        [
            population.draw_views(np.repeat(centres[start : start + _PEOPLE_AT_ONCE], views, axis=0), rng)
            for start in range(0, people, _PEOPLE_AT_ONCE)
        ]
    )
    chosen = rng.integers(0, people, queries)
    asked = population.draw_views(centres[chosen], rng)
    probe = np.ones(rows.shape[1], np.float32)
    read_ms = min(_time_ms(lambda _: rows @ probe, 5))
    say(f"{len(rows)} x {rows.shape[1]}: read once in {read_ms:.0f} ms, {rows.nbytes / 1e6 / read_ms:.1f} GB/s")
    table = Table(
        "index", "enrol s", "build s", "GB", "ms, 1 query", "95 %", "ms a query of 8", "recall@1", "same person"
    )
    nearest: NDArray[np.int64] | None = None
    for kind in ["exact", *(kind for kind in kinds.split(",") if kind != "exact")]:
        figures, found = _measure(kind, rows, views, asked)
        nearest = found if nearest is None else nearest
        table.add_row(kind, *figures, f"{np.mean(found == nearest):.4f}", f"{np.mean(found // views == chosen):.4f}")
        say(f"{kind}: done")
    stdout_console().print(table)


def _measure(
    kind: str, rows: NDArray[np.float32], views: int, asked: NDArray[np.float32]
) -> tuple[list[str], NDArray[np.int64]]:
    """The figures of one index, and the nearest row of each query."""
    people, dim, queries = len(rows) // views, rows.shape[1], len(asked)
    start_gb = _memory_gb()
    gallery = Gallery(EmbeddingSpace(*_SPACE, dim, (1, 1), "fp32", 1.0), kind)  # type: ignore[arg-type]
    enrol_ms = _time_ms(lambda turn: gallery.enrol(f"{turn}", rows[turn * views : (turn + 1) * views]), people)
    build_ms = _time_ms(lambda _: gallery.build_index(), 1)
    used_gb = _memory_gb() - start_gb
    found = np.concatenate([gallery.search(asked[at : at + 8]).ids[:, 0] for at in range(0, queries, 8)])
    singles = _time_ms(lambda turn: gallery.search(asked[turn % queries][None]), _REPEATS)
    eights = _time_ms(lambda turn: gallery.search(asked[8 * turn % (queries - 7) :][:8]), _REPEATS)
    figures = [
        f"{sum(enrol_ms) / 1e3:.0f}",
        f"{build_ms[0] / 1e3:.0f}",
        f"{used_gb:.2f}",
        f"{np.median(singles):.2f}",
        f"{np.quantile(singles, 0.95):.2f}",
        f"{np.median(eights) / 8:.2f}",
    ]
    return figures, found


if __name__ == "__main__":
    run_and_exit(gallery_search, "python -m hamr_edge.benchmarks.gallery_search")
