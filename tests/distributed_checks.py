"""What test_distributed.py lets two real processes do: ``torchrun --nproc-per-node 2 distributed_checks.py DATA OUT``.

Each process writes what it saw to OUT/<rank>.pt.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from hamr_edge.dataset import open_dataset
from hamr_edge.errors import InputError
from hamr_edge.trainer import distributed, learner, loop
from hamr_edge.trainer.batches import BatchMaker
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.datasets import load_training_images
from hamr_edge.trainer.learner import Learner
from hamr_edge.trainer.losses import Loss
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.sampler import epoch_batches
from hamr_edge.trainer.sync_batch_norm import synchronise_batch_norm
from tests.test_train import SHALLOW

STAGES_12 = replace(SHALLOW, network=replace(SHALLOW.network, stages=(1, 2)))
SGD = replace(STAGES_12, optimizer="sgd", learning_rate=0.01, drop_block=0.5, color_jitter=0.2, ema=0.9)
ADAM = replace(STAGES_12, optimizer="adam", learning_rate=1e-3, metric_loss="soft-triplet")
STEPS = 6
NORM_INPUTS = [(6, 3), (6, 3, 2, 2)]


def curve(data: Path, config: TrainConfig) -> dict[str, Any]:
    """Losses of some steps, and the weights after them, in double precision: rounding does not grow to the eye."""
    torch.manual_seed(config.seed)
    images = load_training_images(open_dataset(data).train, config.network.input_size_hw)
    network = Hamr(config.network, images.classes).double()
    trained = Learner(network, config, torch.device("cpu"))
    maker = BatchMaker(images, config, torch.device("cpu"))
    network.train()
    losses = []
    for epoch in (1, 2):
        rows = epoch_batches(images.labels, config.ids_per_batch, config.images_per_id, config.seed, epoch)
        for step in range(STEPS // 2):
            batch = maker.make(rows[step], epoch, step)
            batch = batch._replace(images=batch.images.double())
            losses.append(trained.step(batch, config.learning_rate).read())
    return {"losses": losses, "network": network.state_dict(), "best": trained.best.state_dict()}


def normalised(shape: tuple[int, ...], rows: slice, synchronise: bool) -> dict[str, Tensor]:
    """A batch normalisation's output, gradients and running statistics after two batches, of a share of their rows."""
    bn: nn.Module = nn.BatchNorm1d(shape[1]) if len(shape) == 2 else nn.BatchNorm2d(shape[1])
    network = nn.Sequential(bn).double()
    if synchronise:
        synchronise_batch_norm(network, torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    seen = {}
    for _ in range(2):
        whole = torch.randn(shape, generator=random, dtype=torch.float64) * 3 + 50
        share = whole[rows].requires_grad_()
        output = network(share)
        target = torch.randn(shape, generator=random, dtype=torch.float64)
        (output * target[rows]).sum().backward()
        seen = {"output": output.detach(), "gradient": share.grad}
    return {
        **seen,
        **network.state_dict(),
        "weight_gradient": network[0].weight.grad,
        "bias_gradient": network[0].bias.grad,
    }


def left(work: Callable[[], object]) -> list[Any]:
    """How a process left some work: the error's name, and its message or exit code."""
    try:
        work()
    except (Exception, SystemExit) as error:
        return [type(error).__name__, error.code if isinstance(error, SystemExit) else str(error)]
    return ["", ""]


def _fail(message: str) -> None:
    raise InputError(message)


def _fail_together(rank: int) -> None:
    with distributed.together():
        if dist.get_rank() == rank:
            _fail("an image is missing here")


def _gathered() -> dict[str, Tensor]:
    own = (torch.arange(6.0).view(2, 3) + 10 * dist.get_rank()).requires_grad_()
    joined = distributed.gather(own, 1)
    weights = torch.arange(12.0).view(2, 6)
    (joined * weights * (1 + dist.get_rank())).sum().backward()
    return {"joined": joined.detach(), "gradient": own.grad}


def _train_with_nan_in_one_process(data: Path, run: Path) -> None:
    real_loss = learner.hamr_loss
    steps = 0

    def loss_that_breaks(*arguments: Any) -> Loss:
        nonlocal steps
        steps += 1
        loss = real_loss(*arguments)
        return Loss(*(value * float("nan") for value in loss)) if steps == 2 and dist.get_rank() == 1 else loss

    learner.hamr_loss = loss_that_breaks
    try:
        loop.train(SHALLOW, open_dataset(data), run, quiet=True)
    finally:
        learner.hamr_loss = real_loss


def _train_with_images_missing_in_one_process(data: Path, run: Path) -> None:
    real_load = loop.load_training_images
    if dist.get_rank() == 1:
        loop.load_training_images = lambda *arguments: _fail("an image is missing here")
    try:
        loop.train(SHALLOW, open_dataset(data), run, quiet=True)
    finally:
        loop.load_training_images = real_load


def main(data: Path, out: Path) -> None:
    """Run all, in the same order in each process."""
    with distributed.process_group("cpu"):
        rank = dist.get_rank()
        share = distributed.own_rows(6)
        found: dict[str, Any] = {
            "sgd": curve(data, SGD),
            "adam": curve(data, ADAM),
            "unsynchronised": curve(data, replace(SGD, sync_bn=False)),
            "norms": [normalised(shape, share, synchronise=True) for shape in NORM_INPUTS],
            "gathered": _gathered(),
            "labels": distributed.gather(torch.tensor([rank, 7]), 0),
            "share": [share.start, share.stop],
            "unequal share": left(lambda: distributed.own_rows(7)),
            "flags": distributed.any_process(rank == 1, False, True),
            "mean": distributed.mean_over_processes(torch.tensor([float(rank), 3.0])),
            "nan": distributed.mean_over_processes(torch.tensor([float("nan") if rank else 1.0])),
            "first": distributed.on_first(lambda: f"made by {rank}"),
            "first failed": left(lambda: distributed.on_first(lambda: _fail("no room"))),
            "one failed": left(lambda: _fail_together(1)),
            "none failed": left(lambda: _fail_together(2)),
            "equal": left(lambda: distributed.check_equal("same", "images")),
            "unequal": left(lambda: distributed.check_equal(rank, "images")),
            "device": left(lambda: distributed.own_device("cuda:0")),
            "nan in one": left(lambda: _train_with_nan_in_one_process(data, out / "nan")),
            "missing in one": left(lambda: _train_with_images_missing_in_one_process(data, out / "missing")),
        }
        torch.save(found, out / f"{rank}.pt")


if __name__ == "__main__":
    np.seterr(all="raise")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
