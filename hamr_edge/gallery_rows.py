"""What a gallery knows of each embedding, side by side: the vector, whose it is, where and when it was seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.gallery_index import GalleryIndex
from hamr_edge.gallery_record import GalleryRecord
from hamr_edge.growing_array import GrowingArray


@dataclass(frozen=True, slots=True)
class Matches:
    """What was found for each of N embeddings, most similar first; K places each."""

    names: NDArray[np.object_]
    """(N, K) str; ``""`` where there is nobody more."""
    similarity: NDArray[np.float32]
    """(N, K) cosine; -inf where there is nobody more."""
    ids: NDArray[np.int64]
    """(N, K) numbers of the enrolled embeddings; -1 where there is nobody more."""
    cameras: NDArray[np.object_]
    """(N, K) str, where that embedding was seen."""
    times_s: NDArray[np.float64]
    """(N, K) Unix time when that embedding was seen; NaN where there is nobody more."""


@dataclass(frozen=True, slots=True)
class Person:
    """One line of a gallery's list."""

    name: str
    views: int
    """Embeddings."""
    cameras: tuple[str, ...]
    first_time_s: float
    """Unix time of the embedding seen first."""
    last_time_s: float


class GalleryRows:
    """Columns of one length, one row an embedding, the names that some of them point to, and an index that keeps step.

    Args:
        dim: Values of an embedding.
        index: Is told of every change.
    """

    def __init__(self, dim: int, index: GalleryIndex) -> None:
        self.index = index
        self._embeddings = GrowingArray((dim,), np.float32)
        self._ids = GrowingArray((), np.int64)
        self._people = GrowingArray((), np.int32)
        self._cameras = GrowingArray((), np.int32)
        self._times_s = GrowingArray((), np.float64)
        self._columns = (self._embeddings, self._ids, self._people, self._cameras, self._times_s)
        self._oldest_s: float | None = None
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._views: dict[int, int] = {}
        self._camera_names: list[str] = []
        self._next_id = self._next_number = 0

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(N, D): a view, good until the next change."""
        return self._embeddings.rows

    @property
    def ids(self) -> NDArray[np.int64]:
        """(N,) numbers that are never given twice."""
        return self._ids.rows

    @property
    def people(self) -> NDArray[np.int32]:
        """(N,) numbers of people."""
        return self._people.rows

    @property
    def people_count(self) -> int:
        """How many people there are."""
        return len(self._views)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """(N,) Unix time."""
        return self._times_s.rows

    @property
    def oldest_s(self) -> float:
        """Unix time of the embedding seen first; infinite without any."""
        if self._oldest_s is None:
            self._oldest_s = float(self.times_s.min(initial=np.inf))
        return self._oldest_s

    def number_of(self, name: str) -> int:
        """A person's number, -1 where nobody has that name."""
        return self._numbers.get(name, -1)

    def append(self, name: str, embeddings: NDArray[np.float32], camera: str, time_s: float) -> NDArray[np.int64]:
        """Add embeddings of a person, all or none; their ids."""
        before = len(self)
        try:
            ids = self._append(name, embeddings, camera, time_s)
            self.index.add(embeddings)
        except BaseException:  # memory is short, or it was Ctrl-C: columns of several lengths would mix people up
            self._truncate(before)
            raise
        return ids

    def _append(self, name: str, embeddings: NDArray[np.float32], camera: str, time_s: float) -> NDArray[np.int64]:
        count = len(embeddings)
        if not count:
            return np.empty(0, np.int64)
        if name not in self._numbers:
            self._names[self._next_number], self._numbers[name] = name, self._next_number
            self._next_number += 1
        if camera not in self._camera_names:
            self._camera_names.append(camera)
        ids = np.arange(self._next_id, self._next_id + count)
        self._next_id += count
        self._oldest_s = min(self.oldest_s, time_s)
        number = self._numbers[name]
        self._views[number] = self._views.get(number, 0) + count
        self._embeddings.append(embeddings)
        self._ids.append(ids)
        self._people.append(np.full(count, number, np.int32))
        self._cameras.append(np.full(count, self._camera_names.index(camera), np.int32))
        self._times_s.append(np.full(count, time_s))
        return ids

    def remove(self, is_removed: NDArray[np.bool_]) -> int:
        """Delete the rows that are marked, wherever they lie, and the people who are left without any; how many rows.

        The others change their order.
        """
        places = np.flatnonzero(is_removed)
        if not len(places):
            return 0
        numbers, views = np.unique(self.people[places], return_counts=True)
        left = len(self) - len(places)
        try:
            self._take_out(places, left)
            for number, removed in zip(numbers.tolist(), views.tolist(), strict=True):
                self._views[number] -= removed
                if not self._views[number]:
                    del self._numbers[self._names.pop(number)], self._views[number]
        except BaseException:  # as in append: all columns or none
            self._take_out(places, left)
            self._forget_names()
            raise
        return len(places)

    def _take_out(self, places: NDArray[np.int64], left: int) -> None:
        self._oldest_s = None
        for column in (self.index, *self._columns):
            column.remove(places, left)

    def remove_before(self, time_s: float) -> int:
        """Delete the rows seen before a Unix time; how many."""
        return self.remove(self.times_s < time_s) if self.oldest_s < time_s else 0

    def find_equal(self, name: str, embeddings: NDArray[np.float32]) -> NDArray[np.int64]:
        """Ids of a person's rows that equal one of these to the last bit."""
        given = {row.tobytes() for row in embeddings}
        own = np.flatnonzero(self.people == self.number_of(name))
        return self.ids[[place for place in own.tolist() if self.embeddings[place].tobytes() in given]]

    def _truncate(self, count: int) -> None:
        for column in (self.index, *self._columns):
            column.truncate(count)
        self._oldest_s = None
        self._forget_names()

    def _forget_names(self) -> None:
        """Let go of the names that no row points to."""
        self._count_views()
        self._names = {number: name for number, name in self._names.items() if number in self._views}
        self._numbers = {name: number for number, name in self._names.items()}

    def _count_views(self) -> None:
        numbers, views = np.unique(self.people, return_counts=True)
        self._views = dict(zip(numbers.tolist(), views.tolist(), strict=True))

    def rename(self, number: int, name: str) -> None:
        """Give a person another name, which nobody else has."""
        del self._numbers[self._names[number]]
        self._names[number], self._numbers[name] = name, number

    def allowed(
        self, cameras: Collection[str] | None, since: float | None, until: float | None
    ) -> NDArray[np.bool_] | None:
        """The rows that filters leave, (N,); None for all."""
        chosen = []
        if cameras is not None:
            places = [place for place, name in enumerate(self._camera_names) if name in cameras]
            chosen.append(np.isin(self._cameras.rows, places))
        if since is not None:
            chosen.append(self._times_s.rows >= since)
        if until is not None:
            chosen.append(self._times_s.rows < until)
        return np.logical_and.reduce(chosen) if chosen else None

    def matches(self, rows: NDArray[np.int64], similarity: NDArray[np.float32]) -> Matches:
        """What is known of rows that a search found, -1 for none."""
        names, cameras = np.full(rows.shape, "", np.object_), np.full(rows.shape, "", np.object_)
        ids, times_s = np.full(rows.shape, -1, np.int64), np.full(rows.shape, np.nan)
        real = rows >= 0
        found = rows[real]
        names[real] = [self._names[number] for number in self._people.rows[found].tolist()]
        cameras[real] = [self._camera_names[place] for place in self._cameras.rows[found].tolist()]
        ids[real], times_s[real] = self._ids.rows[found], self._times_s.rows[found]
        return Matches(names, similarity, ids, cameras, times_s)

    def list_people(self) -> list[Person]:
        """Everybody, by name."""
        order = np.argsort(self._people.rows, kind="stable")
        numbers, starts = np.unique(self._people.rows[order], return_index=True)
        people = []
        for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=False):
            cameras = {self._camera_names[place] for place in np.unique(self._cameras.rows[rows]).tolist()}
            times_s = self._times_s.rows[rows]
            people.append(
                Person(
                    self._names[number],
                    len(rows),
                    tuple(sorted(cameras - {""})),
                    float(times_s.min()),
                    float(times_s.max()),
                )
            )
        return sorted(people, key=lambda person: person.name)

    def load(self, record: GalleryRecord) -> None:
        """Take over what a file held, arrays and all, in place of no rows."""
        self._names, self._next_number = dict(enumerate(record.names)), len(record.names)
        self._numbers = {name: number for number, name in self._names.items()}
        self._camera_names, self._next_id = list(record.cameras), record.next_id
        self._embeddings.adopt(record.embeddings)
        self._ids.adopt(record.ids)
        self._people.adopt(record.people)
        self._cameras.adopt(record.camera_places)
        self._times_s.adopt(record.times_s)
        self.index.add(self.embeddings)
        self._oldest_s = None
        self._count_views()

    def to_record(self, spaces: tuple[EmbeddingSpace, ...], retention_s: float | None) -> GalleryRecord:
        """What a file shall hold: no name that no row points to."""
        numbers, people = np.unique(self._people.rows, return_inverse=True)
        used, cameras = np.unique(self._cameras.rows, return_inverse=True)
        return GalleryRecord(
            spaces=spaces,
            names=tuple(self._names[number] for number in numbers.tolist()),
            cameras=tuple(self._camera_names[place] for place in used.tolist()),
            next_id=self._next_id,
            retention_s=retention_s,
            embeddings=self._embeddings.rows,
            ids=self._ids.rows,
            people=people.astype(np.int32),
            camera_places=cameras.astype(np.int32),
            times_s=self._times_s.rows,
        )
