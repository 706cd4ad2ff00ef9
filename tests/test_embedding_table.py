from __future__ import annotations

import errno
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hamr_edge import Sidecar, arrow_spill, embedding_table
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.embedding_table import EmbeddingTable, table_metadata
from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.video import Frame

_SIDECAR = Sidecar("a" * 64, (32, 16), 6, 8, "fp32", "b" * 64)


def _seen(number: int, time_s: float, *people: np.ndarray, unix_time_s: float | None = None) -> EmbeddedFrame:
    return EmbeddedFrame("door", Frame(number, time_s, np.zeros((1, 1, 3), np.uint8), unix_time_s), *people)


def _people(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    boxes, scores, embeddings = rng.random((count, 4)), rng.random(count), rng.normal(size=(count, 6))
    return boxes.astype(np.float32), scores.astype(np.float32), embeddings.astype(np.float32)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    metadata = table_metadata(_SIDECAR, model="m.onnx", source="v.mp4", people="hog")
    given = [_people(3), _people(0), _people(2, seed=1)]
    with EmbeddingTable(path, 6, metadata) as table:
        for index, people in enumerate(given):
            table.append(_seen(index + 1, index / 10, *people, unix_time_s=1e9 if index else None))
        assert not path.exists()
    table = pq.read_table(path)
    assert table["frame"].to_pylist() == [1, 1, 1, 3, 3]
    assert table["time"].to_pylist() == [0, 0, 0, 0.2, 0.2]
    assert table["camera"].to_pylist() == ["door"] * 5
    assert table["unix_time"].to_pylist() == [None, None, None, 1e9, 1e9]
    for name, column in zip(("box", "score", "embedding"), range(3), strict=True):
        expected = np.concatenate([people[column] for people in given])
        np.testing.assert_array_equal(np.stack(table[name].to_numpy()), expected)
    schema = table.schema
    types = [
        "string",
        "int64",
        "double",
        "double",
        "fixed_size_list<element: float>[4]",
        "float",
        "fixed_size_list<element: float>[6]",
    ]
    assert [str(kind) for kind in schema.types] == types
    facts = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert facts["artifact_sha256"] == "a" * 64
    assert {key: facts[key] for key in ("embedding_dim", "model", "source", "people", "precision")} == {
        "embedding_dim": "6",
        "model": "m.onnx",
        "source": "v.mp4",
        "people": "hog",
        "precision": "fp32",
    }
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def test_nobody_at_all_is_a_valid_file(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "out.parquet", 6) as table:
        table.append(_seen(1, 0.0, *_people(0)))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 0
    assert table.column_names == ["camera", "frame", "time", "unix_time", "box", "score", "embedding"]


def test_memory_is_bounded_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_table, "_BATCH_BYTES", 4 * 6 * 10)
    monkeypatch.setattr(arrow_spill, "_ROW_GROUP_BYTES", 1000)
    with EmbeddingTable(tmp_path / "out.parquet", 6) as table:
        for number in range(1, 15):
            table.append(_seen(number, 0.0, *_people(4)))
            assert table._pending_rows < 12
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(row).num_rows for row in range(file.num_row_groups)] == [24, 24, 8]


@pytest.mark.parametrize("error", [RuntimeError("broke"), KeyboardInterrupt()])
def test_an_error_keeps_a_readable_part_and_leaves_out_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    path = tmp_path / "out.parquet"
    path.write_text("an older result")
    with pytest.raises(type(error)), EmbeddingTable(path, 6) as table:  # noqa: PT012
        table.append(_seen(1, 0.0, *_people(3)))
        raise error
    assert path.read_text() == "an older result"
    assert pq.read_table(tmp_path / "out.partial.parquet").num_rows == 3
    assert "3 embeddings are kept in" in caplog.text
    assert len(list(tmp_path.iterdir())) == 2


def test_an_error_before_the_first_person_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), EmbeddingTable(tmp_path / "out.parquet", 6):
        raise RuntimeError("broke")
    assert not list(tmp_path.iterdir())


_LONG = {"model": "m" * 2000}
"""Metadata: once in a stream, thrice in Parquet, which is then the larger."""


def _fill(
    path: Path, limit: int, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str] | None = None
) -> EmbeddingTable:
    """Write a table until files may not grow any more."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(embedding_table, "_BATCH_BYTES", 4 * 6 * 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    table = EmbeddingTable(path, 6, metadata)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(HamrEdgeError, match=r"cannot write .*too large; check the free space"), table:  # noqa: PT012
            for number in range(1, 1000):
                table.append(_seen(number, 0.0, *_people(5, number)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return table


def test_a_disk_that_is_full_keeps_what_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = _fill(tmp_path / "out.parquet", 40_000, monkeypatch)
    kept = pq.read_table(tmp_path / "out.partial.parquet")["frame"].to_pylist()
    assert kept == [number for number in range(1, kept[-1] + 1) for _ in range(5)]
    assert len(kept) > 20
    assert f"{len(kept)} of {table.rows} embeddings are kept in {tmp_path / 'out.partial.parquet'}" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["out.partial.parquet"]


def test_a_disk_without_room_for_parquet_keeps_the_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.parquet").write_text("an older result")
    (tmp_path / "out.partial.arrows").write_text("an earlier part")
    table = _fill(tmp_path / "out.parquet", 8000, monkeypatch, _LONG)
    stream = tmp_path / "out.partial-2.arrows"
    assert table.partial == stream
    with pa.ipc.open_stream(stream) as reader:
        kept = reader.read_all()["frame"].to_pylist()
    assert kept == [number for number in range(1, kept[-1] + 1) for _ in range(5)]
    assert f"{len(kept)} of {table.rows} embeddings are kept in {stream}, an Arrow stream" in caplog.text
    assert "pyarrow.ipc.open_stream reads it" in caplog.text
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "out.parquet",
        "out.partial-2.arrows",
        "out.partial.arrows",
    ]
    assert (tmp_path / "out.parquet").read_text() == "an older result"


@pytest.mark.parametrize(("limit", "kept"), [(100, 0), (6000, 3)])
def test_a_disk_that_is_full_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: int, kept: int
) -> None:
    resource = pytest.importorskip("resource")
    before, table = resource.getrlimit(resource.RLIMIT_FSIZE), EmbeddingTable(tmp_path / "out.parquet", 6, _LONG)
    try:
        with pytest.raises(HamrEdgeError, match="cannot write"), table:  # noqa: PT012
            table.append(_seen(1, 0.0, *_people(3)))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if not kept:
        assert "0 of 3 embeddings could be kept" in caplog.text
        assert not list(tmp_path.iterdir())
        return
    assert "3 embeddings are kept in" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["out.partial.arrows"]
    with pa.ipc.open_stream(tmp_path / "out.partial.arrows") as reader:
        assert reader.read_all().num_rows == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_for_parquet_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    write = arrow_spill._WholeWrites.write

    def write_unless_parquet(file: arrow_spill._WholeWrites, data: object) -> int:
        if str(file.name).endswith(".parquet"):
            raise OSError(number, "no room")
        return write(file, data)

    monkeypatch.setattr(arrow_spill._WholeWrites, "write", write_unless_parquet)
    with pytest.raises(HamrEdgeError, match="no room"), EmbeddingTable(tmp_path / "out.parquet", 6) as table:
        table.append(_seen(1, 0.0, *_people(3)))
    assert [file.name for file in tmp_path.iterdir()] == ["out.partial.arrows"]
    assert "3 embeddings are kept in" in caplog.text


def test_a_stream_that_cannot_be_renamed_stays_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", mock.Mock(side_effect=PermissionError(errno.EACCES, "no")))
        with pytest.raises(HamrEdgeError, match="cannot write"), EmbeddingTable(tmp_path / "out.parquet", 6) as table:
            table.append(_seen(1, 0.0, *_people(3)))
    assert "and the next run for it makes Parquet of that" in caplog.text
    assert [file.suffix for file in tmp_path.iterdir()] == [".arrows"]
    with EmbeddingTable(tmp_path / "out.parquet", 6):
        pass
    assert pq.read_table(tmp_path / "out.recovered.parquet").num_rows == 3


def test_a_second_ctrl_c_leaves_the_copy_to_the_next_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stop = mock.patch("pyarrow.parquet.ParquetWriter.write_table", side_effect=KeyboardInterrupt)
    table = EmbeddingTable(tmp_path / "out.parquet", 6)
    with stop, pytest.raises(KeyboardInterrupt), table:
        table.append(_seen(1, 0.0, *_people(3)))
    assert "stopped while it was copied" in caplog.text
    assert [file.suffix for file in tmp_path.iterdir()] == [".arrows"]
    pytest.importorskip("fcntl")
    with EmbeddingTable(tmp_path / "out.parquet", 6):
        pass
    assert pq.read_table(tmp_path / "out.recovered.parquet").num_rows == 3


def test_what_cannot_be_read_again_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = mock.patch.object(
        arrow_spill, "_checksum", side_effect=map(b"%d".__mod__, range(99))
    )  # never twice the same
    table = EmbeddingTable(tmp_path / "out.parquet", 6)
    with check, pytest.raises(HamrEdgeError, match="of 3 rows 0 can be read again"), table:
        table.append(_seen(1, 0.0, *_people(3)))
    assert [file.name for file in tmp_path.iterdir()] == ["out.partial.arrows"]


def test_what_is_a_minute_old_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, synced = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("os.fsync", lambda number: synced.append(now_s[0]))
    with EmbeddingTable(tmp_path / "out.parquet", 6) as table:
        for minute in range(4):
            now_s[0] = 30.0 * minute
            table.append(_seen(minute + 1, 0.0, *_people(1)))
        assert synced == [60.0]
        now_s[0] = 125.0
        table.append(_seen(5, 0.0, *_people(0)))  # nobody came; who came before is saved all the same
        assert synced == [60.0, 125.0]
        assert table._spill is not None
        assert table._spill.rows == 4
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(row).num_rows for row in range(file.num_row_groups)] == [4]


def test_a_name_that_cannot_be_given_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HamrEdgeError, match="cannot write"), EmbeddingTable(tmp_path / "out.parquet", 6) as table:  # noqa: PT012
        table.append(_seen(1, 0.0, *_people(3)))
        (tmp_path / "out.parquet").mkdir()
    assert pq.read_table(tmp_path / "out.partial.parquet").num_rows == 3
    assert "3 embeddings are kept in" in caplog.text
    assert len(list(tmp_path.iterdir())) == 2


def test_an_earlier_part_is_not_replaced(tmp_path: Path) -> None:
    for count in (3, 1, 2):
        with pytest.raises(RuntimeError), EmbeddingTable(tmp_path / "out.parquet", 6) as table:  # noqa: PT012
            table.append(_seen(1, 0.0, *_people(count)))
            raise RuntimeError("broke")
        assert pq.read_table(table.partial).num_rows == count
    assert [pq.read_table(tmp_path / f"out.partial{tag}.parquet").num_rows for tag in ("", "-2", "-3")] == [3, 1, 2]


def test_wrong_rows_are_named(tmp_path: Path) -> None:
    boxes, scores, embeddings = _people(3)
    with EmbeddingTable(tmp_path / "out.parquet", 6) as table:
        with pytest.raises(HamrEdgeError, match=r"expected boxes \(N, 4\).* got \(3, 4\), \(2,\) and \(3, 6\)"):
            table.append(_seen(1, 0.0, boxes, scores[:2], embeddings))
        embeddings[1, 2] = np.nan
        with pytest.raises(HamrEdgeError, match="door, frame 7: embedding 1 is not finite"):
            table.append(_seen(7, 0.0, boxes, scores, embeddings))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    with pytest.raises(HamrEdgeError, match="is not open"):
        table.append(_seen(1, 0.0, *_people(0)))


def test_where_it_cannot_be_written_is_known_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.parquet").mkdir()
    for name, message in (
        ("out.csv", "must end in .parquet"),
        ("gone/out.parquet", "mkdir -p .*gone"),
        ("folder.parquet", "is a folder"),
        ("caf\udce9.parquet", r"caf\\udce9.parquet must have a name in UTF-8"),
    ):
        with pytest.raises(InputError, match=message):
            EmbeddingTable(tmp_path / name, 6)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match="cannot be written to"):
        EmbeddingTable(tmp_path / "out.parquet", 6)


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    with EmbeddingTable(tmp_path / "out.parquet", 6, {"source": "caf\udce9.mp4"}) as table:
        table.append(EmbeddedFrame("caf\udce9", _seen(1, 0.0, *_people(1)).frame, *_people(1)))
    written = pq.read_table(tmp_path / "out.parquet")
    assert written["camera"].to_pylist() == [r"caf\udce9"]
    assert written.schema.metadata[b"source"] == rb"caf\udce9.mp4"


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnavailableError, match=r"hamr-edge\[parquet\]"):
        EmbeddingTable(tmp_path / "out.parquet", 6)
