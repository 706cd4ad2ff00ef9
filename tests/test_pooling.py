"""Pools with their own gradients equal PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hamr_edge.trainer.pooling import channel_pools, group_rows, row_pools


def plain_row_pools(features: Tensor) -> Tensor:
    return torch.cat([features.amax(3), features.mean(3)]).transpose(1, 2)


def own_row_pools(features: Tensor) -> Tensor:
    return torch.cat(row_pools(features))


def plain_channel_pools(features: Tensor) -> Tensor:
    return torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("own", "plain"), [(own_row_pools, plain_row_pools), (channel_pools, plain_channel_pools)], ids=("rows", "channels")
)
def test_values_and_gradients_are_the_plain_pools(
    own: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor], layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, 4, 6, dtype=torch.float64, generator=generator).contiguous(memory_format=layout)
    with torch.no_grad():
        torch.testing.assert_close(own(values), plain(values))
    gradients: list[Tensor] = []
    for pools in (own, plain):
        features = values.clone().requires_grad_()
        pooled = pools(features)
        torch.testing.assert_close(pooled, plain(values))
        weights = torch.randn(pooled.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        gradients += torch.autograd.grad(pooled, features, weights)
    torch.testing.assert_close(*gradients)
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "maximum",
    [
        lambda features: row_pools(features).maximum,
        lambda features: channel_pools(features)[:, 1:],
        lambda features: group_rows(row_pools(features), 1).maximum,
    ],
    ids=["rows", "channels", "groups"],
)
def test_of_equal_maxima_one_gets_the_gradient(maximum: Callable[[Tensor], Tensor]) -> None:
    """A compiler may compute maximum and map at different precision; a gradient that compares them would be 0 / 0."""
    features = torch.ones(1, 2, 2, 2, requires_grad=True)
    found = maximum(features)
    found.sum().backward()
    assert features.grad is not None
    assert features.grad.unique().tolist() == [0, 1]
    assert int(features.grad.sum()) == found.numel()


def test_one_pool_alone_may_be_used() -> None:
    features = torch.randn(2, 3, 4, 5, requires_grad=True)
    row_pools(features).mean.sum().backward()
    torch.testing.assert_close(features.grad, torch.full_like(features, 1 / 5))


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_groups_of_rows_are_pools_of_the_map(groups: int) -> None:
    features = torch.randn(2, 4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features.requires_grad_()
    found = group_rows(row_pools(features), groups)
    stripes = features.unflatten(2, (groups, -1)).flatten(3).transpose(1, 2)  # (N, groups, C, pixels)
    wanted = stripes.amax(3), stripes.mean(3)
    for ours, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, expected)
        weights = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        gradients = [torch.autograd.grad(pools, features, weights, retain_graph=True)[0] for pools in (ours, expected)]
        torch.testing.assert_close(*gradients)
    with torch.no_grad():
        for ours, expected in zip(group_rows(row_pools(features), groups), wanted, strict=True):
            torch.testing.assert_close(ours, expected)
