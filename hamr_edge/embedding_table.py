"""Embeddings as a Parquet file, and on the disk while they come. Needs pyarrow."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge import __version__
from hamr_edge.arrow_spill import ArrowSpill, import_pyarrow
from hamr_edge.camera_report import EmbeddedFrame
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.killed_runs import recover_killed_runs
from hamr_edge.output_file import OutputFile
from hamr_edge.sidecar import Sidecar
from hamr_edge.text_file import to_writable

_log = logging.getLogger(__name__)
_BATCH_BYTES = 8 << 20
_LARGEST_BATCH = 1 << 16
_SAVE_EVERY_S = 60.0
_COLUMN_NOTES = {
    "camera": "name of the source",
    "frame": "number of the frame, from 1",
    "time": "seconds since the camera's first frame",
    "unix_time": "Unix time of a live source's frame; none for a recording",
    "box": "x1, y1, x2, y2 in pixels of the frame",
    "score": "the detector's score",
    "embedding": "row of unit L2 norm",
}


class EmbeddingTable:
    """One row a person: ``camera``, ``frame``, ``time``, ``unix_time``, ``box``, ``score``, ``embedding``.

    A context manager. What is a minute old is on the disk, in a hidden Arrow stream beside ``OUT``. Left without an
    error, that is copied into ``OUT``. Left with one, it is copied into ``OUT.partial.parquet``, and ``OUT`` stays as
    it was; where there is no room for the copy, the stream is kept as ``OUT.partial.arrows``. After a kill or a power
    cut, the next table for ``OUT`` makes ``OUT.recovered.parquet`` of it.

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
        self._arrow, _ = import_pyarrow()
        self._dim = embedding_dim
        facts = {name: to_writable(fact) for name, fact in (metadata or {}).items()}
        self._schema = _build_schema(self._arrow, embedding_dim, {**facts, "embedding_dim": str(embedding_dim)})
        self._rows_per_batch = min(max(1, _BATCH_BYTES // (4 * embedding_dim)), _LARGEST_BATCH)
        self._spill: ArrowSpill | None = None
        self._is_saved, self._saved_s = True, 0.0
        self._pending: list[tuple[NDArray[Any], ...]] = []
        self._pending_rows = 0
        self.rows = 0

    def __enter__(self) -> EmbeddingTable:
        try:
            recover_killed_runs(self._file)
            self._spill = ArrowSpill(self._file.temporary.with_suffix(".arrows"), self._schema)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._saved_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        spill, self._spill = self._spill, None
        if spill is None:
            return
        try:
            if error is None:
                self._finish(spill)
            else:
                self._keep_partial(spill)
        except OSError as failure:
            raise self._cannot_write(failure) from failure
        except KeyboardInterrupt:
            note = "stopped while it was copied; what came is in %s, and the next run for it makes Parquet of that"
            _log.warning(f"%s: {note}", self._file.path, spill.path)
            raise
        finally:
            spill.close()

    @property
    def partial(self) -> Path:
        """Where rows are kept after an error."""
        return self._file.partial

    def append(self, seen: EmbeddedFrame) -> None:
        """Add the people of one frame; nobody is fine. Its arrays must not change afterwards: they are written later.

        Raises:
            InputError: An embedding is not finite; nothing of this frame is added, and others may follow.
            HamrEdgeError: The table is not open, shapes disagree, or the file cannot be written.
        """
        if self._spill is None:
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
            raise InputError(
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
            self._is_saved = False
        if self._pending_rows >= self._rows_per_batch:
            self._write_out(self._spill)
        self.save_when_due()

    def save_when_due(self) -> None:
        """Bring what was appended to the disk where it was a minute ago that this was done; to be called now and then.

        Raises:
            HamrEdgeError: The file cannot be written.
        """
        if self._spill is None or time.monotonic() - self._saved_s < _SAVE_EVERY_S:
            return
        if not self._is_saved:
            self._write_out(self._spill, is_synced=True)
        self._is_saved, self._saved_s = True, time.monotonic()

    def _write_out(self, spill: ArrowSpill, *, is_synced: bool = False) -> None:
        try:
            self._write_pending(spill)
            if is_synced:
                spill.sync()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _finish(self, spill: ArrowSpill) -> None:
        try:
            self._write_pending(spill)
        except OSError:
            self._keep_partial(spill)
            raise
        try:
            spill.write_parquet(self._file.temporary)
        except OSError as failure:
            self._keep_stream(spill, failure)
            raise
        try:
            self._file.publish()
        except OSError:
            self._keep_partial(spill)
            raise
        spill.discard()

    def _keep_partial(self, spill: ArrowSpill) -> None:
        """Keep as much as the disk takes, and say how much that is; never raises what the disk says."""
        with suppress(OSError):  # the count says so
            self._write_pending(spill)
        if not spill.rows:
            spill.discard()
            if self.rows:
                _log.warning("%s: not finished; 0 of %d embeddings could be kept", self._file.path, self.rows)
            return
        try:
            spill.write_parquet(self._file.temporary)
            self._file.keep_partial()
        except OSError as failure:
            self._keep_stream(spill, failure)
        else:
            spill.discard()
            self._say_kept(spill.rows)

    def _keep_stream(self, spill: ArrowSpill, failure: OSError) -> None:
        """Keep the stream, as no Parquet file can be made of it."""
        self._file.discard()
        target = self._file.free_name("partial", spill.path.suffix)
        try:
            spill.keep(target)
        except OSError as error:
            note = "not finished; what is kept is in %s, and the next run for it makes Parquet of that: %s"
            _log.warning(f"%s: {note}", self._file.path, spill.path, error)
            return
        self._file.partial = target
        self._say_kept(
            spill.rows, f", an Arrow stream: pyarrow.ipc.open_stream reads it; Parquet could not be written: {failure}"
        )

    def _say_kept(self, rows: int, note: str = "") -> None:
        count = str(rows) if rows == self.rows else f"{rows} of {self.rows}"
        _log.warning("%s: not finished; %s embeddings are kept in %s%s", self._file.path, count, self.partial, note)

    def _write_pending(self, spill: ArrowSpill) -> None:
        if not self._pending:
            return
        cameras, frames, times, unix_times, boxes, scores, embeddings = (
            np.concatenate(column) for column in zip(*self._pending, strict=True)
        )
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
        spill.append(arrow.RecordBatch.from_arrays(columns, schema=self._schema))
        self._pending, self._pending_rows = [], 0

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
