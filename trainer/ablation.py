"""Running a table of ablations: one run a row, each in its own folder, so that a stopped table goes on where it was."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import InputError
from hamr_edge.trainer.ablation_tables import AblationRow
from hamr_edge.trainer.checkpoint import DESCRIPTION, STATE, CheckpointInfo, load_description
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.loop import resume, train


@dataclass(frozen=True, slots=True)
class RowResult:
    """A finished row."""

    row: AblationRow
    run: Path
    """Folder of its checkpoint."""
    scores: dict[str, Any]
    """As in the checkpoint: rank1, map, ... in 0..1."""

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {"row": self.row.name, "run": str(self.run), "scores": self.scores, "paper_percent": self.row.paper}


def run_folder(output: Path, number: int, row: AblationRow) -> Path:
    """The folder of a row's run, the same in every call; ``number`` counts the table's rows from 1."""
    words = re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")
    return output / f"{number}-{words}"


def run_table(
    rows: dict[int, AblationRow],
    base: TrainConfig,
    dataset: ReidDataset,
    output: Path,
    pretrained: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> Iterator[RowResult]:
    """Train the rows one after another; what is finished is not trained again, what was stopped is resumed.

    Args:
        rows: By their number in the table, from 1.
        base: Settings of the whole method; each row changes its own.
        dataset: Trained on its training split, scored on its query and gallery.
        output: Folder of the runs.
        pretrained: First weights of every run's backbone.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        quiet: No progress.

    Yields:
        Each row as it is finished.

    Raises:
        InputError: A row's settings are impossible, or its folder holds a run with other settings: both are found
            before the first row is trained.
        TrainingStopped: After Ctrl-C; the next call goes on.
    """
    runs = {number: run_folder(output, number, row) for number, row in rows.items()}
    settings = {number: _row_settings(row, base) for number, row in rows.items()}
    found = {number: _found(runs[number], settings[number], dataset, pretrained) for number in rows}
    for number, row in rows.items():
        run, info = runs[number], found[number]
        if info is None or info.epoch < info.config.epochs or info.scores.get("epoch") != info.config.epochs:
            if (run / STATE).exists():
                info = resume(dataset, run, device, quiet)
            else:
                info = train(settings[number], dataset, run, pretrained, device, quiet)
        yield RowResult(row, run, info.scores)


def _row_settings(row: AblationRow, base: TrainConfig) -> TrainConfig:
    try:
        return row.settings(base)
    except InputError as error:
        raise InputError(f"row {row.name!r} cannot be built on these settings: {error}") from error


def _found(run: Path, settings: TrainConfig, dataset: ReidDataset, pretrained: str | None) -> CheckpointInfo | None:
    """What an earlier call left of a row; None where it left nothing."""
    if not (run / DESCRIPTION).exists():
        return None
    info, _ = load_description(run)
    asked = (settings, dataset.name, "" if pretrained is None else Path(pretrained).name)
    for name, ours, theirs in zip(
        ("settings", "data set", "first weights"), asked, (info.config, info.dataset, info.pretrained), strict=True
    ):
        if ours != theirs:
            raise InputError(f"{run} holds a run with other {name} ({_difference(theirs, ours)}); name another -o")
    return info


def _difference(theirs: object, ours: object) -> str:
    if not isinstance(theirs, TrainConfig) or not isinstance(ours, TrainConfig):
        return f"{theirs or 'none'} instead of {ours or 'none'}"
    left, right = (_flat(config.to_json()) for config in (theirs, ours))
    return ", ".join(f"{name} {left[name]} instead of {right[name]}" for name in left if left[name] != right[name])


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings.pop("network"), **settings}
