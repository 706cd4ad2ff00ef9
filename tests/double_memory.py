"""Memory of a GPU that is not there: host memory at true addresses, and every access is held against what is live."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 256
FRESH, FREED = 0xA5, 0xDE
"""What memory holds before it is written, and after it was given back."""


class MisuseError(AssertionError):
    """What the real library would not catch: it would compute nonsense, crash, leak or wait in silence.

    No error of the doubled libraries, so that code under test cannot handle it; it is kept in ``Machine.faults`` too.
    """


class OutOfMemoryError(Exception):
    """The GPU has less than was asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A live piece of memory."""

    address: int
    data: NDArray[np.uint8]

    def holds(self, address: int, size: int) -> bool:
        return self.address <= address and address + size <= self.address + self.data.nbytes


class DeviceMemory:
    """What one GPU has given out.

    Args:
        total: Bytes of the GPU.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.reserved = 0
        """Bytes that libraries hold: engines and their contexts."""
        self.blocks: dict[int, Block] = {}
        self._buried: list[Block] = []

    @property
    def free_bytes(self) -> int:
        return self.total - self.reserved - sum(block.data.nbytes for block in self.blocks.values())

    def reserve(self, size: int) -> None:
        """Take memory that has no address. Raises OutOfMemoryError."""
        if size > self.free_bytes:
            raise OutOfMemoryError
        self.reserved += size

    def allocate(self, size: int) -> Block:
        """Raises OutOfMemoryError."""
        if size > self.free_bytes:
            raise OutOfMemoryError
        raw = np.full(size + ALIGNMENT, FRESH, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        block = Block(raw.ctypes.data + start, raw[start : start + size])
        self.blocks[block.address] = block
        return block

    def release(self, block: Block) -> None:
        del self.blocks[block.address]
        block.data[:] = FREED
        # Kept, so that no new block comes to lie where a stale address points.
        self._buried.append(block)

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """The bytes there. Raises MisuseError if they are not all in one live allocation."""
        for block in self.blocks.values():
            if block.holds(address, size):
                return block.data[address - block.address :][:size]
        for words, blocks in (("beyond the end of", self.blocks.values()), ("freed memory, once", self._buried)):
            for block in blocks:
                if block.holds(address, 0):
                    raise MisuseError(
                        f"{size} bytes at {address:#x}: {words} the {block.data.nbytes} bytes at {block.address:#x}"
                    )
        raise MisuseError(f"{size} bytes at {address:#x}: no device memory of this GPU")


class HostMemory:
    """Page-locked host memory."""

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}

    def allocate(self, size: int, on_free: Callable[[Block], None]) -> NDArray[np.uint8]:
        """Bytes that are live until the array and all its views are gone, when ``on_free`` is told."""
        holder = type("PagelockedHostAllocation", (ctypes.c_uint8 * max(size, 1),), {})()
        array = np.frombuffer(holder, np.uint8)[:size]
        array[:] = FRESH
        # A second array on the same bytes, which keeps nothing alive.
        address = array.ctypes.data
        unowned = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8)), (max(size, 1),))[:size]
        block = Block(address, unowned)
        self.blocks[address] = block
        weakref.finalize(holder, on_free, block).atexit = False
        return array

    def view(self, address: int, size: int) -> NDArray[np.uint8]:
        """The bytes there. Raises MisuseError if they are not page-locked."""
        for block in self.blocks.values():
            if block.holds(address, size):
                return block.data[address - block.address :][:size]
        raise MisuseError(f"{size} bytes at {address:#x} are not page-locked host memory, or not any more")


def span_of(array: NDArray[np.generic], writable: bool = False) -> tuple[int, int]:
    """Address and size of a host array, as PyCUDA asks for it."""
    view = memoryview(array)
    if not view.contiguous:
        raise BufferError("ndarray is not contiguous")
    if writable and view.readonly:
        raise BufferError("buffer source array is read-only")
    return int(np.asarray(array).ctypes.data), view.nbytes
