"""Small galleries for tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hamr_edge.embedding_space import EmbeddingSpace
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_index import IndexKind

DIM = 16
SPACE = EmbeddingSpace("c" * 64, "a" * 64, DIM, (32, 16), "fp32", 1.0)


def unit_rows(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def crowd(people: int, views: int, index: IndexKind = "exact", seed: int = 0) -> tuple[Gallery, np.ndarray]:
    """A gallery of "p0", "p1" and so on, seen by "north" and "south" in turn, a second apart; and all embeddings."""
    gallery, rows = Gallery(SPACE, index), unit_rows(people * views, seed)
    for person in range(people):
        for view in range(views):
            row = person * views + view
            gallery.enrol(f"p{person}", rows[row][None], ("north", "south")[view % 2], time_s=1000.0 + row)
    return gallery, rows


def read_members(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def change_member(path: Path, member: str, change: object) -> None:
    members = read_members(path)
    if member == "header":
        header = json.loads(members["header"].tobytes())
        members["header"] = np.frombuffer(json.dumps({**header, **change}).encode(), np.uint8)  # type: ignore[dict-item]
    else:
        members[member] = change(members[member])  # type: ignore[operator]
    np.savez(path, **members)  # type: ignore[arg-type]
