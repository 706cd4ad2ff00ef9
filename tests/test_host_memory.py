"""Freed memory is kept: the system makes no new pages for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from hamr_edge.trainer.host_memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
SIZE = 64 * 1024**2


def pages() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = libc.malloc(SIZE)
    libc.memset(place, 1, SIZE)
    libc.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


pages()
plain = pages()
kept = keep_freed_memory()
pages()
print(kept, plain, pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_same_memory_is_used_again() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, plain, now = run.stdout.split()
    assert kept == "True"
    assert int(now) < 16 < int(plain)  # 64 MB are 32 of the largest pages that a system gives unasked
