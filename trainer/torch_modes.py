"""Ways to run a network in PyTorch besides the plain one: in a half type, compiled, or both."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.trainer.network import Hamr

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_WORDS = ("eager", "bf16", "fp16", "compile")
_COMPILED_AT_MOST = 64
"""Kinds of batches of all networks in a process; PyTorch's own limit is 8, which a few modes together reach."""


@dataclass(frozen=True, slots=True)
class TorchMode:
    """How PyTorch runs a network."""

    precision: str = "fp32"
    """Of weights and activations: ``fp32``, ``bf16`` or ``fp16``."""
    compiled: bool = False
    """By ``torch.compile``."""

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return _DTYPES.get(self.precision, torch.float32)


def parse_mode(text: str, device: torch.device) -> TorchMode:
    """Read ``eager``, ``bf16``, ``fp16``, ``compile``, or some joined by ``+``.

    Raises:
        InputError: A word is unknown, two do not go together, or the device cannot run it well.
    """
    words = text.lower().split("+")
    types = [word for word in words if word in _DTYPES]
    ways = [word for word in words if word in ("eager", "compile")]
    if set(words) - set(_WORDS) or len(types) > 1 or len(ways) > 1:
        raise InputError(f"mode must be eager, bf16, fp16 or compile, or such as bf16+compile, got {text!r}")
    if "fp16" in types and device.type == "cpu":
        raise InputError(
            f"mode {text!r}: PyTorch has no fast float16 kernels for CPUs, where it takes several times as long as "
            "float32; take bf16, or a GPU"
        )
    return TorchMode(types[0] if types else "fp32", "compile" in words)


def build_embed(network: Hamr, mode: TorchMode, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What maps normalised images to embeddings.

    In a half type the whole network is cast: on a CPU, autocast converts the weights again for every batch, which at
    batch 1 takes longer than float32. The last normalisation is in float32, so that rows are of unit norm.

    Args:
        network: On the device, in evaluation mode; its weights are cast to the mode's type.
        mode: See :func:`parse_mode`.
        device: Where it runs.

    Returns:
        (N, 3, H, W) float32 to (N, D) float32.

    Raises:
        UnavailableError: There is no compiler that ``torch.compile`` could use.
    """
    run = _compile(network.embed, device) if mode.compiled else network.embed
    if mode.precision == "fp32":
        return run
    network.to(mode.dtype)
    return lambda images: F.normalize(run(images.to(mode.dtype)).float(), dim=1)


def _compile(embed: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Compiled at the first batch of one crop, of a few and of many, and for each of those kinds once."""
    _check_compiler(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch against itself, while its compiler is imported
        import torch._dynamo
        import torch._inductor.compile_fx

        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_AT_MOST)
        # Whole or not at all: pieces that run plainly would be timed as if they were compiled.
        compiled: Callable[[Tensor], Tensor] = torch.compile(embed, fullgraph=True)

    def run(images: Tensor) -> Tensor:
        if len(images) > 1:
            # Else it is compiled for this size alone, and again for the next.
            torch._dynamo.mark_dynamic(images, 0)
        return compiled(images)

    return run


def _check_compiler(device: torch.device) -> None:
    if device.type == "cpu":
        compiler = os.environ.get("CXX", "g++")
        if shutil.which(compiler) is None:
            raise UnavailableError(
                f"torch.compile needs a C++ compiler, and there is no {compiler}; install one (on Ubuntu, apt install "
                "g++) or name it in CXX, or leave compile out"
            )
    elif find_spec("triton") is None:
        raise UnavailableError(
            f"torch.compile needs Triton for {device}; pip install triton (Linux), or leave compile out"
        )
