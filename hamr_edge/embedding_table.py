"""Embeddings as a Parquet file, written row group by row group in bounded memory. Needs pyarrow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge import __version__
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.errors import HamrEdgeError, UnavailableError
from hamr_edge.output_file import OutputFile
from hamr_edge.sidecar import Sidecar
from hamr_edge.text_file import to_writable

_log = logging.getLogger(__name__)
_ROW_GROUP_BYTES = 8 << 20
_LARGEST_ROW_GROUP = 1 << 16
_COLUMN_NOTES = {
    "camera": "name of the source",
    "frame": "number of the frame, from 1",
    "time": "seconds since the camera's first frame",
    "unix_time": "Unix time of a live source's frame; none for a recording",
    "box": "x1, y1, x2, y2 in pixels of the frame",
    "score": "the detector's score",
    "embedding": "row of unit L2 norm",
}


def import_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        UnavailableError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UnavailableError(
            "pyarrow, which writes Parquet, is not installed; pip install 'hamr-edge[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet


class EmbeddingTable:
    """One row a person: ``camera``, ``frame``, ``time``, ``unix_time``, ``box``, ``score``, ``embedding``.

    A context manager. Left without an error, the file gets its name. Left with one, what was appended is kept as
    ``OUT.partial.parquet``, whole and readable, and ``OUT`` stays as it was.

    Args:
        path: The ``.parquet`` file to make or replace.
        embedding_dim: Values of one embedding.
        metadata: Facts for the file's own metadata, such as the artifact's hash.

    Raises:
        InputError: The file cannot be made there.
        UnavailableError: pyarrow is not installed.
    """

    def __init__(self, path: str | Path, embedding_dim: int, metadata: Mapping[str, str] | None = None) -> None:
        self._file = OutputFile(path, ".parquet")
        self._arrow, self._parquet = import_pyarrow()
        self._dim = embedding_dim
        facts = {name: to_writable(fact) for name, fact in (metadata or {}).items()}
        self._schema = _build_schema(self._arrow, embedding_dim, {**facts, "embedding_dim": str(embedding_dim)})
        self._rows_per_group = min(max(1, _ROW_GROUP_BYTES // (4 * embedding_dim)), _LARGEST_ROW_GROUP)
        self._writer: Any = None
        self._pending: list[tuple[NDArray[Any], ...]] = []
        self._pending_rows = 0
        self.rows = 0

    def __enter__(self) -> EmbeddingTable:
        name = str(self._file.temporary)
        try:
            self._writer = self._parquet.ParquetWriter(name, self._schema, compression="zstd", use_dictionary=False)
        except OSError as error:
            raise self._cannot_write(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        writer, self._writer = self._writer, None
        try:
            if error is None:
                self._finish(writer)
                self._file.publish()
            elif self.rows:
                self._finish(writer)
                self._file.keep_partial()
                _log.warning(
                    "%s: not finished; %d embeddings are kept in %s", self._file.path, self.rows, self._file.partial
                )
            else:
                writer.close()
        except (OSError, HamrEdgeError) as failure:
            if error is None:
                raise self._cannot_write(failure) from failure
            _log.warning("%s: nothing could be kept: %s", self._file.path, failure)
        finally:
            self._file.discard()

    @property
    def partial(self) -> Path:
        """Where rows are kept after an error."""
        return self._file.partial

    def append(self, seen: EmbeddedFrame) -> None:
        """Add the people of one frame; nobody is fine. Its arrays must not change afterwards: they are written later.

        Raises:
            HamrEdgeError: The table is not open, shapes disagree, an embedding is not finite, or the file cannot be
                written.
        """
        if self._writer is None:
            raise HamrEdgeError(f"table {self._file.path} is not open; use it in a 'with' statement")
        boxes, scores, embeddings = seen.boxes, seen.scores, seen.embeddings
        count = len(embeddings)
        if boxes.shape != (count, 4) or scores.shape != (count,) or embeddings.shape != (count, self._dim):
            raise HamrEdgeError(
                f"expected boxes (N, 4), scores (N,) and embeddings (N, {self._dim}), got {boxes.shape}, "
                f"{scores.shape} and {embeddings.shape}"
            )
        wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        if len(wrong):
            raise HamrEdgeError(
                f"{seen.camera}, frame {seen.frame.number}: embedding {wrong[0]} is not finite; the model overflows on "
                "this crop, 'hamr-edge bench' measures how often"
            )
        if count:
            unix_time_s = np.nan if seen.frame.unix_time_s is None else seen.frame.unix_time_s
            self._pending.append(
                (
                    np.full(count, to_writable(seen.camera), np.object_),
                    np.full(count, seen.frame.number, np.int64),
                    np.full(count, seen.frame.time_s, np.float64),
                    np.full(count, unix_time_s, np.float64),
                    boxes,
                    scores,
                    embeddings,
                )
            )
            self._pending_rows += count
            self.rows += count
        if self._pending_rows >= self._rows_per_group:
            try:
                self._write_pending(self._writer)
            except OSError as error:
                raise self._cannot_write(error) from error

    def _finish(self, writer: Any) -> None:
        self._write_pending(writer)
        writer.close()

    def _write_pending(self, writer: Any) -> None:
        if not self._pending:
            return
        cameras, frames, times, unix_times, boxes, scores, embeddings = (
            np.concatenate(column) for column in zip(*self._pending, strict=True)
        )
        self._pending, self._pending_rows = [], 0
        arrow = self._arrow
        columns = [
            arrow.array(cameras, arrow.string()),
            arrow.array(frames),
            arrow.array(times),
            arrow.array(unix_times, mask=np.isnan(unix_times)),
            _fixed_size_lists(arrow, boxes),
            arrow.array(scores.astype(np.float32, copy=False)),
            _fixed_size_lists(arrow, embeddings),
        ]
        writer.write_table(arrow.Table.from_arrays(columns, schema=self._schema), row_group_size=len(frames))

    def _cannot_write(self, error: Exception) -> HamrEdgeError:
        return HamrEdgeError(
            f"cannot write {self._file.path}: {error}; check the free space and the folder's permissions"
        )


def _build_schema(arrow: Any, embedding_dim: int, metadata: Mapping[str, str]) -> Any:
    types = {
        "camera": arrow.string(),
        "frame": arrow.int64(),
        "time": arrow.float64(),
        "unix_time": arrow.float64(),
        "box": arrow.list_(arrow.float32(), 4),
        "score": arrow.float32(),
        "embedding": arrow.list_(arrow.float32(), embedding_dim),
    }
    fields = [
        arrow.field(name, kind, nullable=name == "unix_time", metadata={"description": _COLUMN_NOTES[name]})
        for name, kind in types.items()
    ]
    return arrow.schema(fields, metadata=dict(metadata))


def _fixed_size_lists(arrow: Any, rows: NDArray[np.float32]) -> Any:
    values = arrow.array(np.ascontiguousarray(rows, dtype=np.float32).reshape(-1))
    return arrow.FixedSizeListArray.from_arrays(values, rows.shape[1])


def table_metadata(sidecar: Sidecar, model: str, source: str, people: str) -> dict[str, str]:
    """The facts that a table of embeddings carries: what made them, of what.

    Args:
        sidecar: Of the artifact that embedded.
        model: The artifact as it was named.
        source: The source of the frames; without a password.
        people: The detector, or the file of detections.
    """
    return {
        "artifact_sha256": sidecar.artifact_sha256,
        "source_sha256": sidecar.source_sha256,
        "precision": sidecar.precision,
        "model": model,
        "source": source,
        "people": people,
        "made_by": f"hamr-edge {__version__}",
    }
