"""Record batches on the disk as an Arrow stream, readable wherever it was cut, and the Parquet file made of them."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.file_lock import lock_open_file

_CHECKSUM = b"crc32"
_ROW_GROUP_BYTES = 8 << 20
_LARGEST_ROW_GROUP = 1 << 16


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


class ArrowSpill:
    """A stream of record batches that grows. It is locked against a process that would take it over.

    Args:
        path: The file to make, or the one that an earlier process was writing.
        schema: pyarrow's, of strings, numbers and lists of numbers of one length; None takes over the file that is
            there, to read it.

    Raises:
        InputError: Another process is writing it, or may be.
        OSError: It cannot be made or read.
    """

    def __init__(self, path: Path, schema: Any | None = None) -> None:
        self._arrow, self._parquet = import_pyarrow()
        self._torn_errors = (OSError, ValueError, MemoryError, self._arrow.ArrowException)
        self.path = path
        self.rows = 0
        """In whole batches that were appended."""
        self.unread_bytes = 0
        """Of the stream that was copied last: what a kill, a power cut or the disk spoiled."""
        self._file = _WholeWrites(path, "r+" if schema is None else "x+")
        try:
            if not lock_open_file(self._file, path, is_needed=schema is None):
                raise InputError(f"{path} is being written by another process, or may be; wait for it, or move it away")
            if schema is not None:
                self._writer = self._arrow.ipc.new_stream(self._file, schema)
                self._append(self._arrow.RecordBatch.from_pylist([], schema=schema))  # the schema comes with the first
        except BaseException:
            self._file.close()
            if schema is not None:
                path.unlink(missing_ok=True)
            raise

    def append(self, batch: Any) -> None:
        """Write pyarrow's record batch; on an error the file is as it was.

        Raises:
            OSError: It cannot be written.
        """
        end = self._file.tell()
        try:
            self._append(batch)
        except BaseException:
            self._file.truncate(end)
            self._file.seek(end)
            raise
        self.rows += batch.num_rows

    def sync(self) -> None:
        """Wait until all that was appended is on the disk.

        Raises:
            OSError: It cannot be written.
        """
        os.fsync(self._file.fileno())

    def write_parquet(self, path: Path) -> int:
        """Copy the whole batches into a Parquet file, a row group at a time; nothing can be appended afterwards.

        Args:
            path: The file to make or replace; there is none after an error, or where the stream's head cannot be read.

        Returns:
            The rows that readers find in it.

        Raises:
            OSError: The stream cannot be read, or not all that was appended, or the file cannot be written.
        """
        self.unread_bytes = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        try:
            stream = self._arrow.ipc.open_stream(self._file)
        except self._torn_errors as error:
            _raise_if_disk(error)
            return 0
        self.unread_bytes -= self._file.tell()
        options = {"compression": "zstd", "use_dictionary": False}
        try:
            with _WholeWrites(path, "w") as file:
                with self._parquet.ParquetWriter(file, stream.schema, **options) as writer:
                    for group in self._groups(stream):
                        writer.write_table(group, row_group_size=group.num_rows)
                os.fsync(file.fileno())
            rows = int(self._parquet.read_metadata(path).num_rows)
            if rows < self.rows:
                raise OSError(f"of {self.rows} rows {rows} can be read again")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return rows

    def keep(self, path: Path) -> None:
        """Let go of the stream of whole batches under another name.

        Raises:
            OSError: It cannot be; then it is whole under its own.
        """
        self.sync()
        self.close()  # Windows renames no open file
        self.path.replace(path)

    def discard(self) -> None:
        """Delete the stream; where the system does not let that be, the next run finds it."""
        with suppress(OSError):
            self._file.truncate(0)  # whoever takes it over before it is deleted finds nothing
        self.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let the file go; it stays."""
        self._file.close()

    def _append(self, batch: Any) -> None:
        self._writer.write_batch(batch, custom_metadata={_CHECKSUM: _checksum(batch)})

    def _groups(self, stream: Any) -> Iterator[Any]:
        """Tables of a row group each."""
        batches: list[Any] = []
        rows = size = 0
        for batch in self._whole_batches(stream):
            batches.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if size >= _ROW_GROUP_BYTES or rows >= _LARGEST_ROW_GROUP:
                yield self._arrow.Table.from_batches(batches)
                batches, rows, size = [], 0, 0
        if rows:
            yield self._arrow.Table.from_batches(batches)

    def _whole_batches(self, stream: Any) -> Iterator[Any]:
        """The batches that are as they were written, up to the end or to where the stream is torn."""
        while True:
            begin = self._file.tell()
            try:
                batch, facts = stream.read_next_batch_with_custom_metadata()
            except StopIteration:
                return
            except self._torn_errors as error:
                _raise_if_disk(error)
                return
            if _is_whole(batch, facts):
                self.unread_bytes -= self._file.tell() - begin
                yield batch


class _WholeWrites(io.FileIO):
    """A file whose ``write`` takes everything or raises; FileIO's may take a part, and pyarrow does not look."""

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            rest = rest[super().write(rest) :]
        return size


def _is_whole(batch: Any, facts: Any) -> bool:
    checksum = None if facts is None else facts.get(_CHECKSUM)
    try:
        batch.validate(full=True)  # before its values are touched: an offset may point anywhere
    except ValueError:
        return False
    return checksum is not None and checksum == _checksum(batch)


def _raise_if_disk(error: Exception) -> None:
    """Raise what the disk says, as what cannot be read now may be whole; pyarrow's own errors have no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _checksum(batch: Any) -> bytes:
    """Of all values: Arrow's stream has none, and a power cut leaves zeros in a batch whose head was written."""
    crc = 0
    for column in batch.columns:
        values = column.flatten() if hasattr(column, "flatten") else column
        array = values.to_numpy(zero_copy_only=False)
        crc = zlib.crc32("\n".join(map(str, array)).encode() if array.dtype == object else array, crc)
    return str(crc).encode()
