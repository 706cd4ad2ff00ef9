"""What runs that were killed had embedded: found beside their output, and kept as files of their own."""

from __future__ import annotations

import logging

from hamr_edge.arrow_spill import ArrowSpill
from hamr_edge.errors import InputError
from hamr_edge.output_file import OutputFile

_log = logging.getLogger(__name__)
_TORN_BYTES = 64 << 20
"""A kill tears one batch; where more cannot be read, the disk may be ill, and the stream is not deleted."""


def recover_killed_runs(output: OutputFile) -> None:
    """Make ``OUT.recovered.parquet`` of what killed runs left for ``output``; another run's file is left alone.

    What cannot be copied, for want of space say, stays where it is, and is said.
    """
    for path in output.left_behind(".arrows"):
        try:
            left = ArrowSpill(path)
        except (InputError, OSError) as error:
            _log.warning("%s: %s", output.path, error)
            continue
        try:
            _recover(left, output)
        except OSError as error:
            _log.warning(
                "%s: an earlier run was killed; what it left, %s, cannot be copied into Parquet and stays: %s",
                output.path,
                path,
                error,
            )
        finally:
            left.close()


def _recover(left: ArrowSpill, output: OutputFile) -> None:
    # Where it was killed while it copied, the copy takes room and holds less.
    left.path.with_suffix(output.path.suffix).unlink(missing_ok=True)
    rows = left.write_parquet(output.temporary)
    if rows:
        target = output.free_name("recovered")
        output.temporary.replace(target)
        _log.warning("%s: an earlier run was killed; its %d embeddings are kept in %s", output.path, rows, target)
    else:
        output.discard()
    if left.unread_bytes <= (_TORN_BYTES if rows else 0):
        left.discard()
        return
    unread_bytes, target = left.unread_bytes, output.free_name("unreadable", left.path.suffix)
    left.keep(target)
    _log.warning(
        "%s: an earlier run was killed; %d bytes that it left cannot be read, and are in %s; delete it if you do not "
        "miss them",
        output.path,
        unread_bytes,
        target,
    )
