"""A look at the device's numbers that does not stop it."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A small tensor on its way to the CPU.

    Reading it waits for the work that made it and for nothing that was started later: a loop that reads the last step's
    loss after it has started the next step never leaves a GPU without work.

    Args:
        tensor: One-dimensional, on any device; it must not be changed afterwards.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._host = tensor.detach()
        self._arrived: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> list[float]:
        """The values."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[float] = self._host.tolist()
        return values
