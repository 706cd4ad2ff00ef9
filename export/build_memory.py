"""Is there memory for a build? A device that shares its memory with the host kills what takes too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.errors import UnavailableError
from hamr_edge.sidecar import external_data_path

_MIB = 1 << 20
_HOST_BYTES, _HOST_PER_FILE = 256 * _MIB, 3.0
"""Of the host, measured: TensorRT for RTX 1.7.1 on Linux x86-64 took at most 256 MiB + 2.8 x the file beyond what the
process had before. It built ResNet-50 with 10,752 values in fp32, fp16 and int8 (files of 71 to 265 MiB) at batches of
1, 32 and 512, in both forms at 32; 36 builds, each in a process of its own (2026-11-22 and 23). Most took 2.0 to 2.5 x.
Enterprise TensorRT, which also loads the kernels that it measures, was not measured."""
_DEVICE_BYTES, _DEVICE_PER_FILE = 512 * _MIB, 2.0
"""Of the GPU, an estimate, since no GPU was at hand: context and libraries; and the weights, as they are and as a
tactic wants them."""
_LIVE_TENSORS = 3
"""Activations that are needed at once: a layer's inputs and its output."""
_ITEM_BYTES = 4


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a build takes and what is there, in bytes; None where it cannot be known."""

    host_wanted: int
    device_wanted: int
    host_free: int | None
    device_free: int | None
    shared: bool
    """The GPU takes its memory from the host's."""

    @property
    def missing(self) -> str:
        """What there is too little of, in words; empty where it is enough."""
        if self.shared and self.host_free is not None:
            wanted = self.host_wanted + self.device_wanted
            return _short("memory (shared by CPU and GPU)", wanted, self.host_free)
        return _short("host memory", self.host_wanted, self.host_free) or _short(
            "GPU memory", self.device_wanted, self.device_free
        )

    @property
    def spare_device_bytes(self) -> int | None:
        """What the GPU has beyond the need; None where it cannot be known."""
        if self.shared and self.host_free is not None:
            return max(0, self.host_free - self.host_wanted - self.device_wanted)
        return None if self.device_free is None else max(0, self.device_free - self.device_wanted)


def measure_need(
    network: Any,
    model_path: Path,
    profile: Mapping[str, Sequence[tuple[int, ...]]],
    workspace_bytes: int | None,
    device: CudaDevice | None,
    host_free: int | None,
) -> MemoryNeed:
    """Estimate what a build takes, and look at what is free.

    Args:
        network: Parsed.
        model_path: Its file: the weights, which may lie in a second file beside it.
        profile: The largest shapes are what counts.
        workspace_bytes: Scratch memory that was asked for; None asks for none beyond what is spare.
        device: The GPU; None builds without one.
        host_free: Bytes that the host had free before it parsed the network; None where they cannot be known.
    """
    data = external_data_path(model_path)
    weights = model_path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
    device_wanted = 0
    if device is not None:
        activations = sorted(_tensor_bytes(network, profile))[-_LIVE_TENSORS:]
        device_wanted = _DEVICE_BYTES + int(_DEVICE_PER_FILE * weights) + sum(activations) + (workspace_bytes or 0)
    return MemoryNeed(
        host_wanted=_HOST_BYTES + int(_HOST_PER_FILE * weights),
        device_wanted=device_wanted,
        host_free=host_free,
        device_free=None if device is None else device.free_bytes(),
        shared=device is not None and device.integrated,
    )


def check_need(need: MemoryNeed, model_path: Path) -> None:
    """Raise UnavailableError where a build would take more than is there."""
    if need.missing:
        raise UnavailableError(
            f"building {model_path.name} needs more than there is: {need.missing}. Close other programs, take a "
            "smaller --batch or --workspace, or build on a device of the same kind that has more; --no-memory-check "
            "builds all the same: add swap before, which is not counted here"
        )


def available_host_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Host memory that can be had without swapping; None where the system does not say."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _tensor_bytes(network: Any, profile: Mapping[str, Sequence[tuple[int, ...]]]) -> list[int]:
    """Size of every activation at the largest shapes, as if float32. What has no open side is made of weights."""
    batch = next(shapes[-1][0] for name, shapes in profile.items() if name != "frame")
    frame = profile["frame"][-1] if "frame" in profile else None
    sizes = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            try:
                sides = tuple(tensor.shape)
            except ValueError:  # of a rank that is not known before the build
                continue
            if -1 not in sides:
                continue
            # Two open sides are the frame's height and width, one is the batch.
            open_sides = list(frame[:2]) if frame is not None and sides.count(-1) == 2 else [batch] * sides.count(-1)
            size = _ITEM_BYTES
            for side in sides:
                size *= open_sides.pop(0) if side == -1 else side
            sizes.append(size)
    return sizes


def _short(what: str, wanted: int, free: int | None) -> str:
    if free is None or wanted <= free:
        return ""
    return f"about {wanted // _MIB:,} MiB of {what} are wanted, {free // _MIB:,} MiB are free"
