"""Numbers for people who look alike: a small set of prototypes that learns. For pictures, not for tracking."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import InputError

DEFAULT_IDENTITY_THRESHOLD = 0.65
_LONGEST_MEMORY = 50


class Identities:
    """Gives each embedding the number of its nearest prototype, or a new one.

    A prototype is the unit mean of the embeddings that it was given, the later ones weighing more after the first
    ``50``. It knows nothing of boxes or time.

    Args:
        embedding_dim: Values of one embedding.
        threshold: Least cosine with a prototype to take its number, -1..1.
        capacity: Prototypes that are kept; beyond it the one not seen for longest is forgotten.

    Raises:
        InputError: ``threshold`` or ``capacity`` makes no sense.
    """

    def __init__(self, embedding_dim: int, threshold: float = DEFAULT_IDENTITY_THRESHOLD, capacity: int = 512) -> None:
        if not -1 <= threshold <= 1:
            raise InputError(f"identity threshold is a cosine in -1..1, got {threshold:g}")
        if capacity < 1:
            raise InputError(f"capacity must be at least 1, got {capacity}")
        self._threshold, self._capacity = threshold, capacity
        self._prototypes = np.empty((0, embedding_dim), np.float32)
        self._numbers = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        self._last_seen = np.empty(0, np.int64)
        self._frame = 0
        self.known = 0
        """How many numbers were given so far."""

    def assign(self, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
        """Number the people of one frame; no two get the same number.

        Args:
            embeddings: (N, D) float32, rows of unit L2 norm.

        Returns:
            (N,) int64 numbers, from 1 in order of appearance.
        """
        self._frame += 1
        numbers = np.zeros(len(embeddings), np.int64)
        # No BLAS here (np.linalg.norm calls it too): its threads wait in a loop after their work and, on two cores,
        # double the time of the next inference.
        similarity = np.einsum("nd,kd->nk", embeddings, self._prototypes)
        rows, slots = np.nonzero(similarity >= self._threshold)
        best_first = np.argsort(-similarity[rows, slots], kind="stable")
        taken = np.zeros(len(self._prototypes), np.bool_)
        for row, slot in zip(rows[best_first].tolist(), slots[best_first].tolist(), strict=True):
            if not numbers[row] and not taken[slot]:
                numbers[row], taken[slot] = self._numbers[slot], True
                self._learn(slot, embeddings[row])
        for row in np.flatnonzero(numbers == 0).tolist():
            numbers[row] = self._add(embeddings[row])
        self._forget()
        return numbers

    def _learn(self, slot: int, embedding: NDArray[np.float32]) -> None:
        mean = self._prototypes[slot] * self._counts[slot] + embedding
        self._prototypes[slot] = mean / max(float(np.sqrt(np.square(mean).sum())), 1e-12)
        self._counts[slot] = min(int(self._counts[slot]) + 1, _LONGEST_MEMORY)
        self._last_seen[slot] = self._frame

    def _add(self, embedding: NDArray[np.float32]) -> int:
        self.known += 1
        self._prototypes = np.concatenate([self._prototypes, embedding[None]])
        self._numbers = np.append(self._numbers, self.known)
        self._counts = np.append(self._counts, 1)
        self._last_seen = np.append(self._last_seen, self._frame)
        return self.known

    def _forget(self) -> None:
        if len(self._prototypes) > self._capacity:
            kept = np.sort(np.argsort(-self._last_seen, kind="stable")[: self._capacity])
            self._prototypes, self._numbers = self._prototypes[kept], self._numbers[kept]
            self._counts, self._last_seen = self._counts[kept], self._last_seen[kept]
