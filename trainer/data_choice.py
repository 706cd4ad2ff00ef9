"""Which data a training run was asked to use: one set for both, or one to train on and another to test on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from hamr_edge.dataset import ReidDataset, open_dataset
from hamr_edge.dataset_option import dataset_option
from hamr_edge.errors import InputError

Function = TypeVar("Function", bound=Callable[..., Any])
_FOLDER = click.Path(path_type=Path)


def data_options(function: Function) -> Function:
    """Give a command the options of :meth:`DataChoice.from_options`, by the names of its arguments."""
    decorated: Any = function
    for option in (
        dataset_option("--test-on", "--test-dataset"),
        dataset_option("DATA or --train-on"),
        click.option("--test-on", type=_FOLDER, metavar="DIR", help="And score on this one (cross-domain)."),
        click.option("--train-on", type=_FOLDER, metavar="DIR", help="Instead of DATA: train on this set."),
        click.argument("data", required=False, type=_FOLDER),
    ):
        decorated = option(decorated)
    options: Function = decorated
    return options


@dataclass(frozen=True, slots=True)
class DataChoice:
    """The data options of ``hamr-edge train``."""

    train_on: Path
    kind: str = "auto"
    test_on: Path | None = None
    """Another set, whose query and gallery are scored; ``train_on``'s own when None."""
    test_kind: str = "auto"

    @classmethod
    def from_options(
        cls,
        data: Path | None,
        train_on: Path | None,
        test_on: Path | None,
        dataset_kind: str,
        test_dataset_kind: str,
    ) -> DataChoice | None:
        """Make one of the options as given; None where they name no data.

        Raises:
            InputError: They contradict each other.
        """
        if data is not None and (train_on is not None or test_on is not None):
            raise InputError(f"name the data either as DATA ({data}) or by --train-on and --test-on, not both")
        if (train_on is None) != (test_on is None):
            given, lacking = ("--test-on", "--train-on") if train_on is None else ("--train-on", "--test-on")
            raise InputError(f"{given} needs {lacking} too; one set for both is named as DATA, without an option")
        if test_dataset_kind != "auto" and test_on is None:
            raise InputError("--test-dataset says what --test-on is; without --test-on leave it out")
        root = data if train_on is None else train_on
        if root is None:
            if dataset_kind != "auto":
                raise InputError(f"--dataset {dataset_kind} says what DATA is; name DATA too")
            return None
        return cls(root, dataset_kind, test_on, test_dataset_kind)

    @property
    def tested(self) -> Path:
        """The folder whose query and gallery are scored."""
        return self.train_on if self.test_on is None else self.test_on

    def open(self) -> ReidDataset:
        """Read the data sets' file names.

        Raises:
            InputError: See :func:`hamr_edge.dataset.open_dataset`; or there is nothing to train on.
        """
        dataset = open_dataset(self.train_on, self.kind)
        if not len(dataset.train):
            raise InputError(
                f"{self.train_on} has no training images, junk apart; a set of folders holds them in train/<identity>/"
            )
        return dataset if self.test_on is None else dataset.tested_on(open_dataset(self.test_on, self.test_kind))

    def as_typed(self) -> str:
        """The options that name this data again."""
        words = [str(self.train_on)] if self.test_on is None else ["--train-on", str(self.train_on)]
        words += [] if self.kind == "auto" else ["--dataset", self.kind]
        if self.test_on is not None:
            words += ["--test-on", str(self.test_on)]
            words += [] if self.test_kind == "auto" else ["--test-dataset", self.test_kind]
        return shlex.join(words)
