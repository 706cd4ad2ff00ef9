from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from hamr_edge.cli import main
from hamr_edge.dataset import open_dataset
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.trainer import batches, learner, loop
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.command import train as train_command
from hamr_edge.trainer.config import PRESETS, TrainConfig
from hamr_edge.trainer.heads import PartFeatures
from hamr_edge.trainer.learner import choose_amp
from hamr_edge.trainer.loop import train
from hamr_edge.trainer.losses import Loss
from hamr_edge.trainer.network import Hamr, NetworkConfig
from hamr_edge.trainer.resnet import ResNet
from hamr_edge.trainer.sampler import epoch_batches
from hamr_edge.trainer.schedule import learning_rate

TINY = replace(
    PRESETS["smoke"],
    network=NetworkConfig("resnet18", (32, 16), stripes=2, reduced_dim=8, part_dim=4),
    epochs=3,
    ids_per_batch=4,
    images_per_id=2,
    eval_every=2,
)
SHALLOW = replace(TINY, network=replace(TINY.network, stages=(1,)))
"""Files of 1 MB, not 200: for tests of the run, not of the network."""

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


def assert_equal_logs(one: Path, other: Path) -> None:
    ours, theirs = ([{**row, "images_per_s": "", "wait_share": ""} for row in read_log(run)] for run in (one, other))
    assert ours == theirs


def test_training_lowers_the_loss_and_leaves_a_checkpoint(synthetic_dataset: Path, tmp_path: Path) -> None:
    config = replace(TINY, epochs=6, learning_rate=1e-3, eval_every=0, flip=0, erase=0, crop_padding=0)
    info = train(config, open_dataset(synthetic_dataset), tmp_path, quiet=True)
    assert info.epoch == 6
    assert info.classes == 6
    losses = [float(row["loss"]) for row in read_log(tmp_path)]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.05


def test_seeds_give_equal_runs(synthetic_dataset: Path, tmp_path: Path) -> None:
    dataset, config = open_dataset(synthetic_dataset), replace(SHALLOW, epochs=1, eval_every=0)
    train(config, dataset, tmp_path / "a", quiet=True)
    train(config, dataset, tmp_path / "b", quiet=True)
    train(replace(config, seed=1), dataset, tmp_path / "c", quiet=True)
    assert_equal_weights(tmp_path / "a", tmp_path / "b")
    assert not torch.equal(weights_of(tmp_path / "a")["heads.reduce"], weights_of(tmp_path / "c")["heads.reduce"])


def test_weights_that_are_not_finite_are_not_saved(
    synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_step = torch.optim.Adam.step

    def step_that_breaks(self: torch.optim.Adam) -> None:
        real_step(self)
        self.param_groups[0]["params"][0].data[0] = float("nan")

    config = replace(SHALLOW, epochs=1, eval_every=0)
    monkeypatch.setattr(loop, "epoch_batches", lambda *arguments: epoch_batches(*arguments)[:1])
    monkeypatch.setattr(torch.optim.Adam, "step", step_that_breaks)
    with pytest.raises(HamrEdgeError, match="weights are not finite"):
        train(config, open_dataset(synthetic_dataset), tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())  # no state either: it would be resumed from


def test_data_that_cannot_be_scored_are_found_before_training(synthetic_dataset: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic_dataset, data)
    for image in (data / "bounding_box_test").glob("*_c2*"):
        image.unlink()
    for image in (data / "query").glob("*_c2*"):
        image.unlink()
    with pytest.raises(InputError, match="no query of data has a gallery image of its identity from another camera"):
        train(SHALLOW, open_dataset(data), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_every_setting_reaches_the_step(
    synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step hands to augmentation, network, loss and optimizer is what the settings say."""
    seen: dict[str, list[Any]] = {"loss": [], "augment": [], "keep": [], "rates": []}
    real_loss, real_augment, real_step = learner.hamr_loss, batches.augment, torch.optim.SGD.step
    real_forward = Hamr.forward

    def spy_loss(features: PartFeatures, labels: torch.Tensor, config: TrainConfig, gather: object) -> Loss:
        seen["loss"].append((config, gather))
        return real_loss(features, labels, config)

    def spy_augment(images: torch.Tensor, config: TrainConfig, generator: torch.Generator, rows: slice) -> torch.Tensor:
        seen["augment"].append((config, generator.initial_seed(), rows))
        return real_augment(images, config, generator, rows)

    def spy_forward(self: Hamr, images: torch.Tensor, keep: torch.Tensor | None = None) -> PartFeatures:
        seen["keep"].append(keep)
        return real_forward(self, images, keep)

    def spy_step(self: torch.optim.SGD) -> None:
        seen["rates"].append([group["lr"] for group in self.param_groups])
        real_step(self)

    monkeypatch.setattr(learner, "hamr_loss", spy_loss)
    monkeypatch.setattr(batches, "augment", spy_augment)
    monkeypatch.setattr(Hamr, "forward", spy_forward)
    monkeypatch.setattr(torch.optim.SGD, "step", spy_step)
    config = replace(SHALLOW, epochs=2, eval_every=0, optimizer="sgd", margin=0.7, head_lr_factor=3.0, drop_block=1.0)
    train(config, open_dataset(synthetic_dataset), tmp_path, quiet=True)
    assert all(given is config and gather is None for given, gather in seen["loss"])
    assert all(given is config and rows == slice(0, 8) for given, _, rows in seen["augment"])
    steps = len(seen["augment"])
    assert len({seed for _, seed, _ in seen["augment"]}) == steps
    assert all(0 < keep.sum() < keep.numel() for keep in seen["keep"])
    expected = [learning_rate(config, 1, step / FIRST_EPOCH_STEPS) for step in range(FIRST_EPOCH_STEPS)]
    assert [rates[0] for rates in seen["rates"][:FIRST_EPOCH_STEPS]] == pytest.approx(expected)
    assert all(max(rates) == pytest.approx(3 * min(rates)) for rates in seen["rates"])


def test_training_starts_from_the_pretrained_weights(synthetic_dataset: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    weights = ResNet("resnet18").state_dict()
    torch.save(weights, tmp_path / "secret.pth")
    config = replace(TINY, epochs=1, eval_every=0, learning_rate=1e-9)
    info = train(config, open_dataset(synthetic_dataset), tmp_path / "run", str(tmp_path / "secret.pth"), quiet=True)
    trained = weights_of(tmp_path / "run")
    torch.testing.assert_close(trained["backbone.layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])
    assert info.pretrained == "secret.pth"  # no path of this machine


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "{file}", "--ids-per-batch", "4"], 2, "run folder .*file cannot be made"),
        (["-o", "{tmp}/run", "--device", "gpu"], 2, "device must be auto, cpu or cuda:N, got 'gpu'"),
        (["-o", "{tmp}/run", "--margin", "nan"], 2, "margin must be at least 0 and finite, got nan"),
        (["-o", "{tmp}/run", "--seed", str(2**70)], 2, "seed must be below"),
        (["-o", "{tmp}/run", "--imgsz", "100", "50"], 2, "input size must be a multiple of"),
        (["-o", "{tmp}/run", "--resume"], 2, r"no state\.pt to resume from"),
        (["-o", "{tmp}/run", "--pretrained", ""], 2, "weights . are not there"),
        (["-o", "{tmp}/run", "--ids-per-batch", "64"], 2, "a batch needs 64 identities, the training set has 6"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(
    synthetic_dataset: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    words = [word.format(tmp=tmp_path, file=tmp_path / "file") for word in arguments]
    preset = [] if "--resume" in words else ["--preset", "smoke"]
    with pytest.raises(SystemExit) as ended:
        main(["train", str(synthetic_dataset), *words, *preset, "--quiet"])
    assert ended.value.code == code
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run" / "checkpoint.json").exists()


def test_a_finished_folder_is_not_overwritten(synthetic_dataset: Path, checkpoint: Path) -> None:
    before = (checkpoint / "weights.safetensors").stat().st_mtime_ns
    with pytest.raises(InputError, match="holds a run already; go on with --resume"):
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
