"""Keeps the memory of a process with many threads from growing: glibc gives each thread an arena of its own."""

from __future__ import annotations

import ctypes
import os
import sys

_M_ARENA_MAX = -8
"""As in glibc's malloc.h."""
_ARENAS = 2


def limit_malloc_arenas() -> None:
    """Let threads share two arenas from now on, where malloc is glibc's and ``MALLOC_ARENA_MAX`` says nothing else.

    What a thread frees stays in its arena, as room for that thread. Frames are made by one thread and let go by
    another, and every reconnect may bring a new thread: without a limit, a run over days keeps growing.
    For programs; a library must not change its process.
    """
    if not sys.platform.startswith("linux") or "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_ARENA_MAX, _ARENAS)
