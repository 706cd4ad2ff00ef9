"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt."""
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory for the next allocation, in the whole process, instead of giving it back to the system.

    Every training step on a CPU allocates the same large tensors. glibc gives those above 32 MB back to the system when
    they are freed, so that the next step waits for their pages to be made anew. The process's peak stays about what it
    was; it is held between the peaks too.

    Returns:
        False where the C library is not glibc: nothing has changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
