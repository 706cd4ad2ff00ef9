from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hamr_edge.errors import InputError
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.heads import PartHeads, level_sizes, part_windows
from hamr_edge.trainer.losses import hamr_loss
from hamr_edge.trainer.network import Hamr, NetworkConfig
from tests.reference_hamr import ReferenceHamr, reference_loss

CLASSES = 4
ORDERS = ("cat", "s+cat", "c+cat", "cat+c+s", "c+s+cat", "c+cat+s", "cat+s+c", "s+c+cat", "s+cat+c", "cat+s", "cat+c")
STAGES = ((1,), (2,), (3,), (4,), (1, 2), (1, 2, 3), (2, 3, 4))
LABELS = torch.tensor([0, 0, 1, 1, 3, 3])


def small_network(
    backbone: str = "resnet18", stripes: int = 3, size_hw: tuple[int, int] = (96, 32), **switches: Any
) -> Hamr:
    torch.manual_seed(0)
    config = NetworkConfig(backbone, size_hw, stripes=stripes, reduced_dim=16, part_dim=8, **switches)
    network = Hamr(config, CLASSES).double()
    for module in network.modules():  # statistics and gains that are not the neutral ones
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def images(size_hw: tuple[int, int] = (96, 32)) -> Tensor:
    return torch.randn(len(LABELS), 3, *size_hw, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("backbone", "stripes", "size_hw"),
    [("resnet18", 6, (192, 32)), ("resnet50", 3, (96, 32)), ("resnet34", 2, (64, 48)), ("resnet18", 1, (32, 32))],
)
@pytest.mark.parametrize("training", [True, False])
def test_network_equals_the_papers_text(backbone: str, stripes: int, size_hw: tuple[int, int], training: bool) -> None:
    check_against_the_text(small_network(backbone, stripes, size_hw), training)


@pytest.mark.parametrize(
    "switches",
    [
        *({"attention": order} for order in ORDERS),
        *({"stages": stages} for stages in STAGES),
        {"stages": (1, 4), "attention": "c+s+cat", "last_stride": 2, "stripes": 1},
        {"last_stride": 2},
        {"partition": "pcb"},
        {"pooling": "max"},
        {"pooling": "avg", "stripes": 1},
    ],
    ids=str,
)
def test_every_switch_equals_its_text(switches: dict[str, Any]) -> None:
    check_against_the_text(small_network(**switches), training=False)


def check_against_the_text(network: Hamr, training: bool) -> None:
    reference = ReferenceHamr(network)
    network.train(training)
    reference.train(training)
    batch = images(network.config.input_size_hw)
    with torch.no_grad():
        features = network(batch)
        expected = reference(batch)
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-9, atol=1e-9)
    assert network.config.embedding_dim == features.embedding.shape[0] * features.embedding.shape[2]


def test_the_generalised_mean_is_the_mean_at_1_and_nears_the_maximum() -> None:
    features = 1 + torch.rand(2, 7, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    pools = {pooling: PartHeads(7, 3, "mgo", pooling, 4, 4, 2).double() for pooling in ("max", "avg", "gem")}
    exponent = pools["gem"].gem_exponent
    assert exponent is not None
    with torch.no_grad():
        exponent.fill_(1)
        torch.testing.assert_close(pools["gem"].pool(features), pools["avg"].pool(features), rtol=1e-6, atol=1e-9)
        exponent.fill_(100)
        torch.testing.assert_close(pools["gem"].pool(features), pools["max"].pool(features), rtol=4e-2, atol=0)
    pools["gem"].pool(features).sum().backward()
    assert exponent.grad is not None
    assert torch.isfinite(exponent.grad)


def test_a_dropped_block_is_gone_for_the_heads() -> None:
    network = small_network().eval()
    keep = torch.ones(6, 1, dtype=torch.float64)
    keep[2:4] = 0
    with torch.no_grad():
        cut = network(images(), keep)
        fused = network.fuse(images())
        fused[:, :, 2:4] = 0
        for ours, wanted in zip(cut, network.heads(network.heads.pool(fused)), strict=True):
            torch.testing.assert_close(ours, wanted)


def test_stages_that_are_not_fused_are_not_built_beyond_the_last() -> None:
    names = {name.split(".")[1] for name, _ in small_network(stages=(1, 2)).named_parameters() if "layer" in name}
    assert names == {"layer1", "layer2"}


@pytest.mark.parametrize("margin", [1.0, 0.01])
def test_losses_and_gradients_equal_the_papers_text(margin: float) -> None:
    network = small_network()
    reference = ReferenceHamr(network)
    features = network(images())
    loss = hamr_loss(features, LABELS, TrainConfig(network.config, margin=margin))
    loss.total.backward()
    ours = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()

    triplets, _, logits = reference(images())
    expected = reference_loss(triplets, logits, LABELS, 3, margin, 0.1)
    torch.testing.assert_close(loss.total, expected, rtol=1e-9, atol=1e-9)
    expected.backward()
    for name, parameter in network.named_parameters():
        if not name.startswith("heads."):
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-7, atol=1e-9, msg=name)
    for index, part in enumerate(reference.parts):
        reduced, width = part.conv.weight.shape[0], part.fc.weight.shape[0]
        pairs = [
            (ours["heads.reduce"][index], part.conv.weight.grad[:, :, 0, 0].t()),
            (ours["heads.project"][index], part.fc.weight.grad.t()),
            (ours["heads.classify"][index], part.classifier.weight.grad.t()),
            (ours["heads.classify_bias"][index, 0], part.classifier.bias.grad),
            (ours["heads.reduce_bn.weight"][index * reduced : (index + 1) * reduced], part.bn1.weight.grad),
            (ours["heads.project_bn.bias"][index * width : (index + 1) * width], part.bn2.bias.grad),
        ]
        for value, wanted in pairs:
            torch.testing.assert_close(value, wanted, rtol=1e-7, atol=1e-9)


def test_the_papers_shapes() -> None:
    config = NetworkConfig()
    assert config.parts == 21
    assert config.embedding_dim == 10_752
    with torch.device("meta"):
        network = Hamr(config, 751)
    assert sum(p.numel() for n, p in network.named_parameters() if "classify" not in n) == pytest.approx(
        69.4e6, rel=2e-3
    )
    fused = network.fuse(torch.zeros(2, 3, 384, 128, device="meta"))
    assert fused.shape == (2, 3840, 24, 8)


def test_windows_are_levels_of_adjacent_stripes() -> None:
    assert part_windows(3) == [(0, 3), (0, 2), (1, 3), (0, 1), (1, 2), (2, 3)]
    assert level_sizes(3) == [1, 2, 3]
    assert part_windows(3, "pcb") == [(0, 1), (1, 2), (2, 3)]
    assert level_sizes(3, "pcb") == [3]


def test_embedding_rows_are_unit() -> None:
    network = small_network().eval()
    with torch.no_grad():
        norms = network.embed(images()).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet19"}, "resnet18, resnet34"),
        ({"input_size_hw": (200, 64)}, "multiple of 96 x 16"),
        ({"input_size_hw": (192, 60)}, "got 192 x 60"),
        ({"stripes": 0}, r"stripes must be in 1\.\.24, got 0"),
        ({"stages": (2, 1)}, "ascending, got"),
        ({"stages": (1, 5)}, "some of 1, 2, 3, 4"),
        ({"stages": ()}, "some of 1, 2, 3, 4"),
        ({"attention": "s+c"}, "cat"),
        ({"attention": "s+cat+s"}, "like s.cat.c"),
        ({"attention": ""}, "like s.cat.c"),
        ({"last_stride": 3}, "last_stride must be one of 1, 2, got 3"),
        ({"last_stride": 2, "input_size_hw": (96, 64)}, "multiple of 192 x 32"),
        ({"partition": "stripes"}, "mgo, pcb"),
        ({"pooling": "mean"}, "both, max, avg, gem"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkConfig(**settings)  # type: ignore[arg-type]
