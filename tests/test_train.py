from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hamr_edge.dataset import open_dataset
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.trainer import loop
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.command import train as train_command
from hamr_edge.trainer.config import PRESETS, TrainConfig
from hamr_edge.trainer.loop import TrainingStopped, choose_amp, train
from hamr_edge.trainer.losses import Loss
from hamr_edge.trainer.network import NetworkConfig
from hamr_edge.trainer.sampler import epoch_batches

TINY = replace(
    PRESETS["smoke"],
    network=NetworkConfig("resnet18", (32, 16), stripes=2, reduced_dim=8, part_dim=4),
    epochs=3,
    ids_per_batch=4,
    images_per_id=2,
    eval_every=2,
)

FIRST_EPOCH_STEPS = 4


def test_the_first_epoch_has_the_steps_that_other_tests_count_on(synthetic_dataset: Path) -> None:
    identities = open_dataset(synthetic_dataset).train.identities
    batches = epoch_batches(identities, TINY.ids_per_batch, TINY.images_per_id, TINY.seed, epoch=1)
    assert len(batches) == FIRST_EPOCH_STEPS


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run)[0].state_dict()


def read_log(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


def assert_equal_weights(one: Path, other: Path) -> None:
    ours, theirs = weights_of(one), weights_of(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_training_lowers_the_loss_and_leaves_a_checkpoint(synthetic_dataset: Path, tmp_path: Path) -> None:
    config = replace(TINY, epochs=6, learning_rate=1e-3, eval_every=0, flip=0, erase=0, crop_padding=0)
    info = train(config, open_dataset(synthetic_dataset), tmp_path, quiet=True)
    assert info.epoch == 6
    assert info.classes == 6
    losses = [float(row["loss"]) for row in read_log(tmp_path)]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.05


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
    resumed = train(TINY, dataset, tmp_path / "broken", resume=True, quiet=True)
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
    state = loop.load_state(run)
    assert state["epoch"] >= 2
    config = loop.resumable_config(run)
    assert isinstance(config, TrainConfig)
    assert config.epochs == 200


def test_seeds_give_equal_runs(synthetic_dataset: Path, tmp_path: Path) -> None:
    dataset, config = open_dataset(synthetic_dataset), replace(TINY, epochs=1, eval_every=0)
    train(config, dataset, tmp_path / "a", quiet=True)
    train(config, dataset, tmp_path / "b", quiet=True)
    train(replace(config, seed=1), dataset, tmp_path / "c", quiet=True)
    assert_equal_weights(tmp_path / "a", tmp_path / "b")
    assert not torch.equal(weights_of(tmp_path / "a")["heads.reduce"], weights_of(tmp_path / "c")["heads.reduce"])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    real_loss = loop.hamr_loss

    def loss_that_breaks(*arguments: object, **keywords: object) -> Loss:
        nonlocal steps
        steps += 1
        loss = real_loss(*arguments, **keywords)  # type: ignore[arg-type]
        return Loss(loss.total * float("nan"), *loss[1:]) if steps == FIRST_EPOCH_STEPS + 2 else loss

    monkeypatch.setattr(loop, "hamr_loss", loss_that_breaks)
    with pytest.raises(HamrEdgeError, match="the loss became nan in epoch 2, step 2"):
        train(TINY, open_dataset(synthetic_dataset), tmp_path, quiet=True)
    _, info, _ = load_checkpoint(tmp_path)
    assert info.epoch == 1
    assert all(torch.isfinite(value).all() for value in weights_of(tmp_path).values())


def test_a_finished_folder_is_not_overwritten(synthetic_dataset: Path, checkpoint: Path) -> None:
    before = (checkpoint / "weights.safetensors").stat().st_mtime_ns
    with pytest.raises(InputError, match="holds a checkpoint already; go on with --resume"):
        train(TINY, open_dataset(synthetic_dataset), checkpoint, quiet=True)
    assert (checkpoint / "weights.safetensors").stat().st_mtime_ns == before


def test_a_corrupt_image_is_named(synthetic_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic_dataset, data)
    victim = sorted((data / "bounding_box_train").iterdir())[3]
    victim.write_bytes(b"not a jpeg")
    with pytest.raises(InputError, match=victim.name):
        train(TINY, open_dataset(data), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "checkpoint.json").exists()


def test_command_trains_and_says_what_is_next(synthetic_dataset: Path, tmp_path: Path) -> None:
    arguments = ["--preset", "smoke", "--imgsz", "32", "16", "--stripes", "2", "--epochs", "1", "--ids-per-batch", "4"]
    result = CliRunner().invoke(
        train_command, [str(synthetic_dataset), "-o", str(tmp_path / "run"), *arguments, "--part-dim", "4"]
    )
    assert result.exit_code == 0, result.output
    assert "rank-1" in result.stdout
    assert "next: hamr-edge export" in result.stdout
    assert "epoch 1/1" in result.stderr


def test_resume_takes_no_settings(checkpoint: Path) -> None:
    result = CliRunner().invoke(train_command, ["-o", str(checkpoint), "--resume", "--ids-per-batch", "8"])
    assert isinstance(result.exception, InputError)
    assert "leave out --ids-per-batch" in str(result.exception)


def test_mixed_precision_choices() -> None:
    cpu = torch.device("cpu")
    assert choose_amp(TINY, cpu) is None
    assert choose_amp(replace(TINY, amp="bf16"), cpu) is torch.bfloat16
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        choose_amp(replace(TINY, amp="fp16"), cpu)


def test_bf16_on_the_cpu_trains(synthetic_dataset: Path, tmp_path: Path) -> None:
    config = replace(TINY, epochs=1, eval_every=0, amp="bf16")
    train(config, open_dataset(synthetic_dataset), tmp_path, quiet=True)
    assert all(np.isfinite(value.float().numpy()).all() for value in weights_of(tmp_path).values())


@pytest.mark.gpu
def test_training_on_a_gpu(synthetic_dataset: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    info = train(replace(TINY, amp="auto"), open_dataset(synthetic_dataset), tmp_path, device="cuda:0", quiet=True)
    assert info.epoch == TINY.epochs
