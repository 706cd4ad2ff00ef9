"""Half types and compilation of a checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hamr_edge import InputError, UnavailableError, open_backend
from hamr_edge.backend import Backend
from hamr_edge.trainer.torch_backend import TorchBackend
from hamr_edge.trainer.torch_modes import TorchMode, build_embed, parse_mode
from tests.check_backend import check_backend

CPU = torch.device("cpu")
GPU = torch.device("cuda:0")
_compiles = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
_slow = pytest.mark.skipif(
    not {"HAMR_STRICT", "HAMR_COMPILE"} & set(os.environ),
    reason="slow: set HAMR_COMPILE=1, as CI does with HAMR_STRICT",
)


def _crops(count: int, backend: Backend) -> np.ndarray:
    height, width = backend.sidecar.input_size_hw
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def test_a_half_type_keeps_the_contract_and_is_close(checkpoint: Path) -> None:
    # A tiny network in bfloat16: a row's sums change their order with the batch.
    check_backend(open_backend(checkpoint, "cpu", mode="bf16"), atol=2e-2)
    with open_backend(checkpoint, "cpu") as plain, open_backend(checkpoint, "cpu", mode="bf16") as half:
        batch = _crops(8, plain)
        rows, expected = half.infer(batch), plain.infer(batch)
        assert (half.sidecar.precision, half.name) == ("bf16", "pytorch-cpu")
        assert (plain.sidecar.precision, plain.name) == ("fp32", "pytorch-cpu")
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (rows * expected).sum(axis=1).min() > 0.98
    assert np.abs(rows - expected).max() > 1e-5, "nothing was rounded"


class _Tiny(nn.Module):
    """What :func:`build_embed` needs of a network; compiling a real one takes half a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, bias=False)

    def embed(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 4)."""
        return nn.functional.normalize(self.convolution(images).relu().mean(dim=(2, 3)), dim=1)


@_compiles
@_slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_compiled_once_for_each_kind_of_batch(precision: str) -> None:
    """One crop, a few, many."""
    network = _Tiny().eval()
    run, images = build_embed(network, TorchMode(precision, compiled=True), CPU), torch.rand(32, 3, 8, 8)  # type: ignore[arg-type]
    plain = build_embed(network, TorchMode(precision), CPU)  # type: ignore[arg-type]
    with torch.inference_mode():
        for count in (1, 2, 20):
            run(images[:count].clone())
        with torch._dynamo.config.patch(error_on_recompile=True):
            for count in (1, 2, 3, 15, 20, 32, 4, 1):
                rows = run(images[:count].clone())
                np.testing.assert_allclose(rows, plain(images[:count]), atol=1e-5 if precision == "fp32" else 2e-2)
    torch.compiler.reset()


def test_a_compiled_backend_says_so(checkpoint: Path) -> None:
    backend = open_backend(checkpoint, "cpu", mode="bf16+compile")
    assert (backend.name, backend.sidecar.precision) == ("pytorch-compiled-cpu", "bf16")


@pytest.mark.parametrize(
    ("text", "device", "expected"),
    [
        ("eager", CPU, TorchMode()),
        ("bf16", CPU, TorchMode("bf16")),
        ("eager+bf16", CPU, TorchMode("bf16")),
        ("compile", CPU, TorchMode(compiled=True)),
        ("compile+bf16", CPU, TorchMode("bf16", compiled=True)),
        ("BF16+Compile", CPU, TorchMode("bf16", compiled=True)),
        ("fp16", GPU, TorchMode("fp16")),
        ("fp16+compile", GPU, TorchMode("fp16", compiled=True)),
    ],
)
def test_modes_are_read(text: str, device: torch.device, expected: TorchMode) -> None:
    assert parse_mode(text, device) == expected


@pytest.mark.parametrize("text", ["", "fast", "bf16+fp16", "eager+compile", "bf16,compile", "compile+", "bf16+bf16"])
def test_a_mode_that_is_none_is_told(text: str, checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"mode must be eager, bf16, fp16 or compile, or such as bf16\+compile"):
        open_backend(checkpoint, "cpu", mode=text)


def test_float16_on_a_cpu_is_refused_with_the_reason(checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"no fast float16 kernels for CPUs.*take bf16, or a GPU"):
        TorchBackend(checkpoint, "cpu", mode="fp16+compile")


def test_without_a_compiler_the_error_says_what_to_install(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnavailableError, match=r"there is no no-such-compiler; install one .*g\+\+"):
        open_backend(checkpoint, "cpu", mode="compile").open()
    assert not TorchBackend(checkpoint, "cpu", mode="compile").is_open


def test_a_mode_is_for_checkpoints(tiny_artifact: Path) -> None:
    with pytest.raises(InputError, match=r"mode 'bf16' is for checkpoint folders"):
        open_backend(tiny_artifact, "cpu", mode="bf16")


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eager", "bf16", "fp16", "compile", "fp16+compile"])
def test_on_a_gpu_modes_keep_the_contract(mode: str, checkpoint: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    check_backend(open_backend(checkpoint, "cuda:0", mode=mode), atol=1e-4 if mode in ("eager", "compile") else 2e-2)
