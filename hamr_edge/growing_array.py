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

    def adopt(self, rows: NDArray[Any]) -> None:
        """Take over an array as the rows, in place of none; the giver lets go of it."""
        self._room = np.require(rows, self._room.dtype, ["C_CONTIGUOUS", "WRITEABLE"])
        self._count = len(rows)

    def remove(self, places: NDArray[np.int64], left: int) -> None:
        """Remove rows. Others come from the end into their places: it costs what is removed, not what is left.

        Once more after an interrupted call brings it to its end; after a whole one it does nothing.

        Args:
            places: (M,) ascending, none of them twice.
            left: How many rows there are afterwards.
        """
        if self._count > left:
            gaps = places[places < left]
            is_free = np.zeros(len(places), np.bool_)
            is_free[places[len(gaps) :] - left] = True
            moved = left + np.flatnonzero(~is_free)
            step = max(1, _BLOCK_BYTES // max(1, self._room[:1].nbytes))
            for start in range(0, len(gaps), step):
                block = self._room[moved[start : start + step]]
                self._room[gaps[start : start + step]] = block
                block.fill(0)
        self._count = left
        self._room[left : left + len(places)] = 0

    def truncate(self, count: int) -> None:
        """Remove the rows after the first ``count``, where there are more."""
        self._room[count : self._count] = 0
        self._count = min(count, self._count)
