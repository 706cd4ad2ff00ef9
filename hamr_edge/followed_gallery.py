"""A gallery file that others enrol into and forget from while it is searched."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from numpy.typing import ArrayLike

from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_index import IndexKind
from hamr_edge.gallery_rows import Matches
from hamr_edge.sidecar import Sidecar

_log = logging.getLogger(__name__)


class FollowedGallery:
    """Searches a gallery file as it is now: who is forgotten there is found no more.

    The file is looked at once in ``every_s`` seconds and read again when it was replaced, or who may read it changed.
    Where it is gone or cannot be read, a warning says so and nobody is found until it is back: who deleted a file of
    people meant it. It is tried again at every look. To be used from one thread.

    Args:
        path: The file.
        sidecar: Of the artifact whose embeddings are searched.
        index: As for :class:`Gallery`; ``hnsw`` would have to be built after each change.
        every_s: Seconds between two looks.
        allow_mixed: As for :meth:`Gallery.load`.

    Raises:
        InputError: The file cannot be read, or its embeddings cannot be compared with the artifact's.
        UnavailableError: The index needs FAISS, which is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        sidecar: Sidecar,
        index: IndexKind = "exact",
        every_s: float = 1.0,
        allow_mixed: bool = False,
    ) -> None:
        self.path = Path(path)
        self._sidecar, self._index, self._every_s, self._allow_mixed = sidecar, index, every_s, allow_mixed
        self._stamp = self._look()
        self._gallery = self._load()
        self._trouble: str | None = None
        self._look_at_s = time.monotonic() + every_s

    @property
    def gallery(self) -> Gallery:
        """The gallery as its file has it; empty while there is none to read. Not to be changed."""
        if time.monotonic() >= self._look_at_s:
            stamp = self._look()
            if stamp != self._stamp or self._trouble is not None:
                self._stamp = stamp
                self._read()
            self._look_at_s = time.monotonic() + self._every_s
        return self._gallery

    def search(self, embeddings: ArrayLike, k: int = 1) -> Matches:
        """As :meth:`Gallery.search`."""
        return self.gallery.search(embeddings, k)

    def _look(self) -> tuple[int, ...] | None:
        """What changes when the file is replaced, or its owner or permissions are; None without a file to be seen."""
        try:
            facts = self.path.stat()
        except (OSError, ValueError):  # a folder that may not be entered, or a path that is none
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size, facts.st_ctime_ns

    def _load(self) -> Gallery:
        return Gallery.load(self.path, self._sidecar, self._index, self._allow_mixed)

    def _read(self) -> None:
        try:
            self._gallery = self._load()
        except (InputError, OSError) as error:
            if self._trouble != str(error):
                _log.warning("nobody has a name from now on: %s", error)
            if self._trouble is None:
                self._gallery = Gallery(EmbeddingSpace.of(self._sidecar), self._index)
            self._trouble = str(error)
            return
        self._trouble = None
        _log.warning("gallery %s was changed; it now holds %d people", self.path, len(self._gallery.people()))
