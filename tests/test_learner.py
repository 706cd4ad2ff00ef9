from __future__ import annotations

import copy
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hamr_edge.dataset import open_dataset
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.trainer import batches
from hamr_edge.trainer.average import build_average
from hamr_edge.trainer.batches import Batch, BatchMaker
from hamr_edge.trainer.checkpoint import load_state
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.datasets import TrainingImages, load_training_images
from hamr_edge.trainer.host_copy import HostCopy
from hamr_edge.trainer.learner import Learner, choose_amp
from hamr_edge.trainer.loop import train
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.sampler import epoch_batches
from tests.test_train import SHALLOW, weights_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(synthetic_dataset: Path) -> TrainingImages:
    return load_training_images(open_dataset(synthetic_dataset).train, SHALLOW.network.input_size_hw)


def first_batches(images: TrainingImages, config: TrainConfig, count: int) -> list[Batch]:
    rows = epoch_batches(images.labels, config.ids_per_batch, config.images_per_id, config.seed, epoch=1)
    maker = BatchMaker(images, config, CPU)
    return [maker.make(rows[step], 1, step) for step in range(count)]


def learner_of(images: TrainingImages, config: TrainConfig) -> Learner:
    torch.manual_seed(0)
    learner = Learner(Hamr(config.network, images.classes), config, CPU)
    learner.network.train()
    return learner


def test_mixed_precision_choices() -> None:
    assert choose_amp(SHALLOW, CPU) is None
    assert choose_amp(replace(SHALLOW, amp="bf16"), CPU) is torch.bfloat16
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        choose_amp(replace(SHALLOW, amp="fp16"), CPU)


def test_the_average_follows_the_weights_slowly(images: TrainingImages) -> None:
    network = Hamr(SHALLOW.network, images.classes)
    average = build_average(network, decay=0.3)
    seen: list[dict[str, Tensor]] = []
    for value in (1.0, 2.0, 5.0):
        for parameter in network.parameters():
            parameter.data.fill_(value)
        network.heads.reduce_bn.running_mean.fill_(10 * value)
        network.heads.reduce_bn.num_batches_tracked.fill_(7)
        average.update_parameters(network)
        seen.append(copy.deepcopy(average.module.state_dict()))
    after = 1.0
    # The first values as they are; then with decay (1 + 1) / (10 + 1), below 0.3; then 3 / 12.
    expected = [after, after := after * 2 / 11 + 2 * 9 / 11, after * 3 / 12 + 5 * 9 / 12]
    for state, value in zip(seen, expected, strict=True):
        torch.testing.assert_close(state["heads.project"], torch.full_like(state["heads.project"], value))
        running = state["heads.reduce_bn.running_mean"]
        torch.testing.assert_close(running, torch.full_like(running, 10 * value))
        assert state["heads.reduce_bn.num_batches_tracked"] == 7
    long_run = build_average(network, decay=0.3)
    long_run.n_averaged.fill_(1000)
    for parameter in long_run.module.parameters():
        parameter.data.fill_(0)
    long_run.update_parameters(network)
    torch.testing.assert_close(long_run.module.heads.project.data, torch.full_like(network.heads.project.data, 0.7 * 5))


def test_the_average_is_what_is_kept(synthetic_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(synthetic_dataset)
    for name, ema in (("plain", 0.0), ("averaged", 0.9)):
        train(replace(SHALLOW, epochs=1, eval_every=0, ema=ema), dataset, tmp_path / name, quiet=True)
    plain, averaged = weights_of(tmp_path / "plain"), weights_of(tmp_path / "averaged")
    state = load_state(tmp_path / "averaged")
    for name, value in plain.items():
        assert torch.equal(state["network"][name], value)  # training itself is the same
        assert torch.equal(state["average"][f"module.{name}"], averaged[name])
    assert not torch.equal(plain["heads.project"], averaged["heads.project"])


def test_weights_of_the_average_that_are_not_finite_are_found(images: TrainingImages) -> None:
    learner = learner_of(images, replace(SHALLOW, ema=0.9))
    learner.check_finite()
    learner.best.heads.project.data[0] = float("inf")
    with pytest.raises(Exception, match=r"1 weights are not finite \(heads.project, ...\)"):
        learner.check_finite()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("default")  # torch.compile's own
def test_compiled_steps_learn_the_same(images: TrainingImages, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Inductor, which is what users get, takes half a minute for a first look at the compiler; the other has none."""
    if backend == "inductor" and not os.environ.get("HAMR_COMPILE"):
        pytest.skip("slow: set HAMR_COMPILE=1")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    config = replace(SHALLOW, optimizer="sgd", drop_block=1.0)
    made = first_batches(images, config, 2)
    losses = {}
    for compiled in (False, True):
        learner = learner_of(images, replace(config, compile=compiled))
        losses[compiled] = [learner.step(batch, 0.01).read() for batch in made]
    torch.testing.assert_close(losses[True], losses[False], rtol=1e-4, atol=1e-4)
    assert learner.network.state_dict().keys() == Hamr(config.network, images.classes).state_dict().keys()


def test_compiling_without_a_compiler_says_so(images: TrainingImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnavailableError, match="needs a C\\+\\+ compiler and no-such-compiler is not there"):
        learner_of(images, replace(SHALLOW, compile=True))


def test_a_copy_on_the_host_reads_back(images: TrainingImages) -> None:
    assert HostCopy(torch.tensor([1.0, 2.5], requires_grad=True)).read() == [1.0, 2.5]


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.25, 0.0])
def test_batches_on_a_gpu_are_those_of_the_cpu(
    images: TrainingImages, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Whether the images lie on the GPU or come from page-locked memory."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(batches, "_SHARE_OF_GPU", share)
    config = replace(SHALLOW, drop_block=1.0)
    rows = np.arange(config.batch_size)
    made = [BatchMaker(images, config, torch.device(name)).make(rows, 1, 0) for name in ("cpu", "cuda:0")]
    for ours, theirs in zip(*made, strict=True):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(theirs.cpu(), ours)


@pytest.mark.gpu
def test_a_step_on_a_gpu_never_waits_for_it(images: TrainingImages) -> None:
    """PyTorch raises at whatever makes the host wait: the next step could not be prepared meanwhile."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config, device = replace(SHALLOW, drop_block=1.0, amp="bf16"), torch.device("cuda:0")
    learner = Learner(Hamr(config.network, images.classes), config, device)
    learner.network.train()
    maker = BatchMaker(images, config, device)
    rows = np.arange(config.batch_size)
    learner.step(maker.make(rows, 1, 0), 0.01).read()  # libraries set themselves up
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [learner.step(maker.make(rows, 1, step), 0.01) for step in (1, 2)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.isfinite(loss.read()).all() for loss in losses)
