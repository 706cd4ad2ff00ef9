"""What training changes: the network, its average and the optimizer; and one step that changes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.trainer.average import build_average
from hamr_edge.trainer.batches import Batch
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.distributed import gather, mean_over_processes, process_count
from hamr_edge.trainer.heads import PartFeatures
from hamr_edge.trainer.host_copy import HostCopy
from hamr_edge.trainer.host_memory import keep_freed_memory
from hamr_edge.trainer.losses import hamr_loss
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.optimizer import build_optimizer
from hamr_edge.trainer.sync_batch_norm import synchronise_batch_norm


class Learner:
    """A network under training.

    With several processes each has a copy of it: gradients are averaged, so the copies stay equal. The metric loss is
    mined over the features of all processes and batch normalisation goes over all of them, unless ``sync_bn`` is off:
    so a batch means the same on any number of processes, where a batch for each would make the mining easier, and the
    result another, with every process more.

    Args:
        network: Is put on the device and changed.
        config: How to train.
        device: Of this process.

    Raises:
        InputError: The device has no such mixed precision.
        UnavailableError: ``compile`` needs a compiler that is not there.
    """

    def __init__(self, network: Hamr, config: TrainConfig, device: torch.device) -> None:
        self.network = network
        self._config = config
        self._device = device
        self._amp_dtype = choose_amp(config, device)
        if config.compile:
            _check_compiler(device)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes never change: the fastest convolution is worth a search
        else:
            keep_freed_memory()
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if process_count() > 1 and config.sync_bn:
            synchronise_batch_norm(network, device)
        self._average = build_average(network, config.ema) if config.ema else None
        self._optimizer = build_optimizer(network, config)
        self._scaler = torch.amp.GradScaler(enabled=self._amp_dtype == torch.float16)

    @property
    def best(self) -> Hamr:
        """The network to evaluate and to keep: the average, where there is one."""
        if self._average is None:
            return self.network
        return cast(Hamr, self._average.module)

    @cached_property
    def _forward(self) -> Callable[..., PartFeatures]:
        """What a step calls; made at the first one, since DistributedDataParallel waits for all processes."""
        module: nn.Module = self.network
        if process_count() > 1:
            devices = [self._device] if self._device.type == "cuda" else None
            module = DistributedDataParallel(self.network, device_ids=devices, gradient_as_bucket_view=True)
        return torch.compile(module) if self._config.compile else module

    def step(self, batch: Batch, rate: float) -> HostCopy:
        """Learn from one batch.

        Args:
            batch: This process's share of it.
            rate: The schedule's learning rate; each group of weights has its factor of it.

        Returns:
            The whole batch's total, ID and metric loss.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        with torch.autocast(self._device.type, self._amp_dtype, enabled=self._amp_dtype is not None):
            features = self._forward(batch.images, batch.keep)
        if self._amp_dtype is not None:
            features = PartFeatures(*(tensor.float() for tensor in features))
        loss = hamr_loss(features, batch.labels, self._config, gather if process_count() > 1 else None)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average is not None:
            self._average.update_parameters(self.network)
        return HostCopy(mean_over_processes(torch.stack(loss).detach()))

    def check_finite(self) -> None:
        """Refuse to go on, or to save, what has broken.

        Raises:
            HamrEdgeError: A weight is not finite.
        """
        weights = list(self.network.state_dict().items())
        if self._average is not None:
            weights += self._average.module.state_dict().items()
        finite = torch.stack([torch.isfinite(value).all() for _, value in weights]).tolist()
        broken = [name for (name, _), fine in zip(weights, finite, strict=True) if not fine]
        if broken:
            raise HamrEdgeError(
                f"{len(broken)} weights are not finite ({broken[0]}, ...) and are not saved; what was saved before is "
                "whole. Try a lower --learning-rate, or --amp off"
            )

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to go on bit for bit."""
        return {
            "network": self.network.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave in an earlier run; other keys are left alone.

        Raises:
            InputError: It does not fit.
        """
        try:
            self.network.load_state_dict(state["network"])
            if self._average is not None:
                self._average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:  # empty where the run began without one
                self._scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"it does not fit its own network: {str(error).strip().splitlines()[-1].strip()}"
            ) from error
        for parameter, values in self._optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                    raise InputError(
                        f"the optimizer's {name} has shape {tuple(value.shape)} for weights of {tuple(parameter.shape)}"
                    )


def choose_amp(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision, None for plain float32."""
    if config.amp == "off" or (config.amp == "auto" and device.type == "cpu"):
        return None
    if config.amp == "fp16" and device.type == "cpu":
        raise InputError("--amp fp16 needs a GPU; on a CPU use bf16 or off")
    if config.amp == "fp16" or (config.amp == "auto" and not torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.float16
    return torch.bfloat16


def _check_compiler(device: torch.device) -> None:
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise UnavailableError(
            f"--compile needs a C++ compiler and {compiler} is not there; install it, or leave it out"
        )
