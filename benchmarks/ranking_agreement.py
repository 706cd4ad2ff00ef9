"""Do peers' ranking functions give our scores? On one distance matrix, so that rounding of products has no part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.benchmarks.peer_ranking import Peer
from hamr_edge.evaluation import EmbeddedTest
from hamr_edge.ranking import score_blocks
from hamr_edge.reranking import reranked_blocks

SCORES = ("rank1", "rank5", "rank10", "map", "minp")


@dataclass(frozen=True, slots=True)
class Agreement:
    """One peer's function against ours on one input."""

    data: str
    peer: str
    differences: dict[str, float]
    """Absolute difference of each score that the peer has, shares in 0..1."""


def compare_rankings(data: str, test: EmbeddedTest, peers: Sequence[Peer], python_too: bool) -> Iterator[Agreement]:
    """Score one matrix of negated dot products with every peer's Cython, and Python, ranking."""
    distances = -(test.query @ test.gallery.T)
    ours = asdict(score_blocks([(0, -distances)], *test[2:]))
    for peer in peers:
        for cython in (True, False) if python_too else (True,):
            theirs = peer.rank(distances, test, cython)
            yield Agreement(data, f"{peer.name}, {'Cython' if cython else 'Python'}", score_differences(ours, theirs))


def score_differences(ours: dict[str, Any], theirs: dict[str, float]) -> dict[str, float]:
    """Absolute difference of each score that both have."""
    return {name: abs(ours[name] - theirs[name]) for name in SCORES if name in theirs}


def random_tests(rng: np.random.Generator) -> Iterator[tuple[str, EmbeddedTest]]:
    """Random embeddings of random identities, with three degrees of equal distances.

    The peers sort unstably: where a right match and a wrong one are equally far, their scores depend on the sort. The
    first set has hardly any such pair. In the second the distractors are all one image, so equal distances are many but
    hardly ever a match's. In the third nearly all are shared, and differences show how far an unstable sort strays; a
    stable one would rank equals in gallery order, as ours does.
    """
    labels = [rng.integers(low, 60, count) for low, count in ((1, 300), (0, 2000))]
    cameras = [rng.integers(1, 7, count) for count in (300, 2000)]
    centres = rng.standard_normal((60, 32))
    raw = [rng.standard_normal((len(one), 32)) + centres[one] for one in labels]
    query, gallery = (_unit(rows) for rows in raw)
    yield "random", EmbeddedTest(query, gallery, *labels, *cameras)
    wrong = np.flatnonzero(labels[1] == 0)
    gallery = gallery.copy()
    gallery[wrong] = gallery[wrong[0]]
    yield "random, equal distractors", EmbeddedTest(query, gallery, *labels, *cameras)
    query, gallery = (np.round(rows[:, :4]).astype(np.float32) for rows in raw)
    yield "random, equals everywhere", EmbeddedTest(query, gallery, *labels, *cameras)


def rerank_ours(test: EmbeddedTest) -> NDArray[np.float32]:
    """(Q, G) final distances by our re-ranking."""
    weight = np.float32(0.3)
    return np.concatenate([1 - weight - block for _, block in reranked_blocks(test.query, test.gallery)])


def rerank_theirs(peer: Peer, test: EmbeddedTest) -> NDArray[np.float32]:
    """(Q, G) final distances by a peer's re-ranking, from its own Euclidean distances.

    Their function squares what it is given. Here it is given the root of what torchreid's evaluation hands it, so that
    the squared distance ranks, as in the paper.
    """
    matrices = []
    for first, second in ((test.query, test.gallery), (test.query, test.query), (test.gallery, test.gallery)):
        squares = peer.build_distances(first, second, "euclidean")
        np.maximum(squares, 0, out=squares)
        matrices.append(np.sqrt(squares, out=squares))
    return peer.re_rank(*matrices)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit
