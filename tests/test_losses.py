"""Metric losses against loops over images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hamr_edge.trainer.config import PRESETS
from hamr_edge.trainer.heads import PartFeatures
from hamr_edge.trainer.losses import hamr_loss, identity_loss, level_products, triplet_loss

LABELS = torch.tensor([0, 0, 1, 1, 3, 3])
SIZES = [1, 2]


def features() -> Tensor:
    return torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def levels(unit: bool) -> list[Tensor]:
    joined = [torch.cat([features()[part] for part in parts], dim=1) for parts in ([0], [1, 2])]
    return [torch.nn.functional.normalize(level, dim=1) for level in joined] if unit else joined


def test_products_are_those_of_concatenated_features() -> None:
    expected = torch.stack([level @ level.T for level in levels(unit=False)])
    torch.testing.assert_close(level_products(features(), SIZES), expected)


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("margin", [0.3, None])
def test_triplet_loss_is_batch_hard(unit: bool, margin: float | None) -> None:
    ours = triplet_loss(level_products(features(), SIZES), LABELS, margin, normalize=unit)
    terms = []
    for level in levels(unit):
        distance = torch.cdist(level, level)
        for anchor, label in enumerate(LABELS):
            gap = distance[anchor][label == LABELS].max() - distance[anchor][label != LABELS].min()
            terms.append(torch.log1p(gap.exp()) if margin is None else torch.relu(gap + margin))
    torch.testing.assert_close(ours, torch.stack(terms).mean(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["triplet", "soft-triplet"])
def test_losses_fall_when_identities_part(kind: str) -> None:
    config = replace(PRESETS["edge"], metric_loss=kind, network=replace(PRESETS["edge"].network, stripes=2))
    centres = torch.eye(5)[LABELS].expand(3, -1, -1)
    logits = torch.zeros(3, 6, 4)

    def loss(noise: float) -> Tensor:
        moved = centres + noise * features().float()
        return hamr_loss(PartFeatures(moved, moved, logits), LABELS, config).triplet

    assert loss(0.01) < loss(1.0)


def test_the_metric_loss_sees_what_gather_gives() -> None:
    config = replace(PRESETS["edge"], network=replace(PRESETS["edge"].network, stripes=2))
    everything = features().float()
    logits = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(5))
    whole = hamr_loss(PartFeatures(everything, everything, logits), LABELS, config)

    def gather(tensor: Tensor, dim: int) -> Tensor:
        return everything if dim == 1 else LABELS

    half = PartFeatures(everything[:, :3], everything[:, :3], logits[:, :3])
    shared = hamr_loss(half, LABELS[:3], config, gather)
    assert shared.triplet == whole.triplet
    assert shared.identity == identity_loss(logits[:, :3], LABELS[:3], config.label_smoothing)
