"""Checkpoints: a folder with ``weights.safetensors``, ``checkpoint.json`` and, while training, ``state.pt``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from hamr_edge.atomic import replace_file
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.sidecar import hash_file
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.network import Hamr

WEIGHTS = "weights.safetensors"
DESCRIPTION = "checkpoint.json"
STATE = "state.pt"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What ``checkpoint.json`` says."""

    config: TrainConfig
    classes: int
    """Training identities; the width of the ID logits."""
    dataset: str
    """Name of the training set."""
    epoch: int = 0
    """Whole epochs trained."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Retrieval scores at the last evaluation, shares in 0..1, and the epoch they were taken at."""
    pretrained: str = ""
    """Where the backbone's first weights came from."""
    versions: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    """Names of the training images that could not be decoded and were left out."""

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold and :meth:`from_json` reads."""
        return {**asdict(self), "config": self.config.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> CheckpointInfo:
        """The inverse of :meth:`to_json`."""
        info = cls(**{**values, "config": TrainConfig.from_json(values["config"])})
        if not isinstance(info.classes, int) or not isinstance(info.epoch, int):
            raise ValueError(f"classes and epoch must be whole numbers, got {info.classes!r} and {info.epoch!r}")
        return info


def save_checkpoint(folder: Path, network: Hamr, info: CheckpointInfo) -> None:
    """Write weights and description, which vouches for the weights' hash; both get their names in one moment.

    Raises:
        HamrEdgeError: A weight is not finite, or the disk is full; the checkpoint stays as it was.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise HamrEdgeError(f"{len(broken)} weights are not finite ({broken[0]}, ...); {folder} was not written")
    data = save(weights)
    values = {"schema": SCHEMA, **info.to_json(), "weights_sha256": hashlib.sha256(data).hexdigest()}

    def write_description(path: Path) -> None:
        path.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
        write_file(folder / WEIGHTS, lambda weights_path: weights_path.write_bytes(data))

    write_file(folder / DESCRIPTION, write_description)


def load_checkpoint(folder: str | Path) -> tuple[Hamr, CheckpointInfo, str]:
    """Read a checkpoint.

    Returns:
        The network on the CPU in evaluation mode, its description, and the weights' SHA-256.

    Raises:
        InputError: The folder is not a checkpoint, or its weights are not the ones that its description vouches for.
    """
    folder = Path(folder)
    info, expected = load_description(folder)
    try:
        found = hash_file(folder / WEIGHTS)
    except OSError as error:
        raise InputError(f"checkpoint {folder} has no readable {WEIGHTS}: {error}") from error
    if found != expected:
        raise InputError(
            f"{folder / WEIGHTS} is not the file that {DESCRIPTION} vouches for (SHA-256 {found[:12]}... instead of "
            f"{expected[:12]}...); if training was killed there, 'hamr-edge train DATA -o {folder} --resume' mends it"
        )
    network = Hamr(info.config.network, info.classes)
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        raise InputError(
            f"{folder / WEIGHTS} does not fit the network that {DESCRIPTION} describes: {error}"
        ) from error
    return network.eval(), info, found


def load_description(folder: Path) -> tuple[CheckpointInfo, str]:
    """Read a checkpoint's description and the hash of its weights, without the weights.

    Raises:
        InputError: It is missing or cannot be read.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InputError(
            f"{folder} is not a checkpoint: it has no {DESCRIPTION}; 'hamr-edge train DATA -o RUN' makes one"
        )
    try:
        values = json.loads(path.read_text("utf-8"))
        if values.pop("schema") != SCHEMA:
            raise ValueError(f"it has another schema than {SCHEMA}, which this version reads")
        weights_sha256 = str(values.pop("weights_sha256"))
        info = CheckpointInfo.from_json(values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return info, weights_sha256


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write what a resumed run needs. It is whole in itself: no crash can mix it with another moment's files.

    Raises:
        HamrEdgeError: It cannot be written; the last state stays as it was.
    """
    write_file(folder / STATE, lambda path: torch.save(state, path))


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """:func:`hamr_edge.atomic.replace_file` for a run's files, with an error that says how to go on.

    Raises:
        HamrEdgeError: It cannot be written; the last one stays as it was.
    """
    try:
        replace_file(path, write)
    except (OSError, RuntimeError) as error:  # torch.save says so when the disk is full
        reason = error if isinstance(error, OSError) else "PyTorch stopped half-way"
        raise HamrEdgeError(
            f"{path} cannot be written: {reason}; is the disk full? What was saved before is whole: make room, then go "
            "on with --resume"
        ) from error


def load_state(folder: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    path = folder / STATE
    if not path.is_file():
        raise InputError(f"{folder} has no {STATE} to resume from; leave out --resume to start a run there")
    with usable_state(folder):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises pickle, zip and runtime errors here
            raise InputError(str(error).partition("\n")[0]) from error
        if not isinstance(state, dict):
            raise InputError(f"it holds no settings but a {type(state).__name__}")
    return state


@contextmanager
def usable_state(folder: Path) -> Iterator[None]:
    """Name the state file, and what to do, in the errors of whoever reads its content.

    Raises:
        InputError: The block raised one.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{folder / STATE} cannot be used: {error}; delete the folder and train again") from error
