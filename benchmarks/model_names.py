"""Short names for the models of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path


def short_names(models: Sequence[str | Path]) -> list[str]:
    """File names, with as many folders before them as it takes to tell them apart; equal ones are numbered."""
    paths = [Path(model) for model in models]
    depths = dict.fromkeys(paths, 1)

    def name(path: Path) -> str:
        return Path(*path.parts[-depths[path] :]).as_posix()

    for _ in range(max((len(path.parts) for path in paths), default=0)):
        taken = Counter(map(name, depths))
        for path in depths:
            depths[path] += taken[name(path)] > 1
    return number_equals(map(name, paths))


def number_equals(names: Iterable[str]) -> list[str]:
    """Names of which no two are equal: later ones get a number."""
    unique: list[str] = []
    for name in names:
        number, tried = 1, name
        while tried in unique:
            number += 1
            tried = f"{name} ({number})"
        unique.append(tried)
    return unique
