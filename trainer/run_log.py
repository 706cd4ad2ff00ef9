"""What a run writes about itself: ``log.csv``, which is the record, and TensorBoard's event files, which repeat it."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from types import TracebackType
from typing import Any

from hamr_edge.errors import UnavailableError
from hamr_edge.trainer.checkpoint import write_file

LOG = "log.csv"
EVENTS = "tensorboard"
COLUMNS = (
    "epoch",
    "loss",
    "id_loss",
    "triplet_loss",
    "learning_rate",
    "images_per_s",
    "wait_share",
    "rank1",
    "map",
)
"""Of ``log.csv``, one row an epoch. ``wait_share``: of the time for steps, the part until their batches were there."""


class RunLog:
    """The log of one run; a resumed run goes on in the same files.

    Args:
        run: Folder of the run.
        tensorboard: Write event files too.
        first_epoch: The next epoch to log; TensorBoard forgets what a killed run logged from there on.

    Raises:
        UnavailableError: TensorBoard is asked for and not installed.
    """

    def __init__(self, run: Path, tensorboard: bool = False, first_epoch: int = 1) -> None:
        self._run = run
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UnavailableError(
                    "--tensorboard needs tensorboard; pip install 'hamr-edge[tensorboard]'"
                ) from error
            self._writer = SummaryWriter(str(run / EVENTS), purge_step=first_epoch)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def add(self, row: dict[str, float]) -> None:
        """Send an epoch's row to TensorBoard."""
        if self._writer is None:
            return
        with contextlib.suppress(OSError):  # a full disk: writing the record will say so
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))
            self._writer.flush()

    def write(self, history: list[dict[str, float]]) -> None:
        """Write ``log.csv``: all epochs' rows.

        Raises:
            HamrEdgeError: It cannot be written.
        """
        write_file(self._run / LOG, lambda path: _write_csv(path, history))


def describe(row: dict[str, float], epochs: int) -> str:
    """One line on an epoch for a console."""
    words = (
        f"epoch {row['epoch']}/{epochs}  loss {row['loss']:.3f}  lr {row['learning_rate']:.2e}  "
        f"{row['images_per_s']:.0f} images/s, {100 * row['wait_share']:.1f} % waiting"
    )
    if "rank1" in row:
        words += f"  rank-1 {100 * row['rank1']:.1f}  mAP {100 * row['map']:.1f}"
    return words


def _write_csv(path: Path, history: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(history)
