from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hamr_edge.file_lock import lock_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the lock is POSIX's")


def test_one_thread_at_a_time_is_let_in(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with lock_file(tmp_path / "known.npz") as is_alone:
                assert is_alone
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_process_that_is_killed_gives_its_lock_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "known.npz"
    code = (
        "import sys\nfrom pathlib import Path\nfrom hamr_edge.file_lock import lock_file\n"
        f"with lock_file(Path({str(path)!r})): print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"in\n"
        timer = threading.Timer(0.3, process.kill)
        timer.start()
        with caplog.at_level(logging.INFO), lock_file(path) as is_alone:
            assert is_alone
            assert process.wait(20) == -9
    assert "waiting for another that writes" in caplog.text


def test_the_lock_can_be_opened_by_the_folders_other_users(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        with lock_file(tmp_path / "known.npz"):
            pass
    finally:
        os.umask(umask)
    assert (tmp_path / ".known.npz.lock").stat().st_mode & 0o777 == 0o644


def test_a_file_system_without_locks_is_said_and_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(number: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_file(tmp_path / "known.npz") as is_alone:
        assert not is_alone
    assert "Operation not supported" in caplog.text
