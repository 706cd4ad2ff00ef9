"""A result that is written over a long time: under a temporary name, then published, or kept as what it is, a part."""

from __future__ import annotations

from pathlib import Path

from hamr_edge.atomic import check_target, find_leftovers, temporary_name
from hamr_edge.errors import InputError
from hamr_edge.text_file import to_writable


class OutputFile:
    """Where a long-running writer writes. Its checks come before the long work.

    Attributes:
        path: The name under which readers find the finished file.
        temporary: The name to write under, beside it; hidden.
        partial: The name of what was written when an error cut the work short: ``NAME.partial.SUFFIX``, and
            ``NAME.partial-2.SUFFIX`` where an earlier part has that.

    Args:
        path: The file to make or replace.
        suffix: What ``path`` must end in, with the dot.

    Raises:
        InputError: Wrong suffix, a name that is not UTF-8 (OpenCV dies of one), or the folder is missing or cannot be
            written to.
    """

    def __init__(self, path: str | Path, suffix: str) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != suffix:
            raise InputError(f"output {path} must end in {suffix}")
        if to_writable(str(path)) != str(path):
            raise InputError(f"output {to_writable(str(path))} must have a name in UTF-8; rename it or its folder")
        check_target(self.path, "output")
        self.temporary = temporary_name(self.path)
        self.partial = self.free_name("partial")

    def publish(self) -> None:
        """Give the finished file its name; an older one is replaced."""
        self.temporary.replace(self.path)

    def keep_partial(self) -> None:
        """Keep what was written as ``partial``; ``path`` stays as it was, and so does an earlier part."""
        self.partial = self.free_name("partial")
        self.temporary.replace(self.partial)

    def discard(self) -> None:
        """Delete what was written."""
        self.temporary.unlink(missing_ok=True)

    def free_name(self, tag: str, suffix: str | None = None) -> Path:
        """``NAME.TAG.SUFFIX``, or the first of ``NAME.TAG-2.SUFFIX`` and so on that is free."""
        suffix = suffix or self.path.suffix
        name, count = self.path.with_name(f"{self.path.stem}.{tag}{suffix}"), 1
        while name.exists():
            count += 1
            name = self.path.with_name(f"{self.path.stem}.{tag}-{count}{suffix}")
        return name

    def left_behind(self, suffix: str) -> list[Path]:
        """Temporary files of other processes for ``path`` that end in ``suffix``, killed or running."""
        return find_leftovers(self.path.with_suffix(suffix))
