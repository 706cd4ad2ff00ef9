"""How far a run is: with the learner's state, all that ``state.pt`` holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hamr_edge.errors import InputError
from hamr_edge.trainer.checkpoint import CheckpointInfo


@dataclass(slots=True)
class RunState:
    """Where a run goes on. Changed as it goes."""

    info: CheckpointInfo
    dataset_sha256: str
    """Fingerprint of the training files' names."""
    epoch: int = 1
    """Epoch under way; one more than the settings' epochs when all is done."""
    step: int = 0
    """Its next step, from 0. All steps taken and the epoch not over: its evaluation is due."""
    losses: list[list[float]] = field(default_factory=list)
    """Total, ID and metric loss of each of the epoch's steps taken."""
    seconds: float = 0.0
    """Spent on them."""
    waited: float = 0.0
    """Of these, until batches were there."""
    history: list[dict[str, float]] = field(default_factory=list)
    """A row of the log for each whole epoch."""

    @property
    def images_per_s(self) -> float:
        """Speed in the epoch under way."""
        return self.step * self.info.config.batch_size / max(self.seconds, 1e-9)

    def epoch_row(self, learning_rate: float) -> dict[str, float]:
        """The log's row of the epoch under way, without scores."""
        total, identity, metric = np.mean(self.losses, axis=0).tolist()
        return {
            "epoch": self.epoch,
            "loss": total,
            "id_loss": identity,
            "triplet_loss": metric,
            "learning_rate": learning_rate,
            "images_per_s": self.images_per_s,
            "wait_share": self.waited / max(self.seconds, 1e-9),
        }

    def end_epoch(self, row: dict[str, float]) -> None:
        """Log the epoch and go to the next one."""
        self.history.append(row)
        self.epoch, self.step, self.losses, self.seconds, self.waited = self.epoch + 1, 0, [], 0.0, 0.0

    def to_dict(self) -> dict[str, Any]:
        """A dict that ``state.pt`` can hold and :meth:`from_dict` reads."""
        return {
            "info": self.info.to_json(),
            "dataset_sha256": self.dataset_sha256,
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "seconds": self.seconds,
            "waited": self.waited,
            "history": self.history,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunState:
        """The inverse of :meth:`to_dict`; other keys are left alone.

        Raises:
            InputError: The values are not a run's.
        """
        try:
            state = cls(
                CheckpointInfo.from_json(values["info"]),
                str(values["dataset_sha256"]),
                int(values["epoch"]),
                int(values["step"]),
                [[float(loss) for loss in losses] for losses in values["losses"]],
                float(values["seconds"]),
                float(values["waited"]),
                [dict(row) for row in values["history"]],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"its description of the run cannot be read: {error}") from error
        if state.epoch < 1 or state.step != len(state.losses) or state.epoch != len(state.history) + 1:
            raise InputError(
                f"it says epoch {state.epoch}, step {state.step}, but holds {len(state.history)} epochs and "
                f"{len(state.losses)} steps"
            )
        return state
