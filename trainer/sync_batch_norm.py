"""Batch normalisation over the whole batch where several processes share it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hamr_edge.trainer.distributed import gather, process_count


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Let every batch normalisation of a network take its statistics over all processes; names of weights stay.

    Args:
        network: Changed in place.
        device: On a GPU the layers are torch.nn.SyncBatchNorm, which has no form for the CPU.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
                setattr(module, name, GatheredBatchNorm(child))


class GatheredBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose mean and variance are those of all processes' rows; all have the same number of rows.

    The global variance is the mean of the processes' variances plus the variance of their means (Chan et al., 1979),
    which unlike the mean of the squares loses no digits.

    Args:
        replaced: The layer whose weights and running statistics this one takes over.
    """

    def __init__(self, replaced: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__(replaced.num_features, replaced.eps, replaced.momentum)
        self.weight, self.bias = replaced.weight, replaced.bias
        self.running_mean, self.running_var = replaced.running_mean, replaced.running_var
        self.num_batches_tracked = replaced.num_batches_tracked

    def _check_input_dim(self, input: Tensor) -> None:
        del input  # (N, C) and (N, C, H, W) alike

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, H, W) to the same shape and type."""
        if not self.training:
            return super().forward(input)
        values = input.to(self.weight.dtype)  # under autocast the input has 16 bits
        variance, mean = torch.var_mean(values, [0, *range(2, input.dim())], correction=0)
        means, variances = gather(torch.stack([mean, variance])[None], 0).unbind(1)  # each (processes, C)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._track(mean.detach(), variance.detach(), process_count() * input.numel() // input.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        shape = (1, -1) + (1,) * (input.dim() - 2)
        return (values * scale.view(shape) + shift.view(shape)).to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics as PyTorch does: with the unbiased variance."""
        momentum = self.momentum or 0.0
        for running, batch in ((self.running_mean, mean), (self.running_var, variance * (count / (count - 1)))):
            if running is not None:
                running.lerp_(batch, momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
