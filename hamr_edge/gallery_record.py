"""What a gallery file holds, as named arrays, and every check of it: on reading, and before anything is written."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.gallery_input import check_name, find_no_unit_row

_log = logging.getLogger(__name__)
SCHEMA = 1
_HEADER = "header"
MEMBERS = (_HEADER, "embeddings", "ids", "people", "cameras", "times_s")
_LAST_ID = 1 << 62
_YEAR_10000_S = 253_402_300_800.0


@dataclass(frozen=True, slots=True)
class GalleryRecord:
    """All that a gallery file holds. The arrays have one row an embedding."""

    spaces: tuple[EmbeddingSpace, ...]
    """What made the embeddings; the first is the one that the gallery was started with."""
    names: tuple[str, ...]
    """Of the people."""
    cameras: tuple[str, ...]
    next_id: int
    """Number of the next embedding; numbers are never given twice."""
    retention_s: float | None
    embeddings: NDArray[np.float32]
    """(N, D) float32, rows of unit norm."""
    ids: NDArray[np.int64]
    people: NDArray[np.int32]
    """(N,) places in ``names``."""
    camera_places: NDArray[np.int32]
    """(N,) places in ``cameras``."""
    times_s: NDArray[np.float64]
    """(N,) Unix time."""

    def to_members(self) -> dict[str, NDArray[Any]]:
        """As the file has it: the arrays themselves, and a header of JSON in bytes."""
        header = {
            "schema": SCHEMA,
            "spaces": [space.to_json() for space in self.spaces],
            "names": self.names,
            "cameras": self.cameras,
            "next_id": self.next_id,
            "retention_s": self.retention_s,
        }
        return {
            _HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8),
            "embeddings": self.embeddings,
            "ids": self.ids,
            "people": self.people,
            "cameras": self.camera_places,
            "times_s": self.times_s,
        }

    @classmethod
    def from_members(cls, members: Mapping[str, NDArray[Any]]) -> GalleryRecord:
        """Read what :meth:`to_members` made and check all of it; the arrays are not copied.

        Raises:
            Exception: Of any kind, where it is not as expected; ``ValueError`` for what is foreseen.
        """
        header = json.loads(members[_HEADER].tobytes().decode())
        if header["schema"] != SCHEMA:
            raise ValueError(f"schema {header['schema']!r}, this version reads {SCHEMA}")
        spaces = tuple(EmbeddingSpace.from_json(space) for space in header["spaces"])
        if not spaces:
            raise ValueError("its header says nothing of what made the embeddings")
        _check_arrays(members, spaces[0].embedding_dim)
        names = [check_name(name, "a person's name") for name in header["names"]]
        cameras = [check_name(name, "a camera's name") if name != "" else "" for name in header["cameras"]]
        _check_places(members["people"], header["names"], "people")
        _check_places(members["cameras"], header["cameras"], "cameras")
        return cls(
            spaces=spaces,
            names=tuple(dict.fromkeys(names)),
            cameras=tuple(dict.fromkeys(cameras)),
            next_id=_check_ids(header["next_id"], members["ids"]),
            retention_s=_check_retention(header["retention_s"]),
            embeddings=members["embeddings"],
            ids=members["ids"],
            people=_merge_spellings(names, members["people"]),
            camera_places=_merge_spellings(cameras, members["cameras"]),
            times_s=members["times_s"],
        )


def _check_arrays(members: Mapping[str, NDArray[Any]], dim: int) -> None:
    count = len(members["ids"])
    wanted = {
        "embeddings": ((count, dim), np.float32),
        "ids": ((count,), np.int64),
        "people": ((count,), np.int32),
        "cameras": ((count,), np.int32),
        "times_s": ((count,), np.float64),
    }
    for name, (shape, dtype) in wanted.items():
        if members[name].shape != shape or members[name].dtype != dtype:
            raise ValueError(
                f"{name} must be {np.dtype(dtype)} {shape}, got {members[name].dtype} {members[name].shape}"
            )
    wrong = find_no_unit_row(members["embeddings"])
    if wrong is not None:
        raise ValueError(
            f"embeddings has rows that are not finite or not of unit norm, row {wrong[0]} has {wrong[1]:g}"
        )
    times_s = members["times_s"]
    if count and not (times_s.min() >= 0 and times_s.max() < _YEAR_10000_S):  # written so that NaN is wrong too
        raise ValueError("times_s has values that are not finite or no Unix seconds")


def _check_places(places: NDArray[np.int32], known: list[str], what: str) -> None:
    if len(places) and not (places.min() >= 0 and places.max() < len(known)):
        raise ValueError(f"{what} names places outside its list of {len(known)}")
    if len(set(known)) < len(known):
        raise ValueError(f"{what} has a name twice in its list")


def _check_ids(next_id: object, ids: NDArray[np.int64]) -> int:
    if not isinstance(next_id, int) or not 0 <= next_id <= _LAST_ID:
        raise ValueError(f"the next id must be a number up to {_LAST_ID}, got {next_id!r}")
    if len(np.unique(ids)) != len(ids) or (len(ids) and not (ids.min() >= 0 and ids.max() < next_id)):
        raise ValueError("ids are given twice, or are to be given again")
    return next_id


def _check_retention(retention_s: object) -> float | None:
    if retention_s is None:
        return None
    if not isinstance(retention_s, int | float) or not (math.isfinite(retention_s) and retention_s > 0):
        raise ValueError(f"the retention time must be more than 0 seconds, got {retention_s!r}")
    return float(retention_s)


def _merge_spellings(names: list[str], places: NDArray[np.int32]) -> NDArray[np.int32]:
    """Places in the list of names that has each only once: earlier files hold one name in several spellings."""
    merged = {name: place for place, name in enumerate(dict.fromkeys(names))}
    if len(merged) == len(names):
        return places
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    _log.warning("%s: stored in several spellings that look the same, which are one now", ", ".join(map(repr, twice)))
    return np.array([merged[name] for name in names], np.int32)[places]
