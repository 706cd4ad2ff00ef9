"""The optimizer of a training run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.network import Hamr


def build_optimizer(network: Hamr, config: TrainConfig) -> torch.optim.Optimizer:
    """One group for the backbone and one for the rest, each with its ``factor`` of the schedule's rate.

    A step is one fused pass over weights, gradients and moments; without fusion it makes a temporary of each, which on
    a CPU takes 2 to 6 times as long.
    """
    backbone = list(network.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups: list[dict[str, Any]] = [
        {"params": backbone, "factor": 1.0},
        {"params": heads, "factor": config.head_lr_factor},
    ]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, config.learning_rate, weight_decay=config.weight_decay, fused=True)
    else:
        optimizer = torch.optim.SGD(
            groups, config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay, fused=True
        )
    optimizer.register_step_pre_hook(_lay_out_alike)
    return optimizer


def _lay_out_alike(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Give gradients and moments their weights' memory layout: PyTorch's fused steps go by memory, unchecked."""
    del args, kwargs
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
            state = optimizer.state.get(parameter, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and value.dim() and value.stride() != parameter.stride():
                    state[name] = torch.empty_like(parameter).copy_(value)
