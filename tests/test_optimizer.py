"""The optimizer of a training run."""

from __future__ import annotations

import io
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch

from hamr_edge.trainer.config import PRESETS
from hamr_edge.trainer.network import Hamr, NetworkConfig
from hamr_edge.trainer.optimizer import build_optimizer

TINY = replace(PRESETS["smoke"], network=NetworkConfig("resnet18", (32, 16), stripes=2, reduced_dim=8, part_dim=4))


def test_the_optimizer_is_the_settings_own() -> None:
    network = Hamr(TINY.network, 3)
    sgd = build_optimizer(network, replace(TINY, optimizer="sgd", weight_decay=0.02))
    assert isinstance(sgd, torch.optim.SGD)
    assert [(g["momentum"], g["nesterov"], g["weight_decay"]) for g in sgd.param_groups] == 2 * [(0.9, True, 0.02)]
    backbone, rest = ({id(parameter) for parameter in group["params"]} for group in sgd.param_groups)
    assert backbone == {id(parameter) for parameter in network.backbone.parameters()}
    assert backbone | rest == {id(parameter) for parameter in network.parameters()}
    assert not backbone & rest
    adam = build_optimizer(network, replace(TINY, weight_decay=0.02))
    assert isinstance(adam, torch.optim.Adam)
    assert adam.param_groups[1]["factor"] == TINY.head_lr_factor


def unfused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["fused"] = False
    return optimizer


def take_steps(network: Hamr, optimizer: torch.optim.Optimizer, seed: int, layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 4:
                parameter.grad = parameter.grad.contiguous(memory_format=layout)
        optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_steps_are_the_plain_ones_whatever_the_layout(name: Any, layout: torch.memory_format) -> None:
    config = replace(TINY, optimizer=name, weight_decay=0.02, learning_rate=0.01)
    torch.manual_seed(0)
    networks = [Hamr(TINY.network, 3)]
    networks.append(deepcopy(networks[0]))
    networks[0].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = [build_optimizer(networks[0], config), unfused(build_optimizer(networks[1], config))]
    for network, optimizer in zip(networks, optimizers, strict=True):
        take_steps(network, optimizer, 1, layout)
    for ours, plain in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_restored_optimizer_goes_on_as_one_that_never_stopped(name: Any) -> None:
    config = replace(TINY, optimizer=name, weight_decay=0.02, learning_rate=0.01)
    torch.manual_seed(0)
    unbroken = Hamr(TINY.network, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(unbroken, config)
    take_steps(unbroken, optimizer, 1, torch.channels_last)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict()}, file)
    resumed = deepcopy(unbroken)
    restored = build_optimizer(resumed, config)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True)["optimizer"])
    for values in restored.state.values():  # as a network that was saved in another layout would have them
        for key, value in values.items():
            if torch.is_tensor(value) and value.dim() == 4:
                values[key] = value.contiguous()
    for network, its in ((unbroken, optimizer), (resumed, restored)):
        take_steps(network, its, 2, torch.channels_last)
    for ours, wanted in zip(resumed.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(ours, wanted)
