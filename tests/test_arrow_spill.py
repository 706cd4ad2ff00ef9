"""A stream of batches becomes one Parquet file, and is readable up to wherever it was cut."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hamr_edge import arrow_spill
from hamr_edge.arrow_spill import ArrowSpill
from hamr_edge.errors import InputError

_SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False, metadata={"description": "counts"}),
        pa.field("word", pa.string()),
        pa.field("time", pa.float64()),
        pa.field("values", pa.list_(pa.float32(), 5)),
    ],
    metadata={"model": "m.onnx"},
)


def _batch(first: int, count: int) -> pa.RecordBatch:
    numbers = np.arange(first, first + count)
    values = np.random.default_rng(first).normal(size=5 * count).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values), 5)
    words = pa.array([f"w{number}" if number % 3 else None for number in numbers], pa.string())
    times = pa.array(numbers / 7, mask=numbers % 5 == 0)
    return pa.RecordBatch.from_arrays([pa.array(numbers), words, times, lists], schema=_SCHEMA)


def _write(path: Path, batches: int, rows: int = 40) -> list[int]:
    """Leave a file as a kill does; gives where its batches end."""
    spill, ends = ArrowSpill(path, _SCHEMA), []
    for index in range(batches):
        spill.append(_batch(index * rows, rows))
        ends.append(path.stat().st_size)
    spill.close()
    return ends


def _copy(path: Path) -> tuple[int, int]:
    """Gives the rows that were copied, and the bytes that could not be read."""
    spill = ArrowSpill(path)
    try:
        return spill.write_parquet(path.with_suffix(".parquet")), spill.unread_bytes
    finally:
        spill.close()


def _numbers(path: Path) -> list[int]:
    return pq.read_table(path.with_suffix(".parquet"))["number"].to_pylist()


@pytest.mark.parametrize("batches", [0, 1, 2, 20])
def test_the_batches_are_one_file(tmp_path: Path, batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "o.arrows"
    _write(path, batches)
    monkeypatch.setattr(arrow_spill, "_LARGEST_ROW_GROUP", 120)
    assert _copy(path) == (40 * batches, 0)
    expected = pa.Table.from_batches([_batch(40 * index, 40) for index in range(batches)], _SCHEMA)
    file = pq.ParquetFile(path.with_suffix(".parquet"))
    table = file.read()
    assert table.equals(expected)
    assert table.schema.metadata == _SCHEMA.metadata
    assert table.schema.field("number").metadata == {b"description": b"counts"}
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert groups == [120] * (batches // 3) + [40 * (batches % 3)] * (batches % 3 > 0)
    with pa.ipc.open_stream(path) as stream:
        assert stream.read_all().equals(expected)


@pytest.fixture
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.mark.usefixtures("_quick_disk")
def test_wherever_it_is_cut_whole_batches_are_left(tmp_path: Path) -> None:
    path = tmp_path / "o.arrows"
    ends = _write(path, 3, rows=4)
    content = path.read_bytes()
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        rows, unread = _copy(path)
        assert rows == 4 * whole, cut
        if whole:
            assert _numbers(path) == list(range(4 * whole))
            assert unread == cut - ends[whole - 1]
        path.with_suffix(".parquet").unlink(missing_ok=True)


def test_what_a_power_cut_left_empty_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "o.arrows"
    ends = _write(path, 4)
    content = bytearray(path.read_bytes())
    path.write_bytes(content + bytes(5000))
    assert _copy(path) == (160, 5000)
    # The third batch's values never came to the disk, its head did.
    content[ends[2] - 400 : ends[2] - 20] = bytes(380)
    path.write_bytes(content + bytes(5000))
    assert _copy(path) == (120, ends[2] - ends[1] + 5000)
    assert _numbers(path) == [*range(80), *range(120, 160)]
    content[ends[1] : ends[1] + 300] = bytes(300)  # nor its head
    path.write_bytes(content)
    assert _copy(path) == (80, ends[3] - ends[1])


@pytest.mark.usefixtures("_quick_disk")
def test_no_value_that_was_spoiled_is_kept(tmp_path: Path) -> None:
    path, chance = tmp_path / "o.arrows", random.Random(0)
    ends = _write(path, 2, rows=4)
    content = path.read_bytes()
    whole = [_batch(0, 4), _batch(4, 4)]
    for _ in range(500):
        spoiled = bytearray(content)
        spoiled[chance.randrange(ends[0] - 1000, len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(spoiled)
        if _copy(path)[0]:
            table = pq.read_table(path.with_suffix(".parquet"))
            assert any(table.equals(pa.Table.from_batches(batches)) for batches in (whole, whole[:1], whole[1:]))


def test_a_full_disk_takes_no_part_of_a_batch(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "o.arrows"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    spill = ArrowSpill(path, _SCHEMA)
    try:
        for last in (0, 3):  # the first batch of all, too
            end = path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (end + 1000, before[1]))
            with pytest.raises(OSError, match="too large"):
                spill.append(_batch(0, 40))
            assert (path.stat().st_size, spill.rows) == (end, 40 * last)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            for index in range(last, last + 3):
                spill.append(_batch(40 * index, 40))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        with pytest.raises(OSError, match="too large"):
            spill.write_parquet(tmp_path / "o.parquet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in tmp_path.iterdir()] == ["o.arrows"]
    spill.keep(tmp_path / "kept.arrows")
    with pa.ipc.open_stream(tmp_path / "kept.arrows") as stream:
        assert stream.read_all()["number"].to_pylist() == list(range(240))


def test_a_file_that_is_being_written_is_not_taken(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    path = tmp_path / "o.arrows"
    spill = ArrowSpill(path, _SCHEMA)
    with pytest.raises(InputError, match="is being written by another process"):
        ArrowSpill(path)
    with pytest.raises(FileExistsError):
        ArrowSpill(path, _SCHEMA)
    spill.append(_batch(0, 3))
    spill.close()
    assert _copy(path) == (3, 0)


def test_where_files_cannot_be_locked_none_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "o.arrows"
    with mock.patch("fcntl.flock", side_effect=OSError(95, "Operation not supported")):
        _write(path, 1)
        with pytest.raises(InputError, match="is being written by another process, or may be"):
            ArrowSpill(path)
    assert path.exists()


@pytest.mark.parametrize(
    "ill", ["os.fsync", "hamr_edge.arrow_spill._WholeWrites.read", "hamr_edge.arrow_spill._WholeWrites.write"]
)
def test_an_ill_disk_drops_nothing(tmp_path: Path, ill: str) -> None:
    path = tmp_path / "o.arrows"
    _write(path, 3)
    before = path.read_bytes()
    with mock.patch(ill, create=True, side_effect=OSError(errno.EIO, "ill")), pytest.raises(OSError, match="ill"):
        _copy(path)
    assert [file.name for file in tmp_path.iterdir()] == ["o.arrows"]
    assert path.read_bytes() == before
    assert _copy(path) == (120, 0)
