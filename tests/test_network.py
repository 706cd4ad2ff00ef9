from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hamr_edge.errors import InputError
from hamr_edge.trainer.losses import hamr_loss, triplet_loss
from hamr_edge.trainer.network import Hamr, NetworkConfig, part_levels, part_windows
from tests.reference_hamr import ReferenceHamr, reference_loss

CLASSES = 4
LABELS = torch.tensor([0, 0, 1, 1, 3, 3])


def small_network(backbone: str = "resnet18", stripes: int = 3, size_hw: tuple[int, int] = (96, 32)) -> Hamr:
    torch.manual_seed(0)
    config = NetworkConfig(backbone, size_hw, stripes=stripes, reduced_dim=16, part_dim=8)
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
    network = small_network(backbone, stripes, size_hw)
    reference = ReferenceHamr(network)
    network.train(training)
    reference.train(training)
    with torch.no_grad():
        features = network(images(size_hw))
        expected = reference(images(size_hw))
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("margin", [1.0, 0.01])
def test_losses_and_gradients_equal_the_papers_text(margin: float) -> None:
    network = small_network()
    reference = ReferenceHamr(network)
    features = network(images())
    loss = hamr_loss(features, LABELS, stripes=3, margin=margin)
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


def test_triplet_loss_on_unit_vectors() -> None:
    features = torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours = triplet_loss(features, LABELS, stripes=2, margin=0.3, normalize=True)
    hinges = []
    for parts in ([0], [1, 2]):
        level = torch.nn.functional.normalize(torch.cat([features[part] for part in parts], dim=1), dim=1)
        distance = torch.cdist(level, level)
        same = LABELS[:, None] == LABELS[None, :]
        positive = torch.where(same, distance, 0).amax(1)
        negative = torch.where(same, torch.inf, distance).amin(1)
        hinges.append(torch.relu(positive - negative + 0.3).mean())
    torch.testing.assert_close(ours, torch.stack(hinges).mean(), rtol=1e-9, atol=1e-9)


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
    assert part_levels(3) == [0, 1, 1, 2, 2, 2]


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
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkConfig(**settings)  # type: ignore[arg-type]
