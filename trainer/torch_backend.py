"""The reference backend: a checkpoint in PyTorch, batch normalisation not folded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hamr_edge.backend import Backend, check_device
from hamr_edge.errors import HamrEdgeError, UnavailableError
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, RESIZE_RULE
from hamr_edge.sidecar import Sidecar
from hamr_edge.stage_times import StageTimes, time_steps
from hamr_edge.trainer.augment import normalise
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.network import Hamr, NetworkConfig
from hamr_edge.trainer.torch_modes import TorchMode, build_embed, parse_mode

_MAX_BATCH = 32


class TorchBackend(Backend):
    """Runs a checkpoint, in float32 unless another mode is asked for.

    Args:
        artifact: Checkpoint folder.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        threads: CPU threads of PyTorch, for the whole process; unchanged when None.
        mode: ``eager``, ``bf16``, ``fp16`` (on GPUs), ``compile``, or a half type and compile joined by ``+``.
            Compiling takes up to minutes, at the first batch of one crop, of a few, and of many.

    Raises:
        InputError: The folder is not a whole checkpoint, or the mode is none, or not for this device.
        UnavailableError: The device asked for is not there, or no compiler.
    """

    def __init__(
        self, artifact: str | Path, device: str = "auto", threads: int | None = None, *, mode: str = "eager"
    ) -> None:
        chosen = choose_device(device)
        torch_mode = parse_mode(mode, chosen)
        network, info, sha256 = load_checkpoint(artifact)
        training = {"dataset": info.dataset, "epochs": info.epoch, "scores": info.scores, "pretrained": info.pretrained}
        self._attach(network, chosen, sha256, training, torch_mode)
        if threads is not None:
            torch.set_num_threads(threads)

    @classmethod
    def of_network(cls, network: Hamr, device: torch.device) -> TorchBackend:
        """A backend that shares a network under training; open while the network is in evaluation mode."""
        backend = cls.__new__(cls)
        backend._attach(network, device, "", {}, TorchMode())
        return backend

    def _attach(
        self, network: Hamr, device: torch.device, sha256: str, training: dict[str, object], mode: TorchMode
    ) -> None:
        self._network = network
        self._device = device
        self._mode = mode
        self._embed: Callable[[Tensor], Tensor] | None = None
        self.device = str(device)
        self.name = f"pytorch-{'compiled-' if mode.compiled else ''}{device.type}"
        self.sidecar = replace(describe_network(network.config, sha256, training), precision=mode.precision)

    @property
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""
        return self._embed is not None

    def open(self) -> None:
        """Put the network on the device, in evaluation mode; a second call does nothing."""
        if self._embed is None:
            self._network.to(self._device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
            self._embed = build_embed(self._network, self._mode, self._device)

    def close(self) -> None:
        """Refuse further batches; the network's memory goes with the backend."""
        self._embed = None

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._download(self._compute(self._upload(batch)))

    def _crop_stages(self, batch: NDArray[np.uint8]) -> StageTimes:
        if self._device.type == "cpu":
            return super()._crop_stages(batch)
        made: list[Any] = []

        def waited(step: Callable[[], Tensor]) -> Callable[[], None]:
            def run() -> None:
                made.append(step())
                torch.cuda.synchronize(self._device)

            return run

        return time_steps(
            waited(lambda: self._upload(batch)),
            waited(lambda: self._compute(made[0])),
            lambda: self._download(made[1]),
        )

    def _upload(self, batch: NDArray[np.uint8]) -> Tensor:
        readable = batch if batch.flags.writeable else batch.copy()  # torch warns of arrays it could not write to
        return torch.from_numpy(readable).to(self._device)

    @torch.inference_mode()
    def _compute(self, images: Tensor) -> Tensor:
        if self._embed is None:  # closed by another thread
            raise HamrEdgeError(f"{self.name} backend was closed while a call ran")
        # On a GPU, convolutions round to TF32 unless told not to: no reference.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._embed(normalise(images)).float()

    def _download(self, embeddings: Tensor) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = embeddings.cpu().numpy()
        return rows


def describe_network(config: NetworkConfig, sha256: str, training: dict[str, object]) -> Sidecar:
    """The sidecar of a checkpoint; an export starts from it."""
    return Sidecar(
        artifact_sha256=sha256,
        source_sha256=sha256,
        input_size_hw=config.input_size_hw,
        embedding_dim=config.embedding_dim,
        max_batch=_MAX_BATCH,
        precision="fp32",
        mean=IMAGENET_MEAN_RGB[::-1],
        std=IMAGENET_STD_RGB[::-1],
        resize=RESIZE_RULE,
        network=config.to_json(),
        training=training,
    )


def choose_device(device: str) -> torch.device:
    """The torch device for ``cpu``, ``cuda:N`` or ``auto``.

    Raises:
        InputError: Not the name of a device.
        UnavailableError: The GPU asked for is not there.
    """
    check_device(device)
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise UnavailableError(
            f"{device} was asked for, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; "
            "install a CUDA build of torch and a driver, or use --device cpu"
        )
    return chosen
