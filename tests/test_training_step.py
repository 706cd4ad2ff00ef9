"""The comparison of training steps: the authors' code is played by a small clone of its shape, nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from hamr_edge.errors import GateError, InputError
from hamr_edge.trainer import step_bound
from hamr_edge.trainer.authors_step import LEVELS, PARTS, AuthorsLosses, AuthorsStep, load_authors
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.heads import PartFeatures, level_sizes
from hamr_edge.trainer.losses import hamr_loss
from hamr_edge.trainer.resnet import ResNet
from hamr_edge.trainer.step_benchmark import step_benchmark
from hamr_edge.trainer.step_bound import convolution_costs, count_flop, product_rate

CPU = torch.device("cpu")
LABELS = torch.tensor([0, 0, 2, 2])
NETWORK = """
from torch import nn
from torchvision import models

class MultipleFeatures(nn.Module):
    def __init__(self, class_num):
        super().__init__()
        resnet = models.resnet50(pretrained=True)
        assert resnet.layer4[0].conv2.stride == resnet.layer4[0].downsample[0].stride == (2, 2)
        self.conv1 = resnet.conv1
        self.heads = nn.ModuleList(nn.Linear(64, class_num) for _ in range(21))

    def forward(self, images):
        pooled = self.conv1(images).mean((2, 3))
        return *(head(pooled) for head in self.heads), *(pooled for _ in range(6))
"""
LOSSES = """
import torch
from torch import nn

class TripletLoss:
    def __init__(self, margin):
        self.margin = margin

    def __call__(self, features, labels):
        hinges = []
        for anchor in range(len(labels)):
            distance = (features - features[anchor]).pow(2).sum(1).clamp(min=1e-12).sqrt()
            same = labels == labels[anchor]
            hinges.append((distance[same].max() - distance[~same].min() + self.margin).clamp(min=0))
        return torch.stack(hinges).mean(), None, None

class CrossEntropyLabelSmooth(nn.Module):
    def __init__(self, num_classes, epsilon=0.1, use_gpu=True):
        super().__init__()
        assert not use_gpu
        self.epsilon = epsilon

    def forward(self, logits, labels):
        target = nn.functional.one_hot(labels, logits.shape[1]) * (1 - self.epsilon) + self.epsilon / logits.shape[1]
        return -(target * logits.log_softmax(1)).sum(1).mean()
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "MultipleFeatureswithoutattention.py").write_text(NETWORK, encoding="utf-8")
    (tmp_path / "triplet_loss.py").write_text(LOSSES, encoding="utf-8")
    return tmp_path


def test_their_step_runs_from_a_clone_without_torchvision(clone: Path) -> None:
    before = {name for name in sys.modules if name.startswith("torchvision")}
    code = load_authors(clone)
    assert {name for name in sys.modules if name.startswith("torchvision")} == before
    assert code.revision
    step = AuthorsStep(code, 3, CPU, rate=0.1)
    weight = step.network.get_parameter("conv1.weight").detach().clone()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, right = step(images, LABELS)
    assert 0 <= right <= len(LABELS)
    assert not torch.equal(step.network.get_parameter("conv1.weight"), weight)
    for _ in range(20):
        last, _ = step(images, LABELS)
    assert last < first


def test_what_is_no_clone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs a clone of .*MultipleFeatureswithoutattention\.py is not there"):
        load_authors(tmp_path)


def test_both_losses_are_one_quantity(clone: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, triplet = (torch.randn(PARTS, 4, width, generator=generator) for width in (3, 5))
    config = TrainConfig(margin=0.7)
    levels = [torch.cat(tuple(level), 1) for level in triplet.split(level_sizes(LEVELS))]
    identity, metric = AuthorsLosses(load_authors(clone), 3, CPU, margin=0.7)(list(logits), levels, LABELS)
    ours = hamr_loss(PartFeatures(triplet, triplet, logits), LABELS, config)
    torch.testing.assert_close(torch.stack(ours), torch.stack([identity + metric, identity, metric]))


def test_operations_are_counted_twice_a_product_and_backward_twice_a_forward() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1))
    first, second = 2 * 6 * 5 * 3 * 8 * 9, 2 * 6 * 5 * 8 * 4
    forward, step = count_flop(network, (6, 5))
    assert forward == first + second
    assert step == 2 * first + 3 * second  # the images need no gradient
    assert network[0].weight.grad is None


def test_every_convolution_is_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_bound, "_LEAST_SECONDS", 0.0)
    network = ResNet("resnet18")
    costs = convolution_costs(network, 2, (32, 32), torch.float32, CPU)
    assert sum(cost.count for cost in costs) == sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert min(cost.forward_s for cost in costs) > 0
    assert min(cost.backward_s for cost in costs) > 0
    gflop = sum(cost.count * cost.gflop for cost in costs)
    assert gflop == pytest.approx(2 * count_flop(network, (32, 32))[0] / 1e9)
    assert product_rate(torch.float32, CPU) > 0


def test_the_command_reports_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_bound, "_LEAST_SECONDS", 0.0)
    target = tmp_path / "step.json"
    options = ["--size", "96", "32", "--batch", "8", "--rounds", "1", "--device", "cpu", "--json", str(target)]
    run = CliRunner().invoke(step_benchmark, options, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    assert "ours without attention" in run.output
    report = json.loads(target.read_text(encoding="utf-8"))
    assert [row["name"] for row in report["contestants"]] == ["ours", "ours without attention"]
    assert report["contestants"][0]["speedup"] == {"median": 1, "low": 1, "high": 1}
    assert all(len(row["times_s"]) == 1 for row in report["contestants"])
    gflop = report["bound"]["gflop_an_image"]["ours"]
    assert 2.9 < gflop["step"] / gflop["forward"] < 3
    assert report["authors_revision"] is None


def test_losses_that_differ_stop_the_comparison(clone: Path) -> None:
    other = LOSSES.replace("epsilon=0.1", "epsilon=0.2")
    (clone / "triplet_loss.py").write_text(other, encoding="utf-8")
    with pytest.raises(GateError, match="losses of the same features differ"):
        step_benchmark.main(["--authors", str(clone), "--batch", "8", "--device", "cpu"], standalone_mode=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch", "10"], "multiple of 4"),
        (["--authors", ".", "--size", "192", "64"], "takes 384 x 128 alone"),
        (["--cpu-time", "--threads", "2", "--device", "cpu"], "one thread"),
    ],
)
def test_wrong_options_are_named(options: list[str], message: str) -> None:
    threads = torch.get_num_threads()
    try:
        with pytest.raises(InputError, match=message):
            step_benchmark.main(options, standalone_mode=False)
    finally:
        torch.set_num_threads(threads)
