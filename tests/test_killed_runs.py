"""What a killed run had embedded is kept by the next one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hamr_edge import embedding_table, killed_runs
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.embedding_table import EmbeddingTable
from hamr_edge.video import Frame

pytest.importorskip("fcntl")


def _seen(number: int, count: int = 3) -> EmbeddedFrame:
    rows = np.full((count, 6), number, np.float32)
    frame = Frame(number, number / 10, np.zeros((1, 1, 3), np.uint8))
    return EmbeddedFrame("door", frame, rows[:, :4], rows[:, 0], rows)


def _leave(path: Path, monkeypatch: pytest.MonkeyPatch, frames: int) -> Path:
    """The file that a killed run leaves."""
    with monkeypatch.context() as patch:
        patch.setattr(embedding_table, "_BATCH_BYTES", 4 * 6 * 3)  # a batch a frame
        table = EmbeddingTable(path, 6)
        table.__enter__()
        for number in range(1, frames + 1):
            table.append(_seen(number))
        assert table._spill is not None
        table._spill.close()  # as the kernel does at a kill
        return table._spill.path


def test_after_a_kill_all_but_the_last_minute_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = """if True:
        import sys, time
        from hamr_edge import embedding_table, killed_runs
        from tests.test_killed_runs import _seen
        embedding_table._SAVE_EVERY_S = 0.2
        with embedding_table.EmbeddingTable(sys.argv[1], 6) as table:
            for number in range(1, 10_000):
                table.append(_seen(number))
                print(number, flush=True)
                time.sleep(0.01)
    """
    path = tmp_path / "out.parquet"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 80:
                break
        os.kill(process.pid, signal.SIGKILL)
        last = max([80, *map(int, process.stdout)])
    assert [file.suffix for file in tmp_path.iterdir()] == [".arrows"]
    with EmbeddingTable(path, 6) as table:
        table.append(_seen(1))
    recovered = pq.read_table(tmp_path / "out.recovered.parquet")
    frames = recovered["frame"].to_pylist()
    assert frames == [number for number in range(1, frames[-1] + 1) for _ in range(3)]
    assert last - 40 <= frames[-1] <= last
    assert f"an earlier run was killed; its {len(frames)} embeddings are kept in" in caplog.text
    assert pq.read_table(path)["frame"].to_pylist() == [1, 1, 1]
    assert len(list(tmp_path.iterdir())) == 2


def test_each_killed_run_gets_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.parquet"
    _leave(path, monkeypatch, 2)
    with monkeypatch.context() as patch:
        patch.setattr(embedding_table, "recover_killed_runs", lambda _: None)
        _leave(path, patch, 4)
    with EmbeddingTable(path, 6) as table:
        table.append(_seen(1))
    names = {file.name: pq.read_table(file).num_rows for file in tmp_path.iterdir()}
    assert sorted(names) == ["out.parquet", "out.recovered-2.parquet", "out.recovered.parquet"]
    assert sorted(names.values()) == [3, 6, 12]


def test_a_run_at_work_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out.parquet"
    with EmbeddingTable(path, 6) as at_work:
        at_work.append(_seen(7))
        with EmbeddingTable(path, 6) as table:
            table.append(_seen(1))
        assert at_work._spill is not None
        assert f"{at_work._spill.path} is being written by another process" in caplog.text
        assert pq.read_table(path)["frame"].to_pylist() == [1, 1, 1]
    assert pq.read_table(path)["frame"].to_pylist() == [7, 7, 7]
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def test_what_cannot_be_read_is_said_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = _leave(tmp_path / "out.parquet", monkeypatch, 1)
    torn = left.read_bytes()[:-1]
    left.write_bytes(torn)
    with monkeypatch.context() as patch:
        patch.setattr(embedding_table, "recover_killed_runs", lambda _: None)
        _leave(tmp_path / "out.parquet", patch, 0)  # killed before anyone came
    (tmp_path / ".out.0123456789abcdef.arrows").touch()  # killed before anything was written
    (tmp_path / ".other.0123456789abcdef.arrows").touch()  # of another output
    with EmbeddingTable(tmp_path / "out.parquet", 6):
        pass
    assert "bytes that it left cannot be read, and are in" in caplog.text
    assert len(caplog.records) == 1
    names = [".other.0123456789abcdef.arrows", "out.parquet", "out.unreadable.arrows"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    assert (tmp_path / "out.unreadable.arrows").read_bytes() == torn


def test_a_torn_end_is_dropped_and_a_large_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (1, 2):
        left = _leave(tmp_path / "out.parquet", monkeypatch, 3)
        left.write_bytes(left.read_bytes()[:-1])
        with EmbeddingTable(tmp_path / "out.parquet", 6):
            pass
        assert len(list(tmp_path.glob("out.unreadable.arrows"))) == count - 1
        monkeypatch.setattr(killed_runs, "_TORN_BYTES", 100)
    assert pq.read_table(tmp_path / "out.recovered.parquet").num_rows == 6
    assert pq.read_table(tmp_path / "out.recovered-2.parquet").num_rows == 6


def test_a_run_killed_while_it_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = _leave(tmp_path / "out.parquet", monkeypatch, 3)
    left.with_suffix(".parquet").write_bytes(b"PAR1 a part")
    with EmbeddingTable(tmp_path / "out.parquet", 6):
        pass
    assert pq.read_table(tmp_path / "out.recovered.parquet").num_rows == 9
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.parquet", "out.recovered.parquet"]


def test_what_cannot_be_copied_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "out.parquet"
    left = _leave(path, monkeypatch, 3)
    before, content = resource.getrlimit(resource.RLIMIT_FSIZE), left.read_bytes()
    caplog.set_level(logging.WARNING)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        with EmbeddingTable(path, 6):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"what it left, {left}, cannot be copied into Parquet and stays" in caplog.text
    assert left.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == sorted([left, path])
    with EmbeddingTable(path, 6):
        pass
    assert pq.read_table(tmp_path / "out.recovered.parquet").num_rows == 9
