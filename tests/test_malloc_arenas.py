from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hamr_edge.malloc_arenas import limit_malloc_arenas

_CODE = """
import ctypes, os, sys, threading
if sys.argv[1] == "limited":
    from hamr_edge.malloc_arenas import limit_malloc_arenas
    limit_malloc_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
together = threading.Barrier(12)
def take():
    together.wait()
    libc.malloc(10_000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


def count_arenas(tmp_path: Path, how: str, **environment: str) -> int:
    path = tmp_path / f"{how}.xml"
    settings = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment}
    subprocess.run([sys.executable, "-c", _CODE, how, str(path)], env=settings, check=True)
    return path.read_text().count("<heap nr=")


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="needs glibc"
)
def test_threads_share_two_arenas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    assert count_arenas(tmp_path, "as it is") > 2
    assert count_arenas(tmp_path, "limited") <= 2
    assert count_arenas(tmp_path, "limited", MALLOC_ARENA_MAX="4") in (3, 4)  # the user's word counts


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    limit_malloc_arenas()
