"""What goes wrong in a long run: a kill, a full disk, a loss that runs away, images that cannot be read."""

from __future__ import annotations

import logging
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.trainer import learner, loop
from hamr_edge.trainer.checkpoint import load_checkpoint, load_state, save_checkpoint
from hamr_edge.trainer.loop import resume, train
from hamr_edge.trainer.losses import Loss
from hamr_edge.trainer.sampler import epoch_batches
from tests.test_train import FIRST_EPOCH_STEPS, SHALLOW, assert_equal_logs, assert_equal_weights, read_log, weights_of

OPTIONS = [
    *(
        "--preset",
        "smoke",
        "--stages",
        "1",
        "--imgsz",
        "32",
        "16",
        "--stripes",
        "2",
        "--reduced-dim",
        "8",
        "--part-dim",
        "4",
    ),
    *("--epochs", "3", "--ids-per-batch", "4", "--images-per-id", "2", "--eval-every", "2"),
]
"""The command line's words for SHALLOW."""
TRAIN_UNTIL_EPOCH_2 = """
import sys, time
from pathlib import Path
from hamr_edge.cli import main
from hamr_edge.trainer.batches import BatchMaker

make = BatchMaker.make

def make_or_wait(self, rows, epoch, step):
    if (epoch, step) == (2, 2):
        Path(sys.argv[1]).touch()
        time.sleep(600)
    return make(self, rows, epoch, step)

BatchMaker.make = make_or_wait
main(["train", *sys.argv[2:]])
"""


@pytest.fixture(scope="module")
def unbroken_run(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: Path) -> Path:
    """A run of SHALLOW to its end. Not to be changed."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    train(SHALLOW, open_dataset(synthetic_dataset), run, quiet=True)
    return run


@pytest.mark.parametrize(("save_minutes", "saved_step"), [("0", 0), ("1e-9", 2)])
def test_a_run_killed_in_mid_epoch_resumes_to_equal_weights(
    synthetic_dataset: Path, unbroken_run: Path, tmp_path: Path, save_minutes: str, saved_step: int
) -> None:
    run, reached = tmp_path / "run", tmp_path / "reached"
    options = [*OPTIONS, "--save-minutes", save_minutes, "--quiet"]
    command = [
        sys.executable,
        "-c",
        TRAIN_UNTIL_EPOCH_2,
        str(reached),
        str(synthetic_dataset),
        "-o",
        str(run),
        *options,
    ]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not reached.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    state = load_state(run)
    assert (state["epoch"], state["step"]) == (2, saved_step)
    info = resume(open_dataset(synthetic_dataset), run, quiet=True)
    assert info == load_checkpoint(unbroken_run)[1]
    assert_equal_weights(run, unbroken_run)
    assert_equal_logs(run, unbroken_run)


@contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """No file of this process can grow beyond some bytes: the system's own error, without a disk to fill."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    synthetic_dataset: Path,
    unbroken_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    saved: dict[str, bytes] = {}
    too_little = (unbroken_run / "weights.safetensors").stat().st_size // 2

    def batches_of_a_full_disk(labels: NDArray[np.int64], *settings: int) -> list[NDArray[np.int64]]:
        if settings[-1] == 2:  # the epoch
            saved.update(contents(run))
            resource.setrlimit(resource.RLIMIT_FSIZE, (too_little, resource.RLIM_INFINITY))
        return epoch_batches(labels, *settings)

    monkeypatch.setattr(loop, "epoch_batches", batches_of_a_full_disk)
    with full_disk(resource.RLIM_INFINITY), pytest.raises(SystemExit) as ended:
        main(["train", str(synthetic_dataset), "-o", str(run), *OPTIONS, "--quiet"])
    monkeypatch.undo()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "state.pt cannot be written: " in said
    assert "make room, then go on with --resume" in said
    assert contents(run) == saved  # and no temporary file beside them
    assert saved.keys() == {"state.pt", "weights.safetensors", "checkpoint.json", "log.csv"}
    assert load_checkpoint(run)[1].epoch == 1
    assert [row["epoch"] for row in read_log(run)] == ["1"]
    resume(open_dataset(synthetic_dataset), run, quiet=True)
    assert_equal_weights(run, unbroken_run)
    assert_equal_logs(run, unbroken_run)


def test_weights_that_find_no_room_leave_the_old_ones(unbroken_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken_run, run)
    network, info, _ = load_checkpoint(run)
    before = contents(run)
    room_for_the_description = 2 * (run / "checkpoint.json").stat().st_size
    with (
        full_disk(room_for_the_description),
        pytest.raises(HamrEdgeError, match=r"weights\.safetensors cannot be written"),
    ):
        save_checkpoint(run, network, replace(info, epoch=99))
    assert contents(run) == before


def test_a_loss_that_is_not_finite_stops_and_names_its_images(
    synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    real_loss = learner.hamr_loss

    def loss_that_breaks(*arguments: object, **keywords: object) -> Loss:
        nonlocal steps
        steps += 1
        loss = real_loss(*arguments, **keywords)  # type: ignore[arg-type]
        return Loss(loss.total * float("nan"), *loss[1:]) if steps == FIRST_EPOCH_STEPS + 2 else loss

    dataset = open_dataset(synthetic_dataset)
    monkeypatch.setattr(learner, "hamr_loss", loss_that_breaks)
    with pytest.raises(HamrEdgeError, match=r"the loss became nan in epoch 2, step 2 .*is whole") as caught:
        train(SHALLOW, dataset, tmp_path, quiet=True, save_minutes=1e-9)
    batches = epoch_batches(dataset.train.identities, SHALLOW.ids_per_batch, SHALLOW.images_per_id, SHALLOW.seed, 2)
    before, names = ([f"bounding_box_train/{dataset.train.paths[row].name}" for row in rows] for rows in batches[:2])
    listed = (tmp_path / "bad_batch.txt").read_text().splitlines()
    assert [line for line in listed if not line.startswith("#")] == names + before
    assert listed[0] == "# epoch 2, step 2: its loss is not finite"
    assert str(tmp_path / "bad_batch.txt") in str(caught.value)
    assert f"8 images ({names[0]}, {names[1]}" in str(caught.value)
    assert load_checkpoint(tmp_path)[1].epoch == 1
    state = load_state(tmp_path)
    assert (state["epoch"], state["step"]) == (2, 1)  # the step before
    for weights in (weights_of(tmp_path), state["network"]):
        assert all(torch.isfinite(value).all() for value in weights.values())


def test_images_that_cannot_be_read_are_left_out_if_asked(
    synthetic_dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, run, config = tmp_path / "data", tmp_path / "run", replace(SHALLOW, skip_bad=True, epochs=2, eval_every=0)
    shutil.copytree(synthetic_dataset, data)
    victims = sorted((data / "bounding_box_train").iterdir())[3:5]
    whole = [victim.read_bytes() for victim in victims]
    for victim in victims:
        victim.write_bytes(b"not a jpeg")
    with pytest.raises(InputError, match=victims[0].name):
        train(replace(config, skip_bad=False), open_dataset(data), run, quiet=True)
    names = [f"bounding_box_train/{victim.name}" for victim in victims]
    with caplog.at_level(logging.WARNING):
        info = train(config, open_dataset(data), run, quiet=True)
    assert f"left out 2 images ({names[0]}, {names[1]})" in caplog.text
    assert info.skipped == load_checkpoint(run)[1].skipped == names
    assert resume(open_dataset(data), run, quiet=True) == info
    victims[0].write_bytes(whole[0])
    with pytest.raises(InputError, match=rf"was trained without 2 images .*; now 1 image \({names[1]}\)"):
        resume(open_dataset(data), run, quiet=True)
