from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from hamr_edge.atomic import delete_leftovers, replace_file, temporary_name

posix = pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")


def test_two_threads_that_replace_one_file_leave_one_of_both(tmp_path: Path) -> None:
    path, both = tmp_path / "result.txt", threading.Barrier(2)
    parts: list[Path] = []

    def write(letter: str) -> None:
        def fill(part: Path) -> None:
            parts.append(part)
            with part.open("w") as file:
                both.wait(20)  # both have their file open
                file.write(letter * 100)

        replace_file(path, fill)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("a" * 100, "b" * 100)
    assert len(set(parts)) == 2
    assert all(part.suffix == ".txt" and part.name.startswith(".result.") for part in parts)
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        replace_file(path, fail)
    assert [(file, file.read_text()) for file in tmp_path.iterdir()] == [(path, "old")]


@posix
def test_the_umask_says_who_reads_a_file(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        replace_file(tmp_path / "shared.txt", lambda part: part.write_text("x"))
        replace_file(tmp_path / "private.txt", lambda part: part.write_text("x"), 0o600)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "shared.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "private.txt").stat().st_mode) == 0o600


def test_only_what_was_left_of_that_file_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    left = temporary_name(path)
    others = [path, temporary_name(tmp_path / "known.txt"), temporary_name(tmp_path / "known2.npz")]
    others += [tmp_path / ".known.hidden.npz", tmp_path / ".known.npz.lock", tmp_path / ".known.npz"]
    for file in (left, *others):
        file.touch()
    delete_leftovers(path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
