from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hamr_edge import Sidecar, embedding_table
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
    monkeypatch.setattr(embedding_table, "_ROW_GROUP_BYTES", 4 * 6 * 10)
    with EmbeddingTable(tmp_path / "out.parquet", 6) as table:
        for number in range(1, 12):
            table.append(_seen(number, 0.0, *_people(4)))
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(row).num_rows for row in range(file.num_row_groups)] == [12, 12, 12, 8]


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


def test_a_disk_that_is_full_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = EmbeddingTable(tmp_path / "out.parquet", 6)
    table._file.temporary = Path("/dev/full")
    with caplog.at_level(logging.WARNING), pytest.raises(HamrEdgeError, match=r"cannot write .*No space left"), table:
        table.append(_seen(1, 0.0, *_people(3)))
    assert not list(tmp_path.iterdir())


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
