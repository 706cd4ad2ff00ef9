"""The reference backend: a checkpoint in PyTorch, batch normalisation not folded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hamr_edge.backend import Backend, check_device
from hamr_edge.errors import UnavailableError
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, RESIZE_RULE
from hamr_edge.sidecar import Sidecar
from hamr_edge.trainer.augment import normalise
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.network import Hamr, NetworkConfig

_MAX_BATCH = 32


class TorchBackend(Backend):
    """Runs a checkpoint in float32.

    Args:
        artifact: Checkpoint folder.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        threads: CPU threads of PyTorch, for the whole process; unchanged when None.

    Raises:
        InputError: The folder is not a whole checkpoint.
        UnavailableError: The device asked for is not there.
    """

    def __init__(self, artifact: str | Path, device: str = "auto", threads: int | None = None) -> None:
        network, info, sha256 = load_checkpoint(artifact)
        training = {"dataset": info.dataset, "epochs": info.epoch, "scores": info.scores, "pretrained": info.pretrained}
        self._attach(network, choose_device(device), sha256, training)
        if threads is not None:
            torch.set_num_threads(threads)

    @classmethod
    def of_network(cls, network: Hamr, device: torch.device) -> TorchBackend:
        """A backend that shares a network under training; open while the network is in evaluation mode."""
        backend = cls.__new__(cls)
        backend._attach(network, device, "", {})
        return backend

    def _attach(self, network: Hamr, device: torch.device, sha256: str, training: dict[str, object]) -> None:
        self._network = network
        self._device = device
        self._open = False
        self.device = str(device)
        self.name = f"pytorch-{device.type}"
        self.sidecar = describe_network(network.config, sha256, training)

    @property
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""
        return self._open

    def open(self) -> None:
        """Put the network on the device, in evaluation mode."""
        self._network.to(self._device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._open = True

    def close(self) -> None:
        """Refuse further batches; the network's memory goes with the backend."""
        self._open = False

    @torch.inference_mode()
    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        readable = batch if batch.flags.writeable else batch.copy()  # torch warns of arrays it could not write to
        images = normalise(torch.from_numpy(readable).to(self._device))
        # On a GPU, convolutions round to TF32 unless told not to: no reference.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            embeddings: NDArray[np.float32] = self._network.embed(images).float().cpu().numpy()
        return embeddings


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
