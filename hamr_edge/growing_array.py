"""An array whose rows come and go: room grows in steps, and what is let go of is overwritten."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_LEAST_ROOM = 64
_GROWTH = 1.25
_BLOCK_BYTES = 16 << 20


class GrowingArray:
    """Rows of one shape. Memory that held a removed row is set to zero, and so is memory that is given back.

    Args:
        row_shape: Shape of a row; ``()`` for numbers.
        dtype: Of the values.
    """

    def __init__(self, row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._room: NDArray[Any] = np.zeros((0, *row_shape), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """All rows: a view, good until the next change."""
        return self._room[: self._count]

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows at the end."""
        needed = self._count + len(rows)
        if needed > len(self._room):
            room = np.zeros(
                (max(needed, _LEAST_ROOM, int(_GROWTH * self._count)), *self._room.shape[1:]), self._room.dtype
            )
            room[: self._count] = self.rows
            old, self._room = self._room, room
            old.fill(0)
        self._room[self._count : needed] = rows
        self._count = needed

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Remove the rows that are not marked; the others move up, in their order.

        Args:
            kept: (N,) bool, one a row.
        """
        step = max(1, _BLOCK_BYTES // max(1, self._room[:1].nbytes))
        place = int(np.argmin(kept)) if len(kept) and not kept.all() else self._count  # rows before it stay
        for start in range(place, self._count, step):
            block = self._room[start : min(start + step, self._count)][kept[start : start + step]]
            self._room[place : place + len(block)] = block
            place += len(block)
        self._room[place : self._count] = 0
        self._count = place
