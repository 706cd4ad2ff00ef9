"""A gallery file that others enrol into and forget from while it is searched."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from numpy.typing import ArrayLike

from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_file import file_stamp
from hamr_edge.gallery_index import IndexKind
from hamr_edge.gallery_rows import Matches
from hamr_edge.sidecar import Sidecar

_log = logging.getLogger(__name__)


class FollowedGallery:
    """Searches a gallery file as it is now: who is forgotten there is found no more.

    The file is looked at once in ``every_s`` seconds and read again when it was replaced. Where it is gone or cannot be
    read, a warning says so and nobody is found until it is back: who deleted a file of people meant it. To be used from
    one thread.

    Args:
        path: The file.
        sidecar: Of the artifact whose embeddings are searched.
        index: As for :class:`Gallery`; ``hnsw`` would have to be built after each change.
        every_s: Seconds between two looks.

    Raises:
        InputError: The file cannot be read, or its embeddings cannot be compared with the artifact's.
        UnavailableError: The index needs FAISS, which is not installed.
    """

    def __init__(self, path: str | Path, sidecar: Sidecar, index: IndexKind = "exact", every_s: float = 1.0) -> None:
        self.path = Path(path)
        self._sidecar, self._index, self._every_s = sidecar, index, every_s
        self._stamp = file_stamp(self.path)
        self._gallery = Gallery.load(self.path, sidecar, index)
        self._look_at_s = time.monotonic() + every_s

    @property
    def gallery(self) -> Gallery:
        """The gallery as its file has it; empty while there is none to read. Not to be changed."""
        if time.monotonic() >= self._look_at_s:
            stamp = file_stamp(self.path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._gallery = self._read()
            self._look_at_s = time.monotonic() + self._every_s
        return self._gallery

    def search(self, embeddings: ArrayLike, k: int = 1) -> Matches:
        """As :meth:`Gallery.search`."""
        return self.gallery.search(embeddings, k)

    def _read(self) -> Gallery:
        try:
            gallery = Gallery.load(self.path, self._sidecar, self._index)
        except InputError as error:
            _log.warning("nobody has a name from now on: %s", error)
            return Gallery(EmbeddingSpace.of(self._sidecar), self._index)
        _log.warning("gallery %s was changed; it now holds %d people", self.path, len(gallery.people()))
        return gallery
