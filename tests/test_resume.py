from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset
from hamr_edge.errors import InputError
from hamr_edge.trainer import loop
from hamr_edge.trainer.checkpoint import load_checkpoint, load_state, save_state
from hamr_edge.trainer.command import train as train_command
from hamr_edge.trainer.loop import TrainingStopped, resume, train
from hamr_edge.trainer.losses import Loss
from tests.test_train import FIRST_EPOCH_STEPS, TINY, assert_equal_weights, read_log


@pytest.mark.parametrize("break_in_epoch", [True, False])
def test_a_stopped_run_resumes_to_equal_weights(
    synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_in_epoch: bool
) -> None:
    dataset = open_dataset(synthetic_dataset)
    whole = train(TINY, dataset, tmp_path / "whole", quiet=True)
    steps = 0
    real_loss = loop.hamr_loss

    def loss_that_presses_ctrl_c(*arguments: object, **keywords: object) -> Loss:
        nonlocal steps
        steps += 1
        if steps == FIRST_EPOCH_STEPS + (2 if break_in_epoch else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return real_loss(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "hamr_loss", loss_that_presses_ctrl_c)
    with pytest.raises(TrainingStopped, match="stopped"):
        train(TINY, dataset, tmp_path / "broken", quiet=True)
    monkeypatch.undo()
    load_checkpoint(tmp_path / "broken")  # consistent as it lies there
    resumed = resume(dataset, tmp_path / "broken", quiet=True)
    assert_equal_weights(tmp_path / "whole", tmp_path / "broken")
    assert resumed.scores == whole.scores
    for ours, theirs in zip(read_log(tmp_path / "whole"), read_log(tmp_path / "broken"), strict=True):
        assert {**ours, "images_per_s": ""} == {**theirs, "images_per_s": ""}


def test_a_killed_run_resumes(synthetic_dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = [str(synthetic_dataset), "-o", str(run), "--preset", "smoke", "--imgsz", "32", "16", "--stripes", "2"]
    arguments += ["--ids-per-batch", "4", "--images-per-id", "2", "--epochs", "200", "--eval-every", "0", "--quiet"]
    code = "from hamr_edge.cli import main; import sys; main(['train', *sys.argv[1:]])"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    deadline = time.monotonic() + 120
    while not (run / "state.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    state = load_state(run)
    assert state["epoch"] >= 2
    # Let the resumed run end soon: one more epoch than the killed one had begun.
    epochs = state["epoch"] + 1
    state["info"]["config"]["epochs"] = epochs
    save_state(run, state)
    info = resume(open_dataset(synthetic_dataset), run, quiet=True)
    assert info.epoch == epochs
    assert [int(row["epoch"]) for row in read_log(run)] == list(range(1, epochs + 1))
    load_checkpoint(run)


def test_a_failing_evaluation_loses_no_training(synthetic_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic_dataset, data)
    victim = sorted((data / "query").iterdir())[2]
    whole = victim.read_bytes()
    victim.write_bytes(b"not a jpeg")
    with pytest.raises(InputError, match=victim.name):
        train(TINY, open_dataset(data), tmp_path / "run", quiet=True)
    assert load_checkpoint(tmp_path / "run")[1].epoch == TINY.eval_every
    victim.write_bytes(whole)
    assert resume(open_dataset(data), tmp_path / "run", quiet=True).epoch == TINY.epochs


def test_a_run_does_not_resume_on_other_images(synthetic_dataset: Path, checkpoint: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(checkpoint, run)
    shutil.copytree(synthetic_dataset, data)
    next((data / "bounding_box_train").iterdir()).unlink()
    with pytest.raises(InputError, match=r"was trained on other images than data's \(its data set was data"):
        resume(open_dataset(data), run, quiet=True)


@pytest.mark.parametrize("content", [b"garbage", None])
def test_a_state_that_cannot_be_used_is_named(
    synthetic_dataset: Path, checkpoint: Path, tmp_path: Path, content: bytes | None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run)
    if content is None:
        torch.save({"epoch": 1}, run / "state.pt")
    else:
        (run / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"state\.pt .*delete the folder and train again"):
        resume(open_dataset(synthetic_dataset), run, quiet=True)


def test_a_finished_run_resumes_to_itself_without_its_other_files(
    synthetic_dataset: Path, checkpoint: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(checkpoint / "state.pt", run)
    info = resume(open_dataset(synthetic_dataset), run, quiet=True)
    assert info == load_checkpoint(checkpoint)[1]
    assert_equal_weights(run, checkpoint)


def test_resume_asks_for_the_data(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(checkpoint, tmp_path / "run")
    with pytest.raises(SystemExit):
        main(["train", "-o", str(tmp_path / "run"), "--resume"])
    assert "name the data set that" in capsys.readouterr().err


def test_resume_takes_no_settings(checkpoint: Path) -> None:
    result = CliRunner().invoke(train_command, ["-o", str(checkpoint), "--resume", "--ids-per-batch", "8"])
    assert isinstance(result.exception, InputError)
    assert "leave out --ids-per-batch" in str(result.exception)
