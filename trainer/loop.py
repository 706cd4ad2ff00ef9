"""The training loop: settings, data, network, then epochs, read top to bottom."""

from __future__ import annotations

import logging
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hamr_edge import __version__
from hamr_edge.atomic import make_folder
from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import InputError
from hamr_edge.evaluation import can_be_scored, evaluate
from hamr_edge.progress import progress_bar
from hamr_edge.ranking import RetrievalScores
from hamr_edge.stop_request import StopRequest
from hamr_edge.trainer.bad_batch import refuse_loss
from hamr_edge.trainer.batches import BatchMaker
from hamr_edge.trainer.checkpoint import (
    DESCRIPTION,
    STATE,
    CheckpointInfo,
    load_state,
    save_checkpoint,
    save_state,
    usable_state,
)
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.datasets import load_training_images
from hamr_edge.trainer.distributed import any_process, check_equal, is_first, on_first, own_device, own_rows, together
from hamr_edge.trainer.host_copy import HostCopy
from hamr_edge.trainer.image_names import fingerprint, list_names, short_names
from hamr_edge.trainer.learner import Learner
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.pretrained import load_pretrained
from hamr_edge.trainer.run_log import RunLog, describe
from hamr_edge.trainer.run_state import RunState
from hamr_edge.trainer.sampler import epoch_batches
from hamr_edge.trainer.schedule import learning_rate
from hamr_edge.trainer.torch_backend import TorchBackend

_log = logging.getLogger(__name__)


class TrainingStopped(Exception):  # noqa: N818 - an event, not an error
    """Ctrl-C: training stopped after a whole step and its state is saved."""


def train(
    config: TrainConfig,
    dataset: ReidDataset,
    run: Path,
    pretrained: str | None = None,
    device: str = "auto",
    quiet: bool = False,
    tensorboard: bool = False,
    save_minutes: float = 10.0,
) -> CheckpointInfo:
    """Train a network and leave a checkpoint in ``run``.

    All randomness is a function of the seed, the epoch and the step, so a resumed run goes on as an unbroken one would.
    With several processes (:mod:`hamr_edge.trainer.distributed`) each calls this; the first one writes.

    Args:
        config: What to train and how.
        dataset: Trained on its training split, scored on its query and gallery.
        run: Folder of the checkpoint.
        pretrained: First weights of the backbone; see :func:`hamr_edge.trainer.pretrained.load_pretrained`.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        quiet: No progress.
        tensorboard: Write TensorBoard's event files beside ``log.csv``.
        save_minutes: Save in mid-epoch too, that often; 0: at the ends of epochs only.

    Raises:
        InputError: The data set does not fit the settings, or ``run`` holds a run already.
        UnavailableError: The device or a library asked for is not there.
        TrainingStopped: After Ctrl-C.
        HamrEdgeError: The loss or a weight is not finite, or the disk is full; the last checkpoint stays as it is.
    """
    with together():
        if (run / DESCRIPTION).exists() or (run / STATE).exists():
            raise InputError(f"{run} holds a run already; go on with --resume, or name another folder with -o")
        torch.manual_seed(config.seed)
        network = Hamr(config.network, len(np.unique(dataset.train.identities)))
    source = ""
    if pretrained is not None:
        on_first(lambda: load_pretrained(network.backbone, config.network.backbone, pretrained))
        source = Path(pretrained).name
    info = CheckpointInfo(config, network.classes, dataset.name, pretrained=source, versions=_versions())
    state = RunState(info, fingerprint(dataset.train.paths))
    return _Training(state, network, dataset, run, device, quiet, tensorboard, save_minutes).fit()


def resume(
    dataset: ReidDataset,
    run: Path,
    device: str = "auto",
    quiet: bool = False,
    tensorboard: bool = False,
    save_minutes: float = 10.0,
) -> CheckpointInfo:
    """Go on with the run in a folder, with its own settings, on any number of processes; see :func:`train`.

    Raises:
        InputError: There is no state to resume from, or ``dataset`` is not the one it was trained on.
    """
    learned = on_first(lambda: load_state(run))
    with together():
        with usable_state(run):
            state = RunState.from_dict(learned)
        if fingerprint(dataset.train.paths) != state.dataset_sha256:
            raise InputError(
                f"{run} was trained on other images than {dataset.name}'s (its data set was {state.info.dataset}, "
                f"{state.info.classes} identities); name that one, or start a new run with another -o"
            )
        network = Hamr(state.info.config.network, state.info.classes)
    return _Training(state, network, dataset, run, device, quiet, tensorboard, save_minutes, learned).fit()


class _Training:
    """A run under way: what new and resumed ones have in common. All is checked before the long work begins."""

    def __init__(
        self,
        state: RunState,
        network: Hamr,
        dataset: ReidDataset,
        run: Path,
        device: str,
        quiet: bool,
        tensorboard: bool,
        save_minutes: float,
        learned: dict[str, Any] | None = None,
    ) -> None:
        self._state, self._dataset, self._run = state, dataset, run
        self._config = config = state.info.config
        self._quiet = quiet or not is_first()
        self._save_seconds = 60 * save_minutes if save_minutes else math.inf
        with together():
            self._device = own_device(device)
            own_rows(config.batch_size)
            self._batches(dataset.train.identities, epoch=1)
            if config.eval_every and not can_be_scored(dataset.query, dataset.gallery):
                raise InputError(
                    f"no query of {dataset.name} has a gallery image of its identity from another camera: nothing can "
                    "be scored; mend its query and gallery, or train with --eval-every 0"
                )
            self._learner = Learner(network, config, self._device)
            if learned is not None:
                with usable_state(run):
                    self._learner.load_state_dict(learned)
            if is_first():
                make_folder(run, "run folder")
            self._log = RunLog(run, tensorboard and is_first(), state.epoch)
        with together():
            size_hw = config.network.input_size_hw
            self._data = load_training_images(dataset.train, size_hw, self._quiet, config.skip_bad)
            self._check_skipped(resumed=learned is not None)
            self._maker = BatchMaker(self._data, config, self._device)
        check_equal(fingerprint(self._data.paths), "training images")
        self._saved_at = time.monotonic()
        if learned is not None:
            self._save()  # what a crash may have left of another moment

    def fit(self) -> CheckpointInfo:
        """Train to the end, or until Ctrl-C."""
        state, config = self._state, self._config
        with self._log, progress_bar(self._quiet) as progress, StopRequest() as stop:
            task = progress.add_task(f"epoch {state.epoch}/{config.epochs}", total=None, note="")
            for epoch in range(state.epoch, config.epochs + 1):
                batches = self._batches(self._data.labels, epoch)
                progress.update(task, description=f"epoch {epoch}/{config.epochs}", total=len(batches) * config.epochs)
                progress.update(task, completed=(epoch - 1) * len(batches) + state.step)
                self._take_steps(batches, stop, lambda note: progress.update(task, advance=1, note=note))
                state.info = replace(state.info, epoch=epoch)
                row = state.epoch_row(learning_rate(config, epoch, (len(batches) - 1) / len(batches)))
                if config.eval_every and (epoch % config.eval_every == 0 or epoch == config.epochs):
                    self._save()  # whatever becomes of the evaluation
                    self._leave_if_stopped(stop, f"stopped before the evaluation after epoch {epoch}")
                    scores = on_first(self._evaluate)
                    state.info = replace(state.info, scores={**asdict(scores), "epoch": epoch})
                    row.update(rank1=scores.rank1, map=scores.map)
                state.end_epoch(row)
                self._log.add(row)
                if not self._quiet:
                    progress.console.print(describe(row, config.epochs))
                self._save()
                if epoch < config.epochs:
                    self._leave_if_stopped(stop, f"stopped after epoch {epoch} of {config.epochs}")
        return state.info

    def _take_steps(self, batches: list[NDArray[np.int64]], stop: StopRequest, show: Callable[[str], None]) -> None:
        """Take the steps that are left of an epoch. A step's loss is read when the next step is under way."""
        state, unread = self._state, None
        self._learner.network.train()
        for step in range(state.step, len(batches)):
            begun = time.perf_counter()
            batch = self._maker.make(batches[step], state.epoch, step)
            state.waited += time.perf_counter() - begun
            rate = learning_rate(self._config, state.epoch, step / len(batches))
            loss = self._learner.step(batch, rate)
            state.step = step + 1
            self._read(unread, batches)
            unread = loss
            state.seconds += time.perf_counter() - begun
            last = f"loss {state.losses[-1][0]:.3f}  " if state.losses else ""
            show(f"{last}lr {rate:.2e}  {state.images_per_s:.0f} images/s")
            due = is_first() and time.monotonic() > self._saved_at + self._save_seconds
            stopped, due = any_process(stop.requested, due)
            if (stopped or due) and state.step < len(batches):
                self._read(unread, batches)
                unread = None
                self._save()
                if stopped:
                    raise TrainingStopped(f"stopped in epoch {state.epoch} after step {step + 1} of {len(batches)}")
        self._read(unread, batches)

    def _read(self, loss: HostCopy | None, batches: list[NDArray[np.int64]]) -> None:
        """Keep a step's losses, or stop at the first that is not finite; the weights it spoilt are not saved."""
        if loss is None:
            return
        losses = self._state.losses
        losses.append(loss.read())
        if not all(map(math.isfinite, losses[-1])):
            step = len(losses)
            batch, before = (
                short_names([self._data.paths[row] for rows in batches[first:last] for row in rows])
                for first, last in ((step - 1, step), (max(0, step - 2), step - 1))
            )
            on_first(lambda: refuse_loss(self._run, self._state.epoch, step, losses[-1], batch, before))

    def _evaluate(self) -> RetrievalScores:
        with TorchBackend.of_network(self._learner.best, self._device) as backend:
            return evaluate(backend, self._dataset, quiet=True)

    def _save(self) -> None:
        """Save so that a resumed run goes on here; state first: a crash after it leaves what --resume needs."""

        def write() -> None:
            self._learner.check_finite()
            save_state(self._run, {**self._state.to_dict(), **self._learner.state_dict()})
            save_checkpoint(self._run, self._learner.best, self._state.info)
            self._log.write(self._state.history)

        on_first(write)
        self._saved_at = time.monotonic()

    def _leave_if_stopped(self, stop: StopRequest, words: str) -> None:
        if any_process(stop.requested)[0]:
            raise TrainingStopped(words)

    def _batches(self, labels: NDArray[np.int64], epoch: int) -> list[NDArray[np.int64]]:
        config = self._config
        return epoch_batches(labels, config.ids_per_batch, config.images_per_id, config.seed, epoch)

    def _check_skipped(self, resumed: bool) -> None:
        """Say what was left out; the same must be left out of a resumed run."""
        info, names = self._state.info, short_names(self._data.skipped)
        if names:
            self._batches(self._data.labels, epoch=1)
            if is_first():
                _log.warning("left out %s, which cannot be decoded", list_names(names))
        if resumed and names != info.skipped:
            raise InputError(
                f"{self._run} was trained without {list_names(info.skipped)}; now {list_names(names)} cannot be "
                "decoded; put the images back as they were, or start a new run with another -o"
            )
        self._state.info = replace(info, skipped=names)


def _versions() -> dict[str, str]:
    return {"hamr-edge": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
