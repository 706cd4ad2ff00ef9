"""What bounds a training step: its operations, and how fast this machine can do them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_COUNTED_BATCH = 2
_COLOURS = 3
_PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}
_LEAST_SECONDS = 0.02
_REPEATS = 5
Clock = Callable[[], float]
"""Seconds, rising: of the wall, or of this process's work."""


@dataclass(frozen=True, slots=True)
class ConvolutionCost:
    """One convolution of the network, alone: the best of a few runs, in the memory layout that training uses."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    input_hw: tuple[int, int]
    count: int
    """How often the network has it."""
    gflop: float
    """Of one forward pass of the batch, 2 x multiply-accumulate; the backward pass has twice that."""
    forward_s: float
    backward_s: float


def count_flop(network: nn.Module, size_hw: tuple[int, int]) -> tuple[float, float]:
    """Operations an image, 2 x multiply-accumulate, by PyTorch's counter: convolutions and matrix products.

    Args:
        network: In training mode; it is left without gradients. It gives a tuple of tensors.
        size_hw: Of the images.

    Returns:
        Of a forward pass, and of forward and backward together.
    """
    parameter = next(network.parameters())
    images = torch.zeros(_COUNTED_BATCH, _COLOURS, *size_hw, device=parameter.device)
    forward, both = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with both:
        with forward:
            outputs = network(images)
        torch.stack([output.sum() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    return forward.get_total_flops() / _COUNTED_BATCH, both.get_total_flops() / _COUNTED_BATCH


def product_rate(dtype: torch.dtype, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """FLOP/s of a product of two square matrices, the best of a few runs."""
    size = _PRODUCT_SIZE[device.type]
    first, second = torch.randn(2, size, size, device=device).to(dtype)
    return 2 * size**3 / _best_seconds(lambda: first @ second, device, clock)


def convolution_costs(
    network: nn.Module,
    batch: int,
    size_hw: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> list[ConvolutionCost]:
    """Time every convolution of a network alone, forward and backward: what a step takes if nothing else costs time.

    Args:
        network: Whose convolutions; it is run on two blank images.
        batch: Images a batch.
        size_hw: Of the images.
        dtype: To compute in.
        device: To time on.
        clock: To time with.
    """
    costs = []
    for (shape, input_hw), count in _shapes(network, size_hw).items():
        in_channels, out_channels, kernel, stride, padding = shape
        weight = _random((out_channels, in_channels, kernel, kernel), dtype, device)
        images = _random((batch, in_channels, *input_hw), dtype, device)
        times = _time_convolution(images, weight, stride, padding, clock)
        costs.append(ConvolutionCost(in_channels, out_channels, kernel, stride, input_hw, count, *times))
    return costs


def _time_convolution(
    images: Tensor, weight: Tensor, stride: int, padding: int, clock: Clock
) -> tuple[float, float, float]:
    """GFLOP of a forward pass, its seconds, the backward pass's seconds."""

    def forward() -> Tensor:
        with torch.no_grad():
            return F.conv2d(images, weight, stride=stride, padding=padding)

    def backward() -> None:
        wanted = [images.shape[1] > _COLOURS, True, False]  # nothing needs the gradient of the images
        torch.ops.aten.convolution_backward(
            gradient, images, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, wanted
        )

    output = forward()
    gradient = torch.randn_like(output)
    gflop = 2 * output.numel() * weight[0].numel() / 1e9
    return gflop, _best_seconds(forward, images.device, clock), _best_seconds(backward, images.device, clock)


def _shapes(network: nn.Module, size_hw: tuple[int, int]) -> Counter[tuple[tuple[int, ...], tuple[int, int]]]:
    """Channels in and out, kernel, stride, padding, and the input's size, of the square convolutions, counted."""
    shapes: Counter[tuple[tuple[int, ...], tuple[int, int]]] = Counter()

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.Conv2d):
            channels = (module.in_channels, module.out_channels)
            shape = (*channels, module.kernel_size[0], module.stride[0], int(module.padding[0]))
            shapes[shape, (inputs[0].shape[2], inputs[0].shape[3])] += 1

    hooks = [module.register_forward_pre_hook(note) for module in network.modules()]
    try:
        with torch.no_grad():
            network(torch.zeros(_COUNTED_BATCH, _COLOURS, *size_hw, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=torch.channels_last)


def _best_seconds(run: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Least time of a run, each measurement long enough for the clock."""
    run()
    count, best = 1, float("inf")
    for _ in range(_REPEATS):
        while True:
            seconds = measure(run, device, clock, count)
            if count * seconds >= _LEAST_SECONDS:
                break
            count *= 2
        best = min(best, seconds)
    return best


def measure(run: Callable[[], object], device: torch.device, clock: Clock, count: int = 1) -> float:
    """Seconds a run, over ``count`` runs, until the device has done all its work."""
    _synchronise(device)
    start = clock()
    for _ in range(count):
        run()
    _synchronise(device)
    return (clock() - start) / count


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
