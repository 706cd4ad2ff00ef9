from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset
from hamr_edge.errors import InputError
from hamr_edge.trainer import learner
from hamr_edge.trainer.checkpoint import load_checkpoint, load_state, save_state
from hamr_edge.trainer.command import train as train_command
from hamr_edge.trainer.loop import TrainingStopped, resume, train
from hamr_edge.trainer.losses import Loss
from tests.test_train import FIRST_EPOCH_STEPS, SHALLOW, assert_equal_logs, assert_equal_weights

AVERAGED = replace(SHALLOW, ema=0.9)
"""With an average of the weights, whose own state must come back too."""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: Path) -> Path:
    """A run of SHALLOW to its end. Not to be changed."""
    run = tmp_path_factory.mktemp("finished") / "run"
    train(SHALLOW, open_dataset(synthetic_dataset), run, quiet=True)
    return run


@pytest.fixture(scope="module")
def averaged_run(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: Path) -> Path:
    """An unbroken run of AVERAGED."""
    run = tmp_path_factory.mktemp("averaged") / "run"
    train(AVERAGED, open_dataset(synthetic_dataset), run, quiet=True)
    return run


@pytest.mark.parametrize(
    ("steps_before", "left"),
    [
        (FIRST_EPOCH_STEPS, "stopped after epoch 1 of 3"),
        (FIRST_EPOCH_STEPS + 2, "stopped in epoch 2 after step 2 of 4"),
        (2 * FIRST_EPOCH_STEPS, "stopped before the evaluation after epoch 2"),
    ],
)
def test_a_stopped_run_resumes_to_equal_weights(
    synthetic_dataset: Path,
    averaged_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps_before: int,
    left: str,
) -> None:
    dataset = open_dataset(synthetic_dataset)
    steps = 0
    real_loss = learner.hamr_loss

    def loss_that_presses_ctrl_c(*arguments: object, **keywords: object) -> Loss:
        nonlocal steps
        steps += 1
        if steps == steps_before:
            os.kill(os.getpid(), signal.SIGINT)
        return real_loss(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(learner, "hamr_loss", loss_that_presses_ctrl_c)
    with pytest.raises(TrainingStopped, match=left):
        train(AVERAGED, dataset, tmp_path / "broken", quiet=True)
    monkeypatch.undo()
    load_checkpoint(tmp_path / "broken")  # consistent as it lies there
    resumed = resume(dataset, tmp_path / "broken", quiet=True)
    assert_equal_weights(averaged_run, tmp_path / "broken")
    assert_equal_logs(averaged_run, tmp_path / "broken")
    assert resumed == load_checkpoint(averaged_run)[1]


def test_a_failing_evaluation_loses_no_training(synthetic_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic_dataset, data)
    victim = sorted((data / "query").iterdir())[2]
    whole = victim.read_bytes()
    victim.write_bytes(b"not a jpeg")
    with pytest.raises(InputError, match=victim.name):
        train(SHALLOW, open_dataset(data), tmp_path / "run", quiet=True)
    assert load_checkpoint(tmp_path / "run")[1].epoch == SHALLOW.eval_every
    victim.write_bytes(whole)
    assert resume(open_dataset(data), tmp_path / "run", quiet=True).epoch == SHALLOW.epochs


def test_a_run_does_not_resume_on_other_images(synthetic_dataset: Path, finished_run: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished_run, run)
    shutil.copytree(synthetic_dataset, data)
    next((data / "bounding_box_train").iterdir()).unlink()
    with pytest.raises(InputError, match=r"was trained on other images than data's \(its data set was data"):
        resume(open_dataset(data), run, quiet=True)


@pytest.mark.parametrize("content", [b"garbage", None])
def test_a_state_that_cannot_be_used_is_named(
    synthetic_dataset: Path, finished_run: Path, tmp_path: Path, content: bytes | None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    if content is None:
        torch.save({"epoch": 1}, run / "state.pt")
    else:
        (run / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"state\.pt .*delete the folder and train again"):
        resume(open_dataset(synthetic_dataset), run, quiet=True)


def _with_other_weights(state: dict[str, Any]) -> None:
    state["network"]["heads.project"] = torch.zeros(1, 2, 3)


def _with_other_moments(state: dict[str, Any]) -> None:
    next(iter(state["optimizer"]["state"].values()))["exp_avg"] = torch.zeros(1, 2, 3)


def _without_optimizer(state: dict[str, Any]) -> None:
    del state["optimizer"]


def _with_a_step_too_many(state: dict[str, Any]) -> None:
    state["step"] += 1


def _with_an_unknown_setting(state: dict[str, Any]) -> None:
    state["info"]["config"]["charm"] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_other_weights, "does not fit its own network: .*size mismatch for heads.project"),
        (_with_other_moments, r"the optimizer's exp_avg has shape \(1, 2, 3\) for weights of"),
        (_without_optimizer, "does not fit its own network: .*optimizer"),
        (_with_a_step_too_many, "it says epoch 4, step 1, but holds 3 epochs and 0 steps"),
        (_with_an_unknown_setting, "its description of the run cannot be read: .*charm"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    synthetic_dataset: Path, finished_run: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    state = load_state(run)
    change(state)
    save_state(run, state)
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(
        InputError, match=rf"state\.pt cannot be used: .*{message}.*; delete the folder and train again"
    ):
        resume(open_dataset(synthetic_dataset), run, quiet=True)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_finished_run_resumes_to_itself_without_its_other_files(
    synthetic_dataset: Path, finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished_run / "state.pt", run)
    info = resume(open_dataset(synthetic_dataset), run, quiet=True)
    assert info == load_checkpoint(finished_run)[1]
    assert_equal_weights(run, finished_run)


def test_resume_asks_for_the_data(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    with pytest.raises(SystemExit):
        main(["train", "-o", str(tmp_path / "run"), "--resume"])
    assert "name the data set that" in capsys.readouterr().err


def test_resume_takes_no_settings(finished_run: Path) -> None:
    result = CliRunner().invoke(train_command, ["-o", str(finished_run), "--resume", "--ids-per-batch", "8"])
    assert isinstance(result.exception, InputError)
    assert "leave out --ids-per-batch" in str(result.exception)
