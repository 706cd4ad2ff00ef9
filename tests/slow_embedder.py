"""Embedders around a real one that wait, fail or watch, so that a test decides when a batch is through."""

from __future__ import annotations

import threading

import numpy as np

from hamr_edge import Embedder

POISON = 255


class HeldEmbedder(Embedder):
    """A real embedder whose batches wait until they are let go, and are noted.

    A crop that is white all over makes its batch fail.
    """

    def __init__(self, model: object) -> None:
        super().__init__(model)
        self.batches: list[int] = []
        self.running = threading.Event()
        self._may_run = threading.Event()
        self._may_run.set()

    def hold(self) -> None:
        """Let batches wait from now on."""
        self._may_run.clear()
        self.running.clear()

    def let_go(self) -> None:
        """Let the batch that waits run, and all after it."""
        self._may_run.set()

    def embed_batch(self, batch: np.ndarray) -> np.ndarray:
        self.running.set()
        assert self._may_run.wait(30)
        self.batches.append(len(batch))
        if (batch == POISON).all(axis=(1, 2, 3)).any():
            raise RuntimeError("a poisoned crop")
        return super().embed_batch(batch)
