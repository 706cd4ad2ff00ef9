"""A gallery of known people: enrol, search, forget; kept on disk with the stamp of what made its embeddings."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.errors import InputError
from hamr_edge.gallery_file import Stamp, check_gallery_path, read_gallery, real_path, replace_gallery
from hamr_edge.gallery_index import GalleryIndex, IndexKind
from hamr_edge.gallery_input import (
    check_cameras,
    check_count,
    check_embeddings,
    check_ids,
    check_name,
    check_period,
    check_person_name,
    check_retention,
    check_time,
    check_unix_time,
    normalise_name,
)
from hamr_edge.gallery_rows import GalleryRows, Matches, Person
from hamr_edge.people_search import search_people
from hamr_edge.sidecar import Sidecar

_log = logging.getLogger(__name__)
_LARGE = 100_000
"""Rows from which an index that was never built is worth a warning."""


class Gallery:
    """Known people by name, each with any number of embeddings ("views").

    Every public method may be called from any thread: a lock lets one at a time in, and a search sees all of an
    enrolment or nothing. Saving and building an index hold the lock for as long as they take.

    Forgetting deletes: the gallery's own vectors are overwritten in memory, and the file that is saved next is written
    anew, without them. Until it is saved, the old file holds them. What was copied in passing, when a file was read or
    written, is freed without being overwritten.

    Args:
        space: What makes the embeddings; ``EmbeddingSpace.of(embedder.sidecar)``.
        index: See :class:`hamr_edge.gallery_index.GalleryIndex`: ``exact`` needs numpy only; ``codes`` serves a million
            embeddings in milliseconds; ``hnsw`` cannot let go of a row and does not go with a retention time.
        retention_s: Embeddings seen longer ago are deleted when the gallery is loaded, searched, listed or saved.

    Raises:
        InputError: An argument makes no sense.
        UnavailableError: The index needs FAISS, which is not installed.
    """

    def __init__(self, space: EmbeddingSpace, index: IndexKind = "exact", retention_s: float | None = None) -> None:
        self._lock = threading.RLock()
        self._space, self._spaces = space, [space]
        self._index = GalleryIndex(index, space.embedding_dim)
        self._retention_s = check_retention(retention_s, index)
        self._rows = GalleryRows(space.embedding_dim, self._index)
        self._file: tuple[Path, Stamp | None] | None = None
        self.expired = 0
        """Embeddings deleted so far because their retention time was over."""

    def __len__(self) -> int:
        """Embeddings, not people."""
        with self._lock:
            self._expire()
            return len(self._rows)

    def __contains__(self, name: object) -> bool:
        with self._lock:
            self._expire()
            return isinstance(name, str) and self._rows.number_of(normalise_name(name)) >= 0

    @property
    def space(self) -> EmbeddingSpace:
        """What makes the embeddings that come in now."""
        return self._space

    @property
    def spaces(self) -> tuple[EmbeddingSpace, ...]:
        """Of all embeddings enrolled so far, also of those forgotten since."""
        with self._lock:
            return tuple(self._spaces)

    @property
    def retention_s(self) -> float | None:
        """Seconds after which an embedding is deleted; None: never. Can be set."""
        return self._retention_s

    @retention_s.setter
    def retention_s(self, seconds: float | None) -> None:
        with self._lock:
            self._retention_s = check_retention(seconds, self._index.kind)
            self._expire()

    def enrol(
        self, name: str, embeddings: ArrayLike, camera: str = "", time_s: float | None = None, replace: bool = False
    ) -> NDArray[np.int64]:
        """Add embeddings of a person; a name that is there gets more of them.

        Args:
            name: Printable text.
            embeddings: (K, D), rows of unit L2 norm to 0.001; they are kept as float32, normalised once more.
            camera: Where they were seen.
            time_s: Unix time when they were seen; now when None.
            replace: The person's earlier embeddings are forgotten.

        Returns:
            (K,) int64 numbers of the embeddings, for :meth:`forget_views`.

        Raises:
            InputError: An argument is not as expected; the gallery is as it was.
        """
        with self._lock:
            name = check_person_name(name)
            camera = check_name(camera, "a camera's name") if camera != "" else ""
            seen_s = check_time(time_s, self._retention_s)
            rows = check_embeddings(embeddings, self._space.embedding_dim)
            if replace and not len(rows):
                raise InputError(f"there are no embeddings to replace those of {name!r} by; forget() deletes a person")
            self._expire()
            earlier = self._rows.ids[self._rows.people == self._rows.number_of(name)]
            try:
                ids = self._rows.append(name, rows, camera, seen_s)
            finally:
                rows.fill(0)  # the gallery has a copy of its own
            if self._space not in self._spaces:
                self._spaces.append(self._space)
            if replace:
                self._rows.remove(np.isin(self._rows.ids, earlier))
            return ids

    def search(
        self,
        embeddings: ArrayLike,
        k: int = 1,
        cameras: Iterable[str] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Matches:
        """The k most similar people of each embedding, each by the nearest of their embeddings; nobody twice.

        How similar is similar enough is for the caller to say.

        Args:
            embeddings: (N, D), as :meth:`enrol` takes them.
            k: People an embedding.
            cameras: Only embeddings seen by these; by any when None. An unknown camera has seen nobody.
            since: Only embeddings seen at this Unix time or later.
            until: Only embeddings seen before this Unix time.

        Raises:
            InputError: An argument is not as expected.
        """
        with self._lock:
            k, queries, allowed = self._start_search(embeddings, k, cameras, since, until)
            known = self._rows
            found = search_people(self._index, known.embeddings, known.people, known.people_count, queries, k, allowed)
            return known.matches(*found)

    def search_views(
        self,
        embeddings: ArrayLike,
        k: int = 1,
        cameras: Iterable[str] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Matches:
        """The k most similar enrolled embeddings of each embedding: a person may come several times.

        Arguments and errors as :meth:`search`.
        """
        with self._lock:
            k, queries, allowed = self._start_search(embeddings, k, cameras, since, until)
            return self._rows.matches(*self._index.search(self._rows.embeddings, queries, k, allowed))

    def build_index(self) -> None:
        """Build the graph of the index ``hnsw``, minutes for a million embeddings; the others need no building.

        Later enrolments are added to it. Forgetting anyone deletes it, and the search is exact until it is built again.
        """
        with self._lock:
            self._expire()
            if len(self._rows):
                self._index.build(self._rows.embeddings)

    def rename(self, name: str, new_name: str) -> None:
        """Give a person another name.

        Raises:
            InputError: There is no such person, or the new name is taken: two people are not made one by accident.
        """
        with self._lock:
            self._expire()
            new_name = check_person_name(new_name)
            person = self._known(name)
            if self._rows.number_of(new_name) not in (-1, person):
                raise InputError(f"{new_name!r} is in the gallery already; take another name, or forget that one first")
            self._rows.rename(person, new_name)

    def forget(self, name: str) -> int:
        """Delete a person: name and embeddings.

        Returns:
            How many embeddings were deleted.

        Raises:
            InputError: There is no such person; they may have been forgotten before.
        """
        with self._lock:
            self._expire()
            return self._rows.remove(self._rows.people == self._known(name))

    def find_equal(self, name: str, embeddings: ArrayLike) -> NDArray[np.int64]:
        """Numbers of a person's embeddings that equal one of these to the last bit, as the same picture gives them.

        Args:
            name: Of the person; who is not there has none.
            embeddings: As :meth:`enrol` takes them.

        Raises:
            InputError: An argument is not as expected.
        """
        with self._lock:
            rows, name = check_embeddings(embeddings, self._space.embedding_dim), check_name(name, "a person's name")
            self._expire()
            return self._rows.find_equal(name, rows)

    def forget_views(self, ids: ArrayLike) -> int:
        """Delete embeddings by their numbers, unknown ones left aside; how many. A person left without any goes too.

        Raises:
            InputError: ``ids`` are no integers.
        """
        with self._lock:
            return self._rows.remove(np.isin(self._rows.ids, check_ids(ids)))

    def forget_before(self, time_s: float) -> int:
        """Delete all embeddings seen before a Unix time; how many. A person left without any goes too.

        Raises:
            InputError: It is no such time.
        """
        with self._lock:
            return self._rows.remove_before(check_unix_time(time_s, "the time"))

    def people(self) -> list[Person]:
        """Everybody, by name."""
        with self._lock:
            self._expire()
            return self._rows.list_people()

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the gallery, whole or not at all; embeddings that were forgotten are not in it.

        The file system gives the old file's blocks back without overwriting them, and backups and snapshots are
        others' to clean.

        Args:
            path: The ``.npz`` file to make or replace.
            overwrite: Replace a file that this gallery was not loaded from, or that changed since: what another
                process enrolled is lost, and whom it forgot may come back.

        Raises:
            InputError: It cannot be written there, or it would need ``overwrite``.
        """
        path = check_gallery_path(path)
        with self._lock:
            self._expire()
            known = self._file[1] if self._file is not None and self._file[0] == path else None
            record = self._rows.to_record(tuple(self._spaces), self._retention_s)
            self._file = (path, replace_gallery(path, record, known, overwrite))

    @classmethod
    def load(
        cls,
        path: str | Path,
        sidecar: Sidecar | None = None,
        index: IndexKind = "exact",
        allow_mixed: bool = False,
    ) -> Gallery:
        """Read a gallery, and delete what its retention time is over for; from the file only when it is saved.

        Args:
            path: The file.
            sidecar: Of the artifact whose embeddings will be searched and enrolled; they are taken to be of the space
                that the gallery was started with when None, which is for listing and forgetting.
            index: As for :class:`Gallery`; no index is stored.
            allow_mixed: Accept an artifact of the same checkpoint that is not known to agree with those enrolled.

        Raises:
            InputError: The file cannot be read, or its embeddings cannot be compared with the artifact's.
        """
        path = real_path(path)
        record, stamp = read_gallery(path)
        spaces = list(record.spaces)
        space = spaces[0] if sidecar is None else EmbeddingSpace.of(sidecar)
        if sidecar is not None:  # else nothing new comes in, and what is in was accepted when it came
            for known in spaces:
                known.check_compatible(space, allow_mixed)
        gallery = cls(space, index, record.retention_s)
        gallery._spaces = spaces
        gallery._file = (path, stamp)
        gallery._rows.load(record)
        gallery._expire()
        return gallery

    def _start_search(
        self,
        embeddings: ArrayLike,
        k: int,
        cameras: Iterable[str] | None,
        since: float | None,
        until: float | None,
    ) -> tuple[int, NDArray[np.float32], NDArray[np.bool_] | None]:
        """The checked count and queries, and the rows that may be found; None for all."""
        queries = check_embeddings(embeddings, self._space.embedding_dim)
        k, chosen, (start, end) = check_count(k), check_cameras(cameras), check_period(since, until)
        self._expire()
        if not self._index.is_built and len(self._rows) >= _LARGE:
            _log.warning(
                "the index of %d embeddings is not built: the search is exact and slow; call build_index()",
                len(self._rows),
            )
        return k, queries, self._rows.allowed(chosen, start, end)

    def _known(self, name: str) -> int:
        person = self._rows.number_of(normalise_name(name)) if isinstance(name, str) else -1
        if person < 0:
            raise InputError(f"{name!r} is not in the gallery; 'hamr-edge gallery list' shows who is")
        return person

    def _expire(self) -> None:
        if self._retention_s is not None:
            self.expired += self._rows.remove_before(time.time() - self._retention_s)
