"""The contract that every backend keeps, and the one place that chooses a backend for an artifact."""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError
from hamr_edge.openable import Openable
from hamr_edge.sidecar import Sidecar


class Backend(Openable):
    """Runs one artifact on one device. A context manager: building it is cheap, device memory is taken on entry.

    Attributes:
        sidecar: What is known about the artifact.
        name: Library and device, as reports show them: ``onnxruntime-cpu``.
        device: The device in use, ``cpu`` or ``cuda:0``.
    """

    sidecar: Sidecar
    name: str
    device: str

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""

    @abstractmethod
    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a checked, contiguous batch of 1 to ``max_batch`` crops."""

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed crops.

        Args:
            batch: (N, H, W, 3) uint8 BGR crops of the sidecar's ``input_size_hw``. Any N: none gives (0, D), more than
                the maximum batch is split.

        Returns:
            (N, D) float32, rows of unit L2 norm; the caller owns it.

        Raises:
            InputError: Wrong type, dtype or shape.
            HamrEdgeError: The backend is not open.
        """
        if not self.is_open:
            raise HamrEdgeError(f"{self.name} backend is not open; use 'with open_backend(...) as backend:' or .open()")
        height, width = self.sidecar.input_size_hw
        expected = f"batch must be uint8 (N, {height}, {width}, 3) BGR"
        if not isinstance(batch, np.ndarray):
            raise InputError(f"{expected}, got {type(batch).__name__}")
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (height, width, 3):
            hint = "; a single crop is crop[None]" if batch.shape == (height, width, 3) else ""
            raise InputError(f"{expected}, got {batch.dtype} {batch.shape}{hint}")
        batch = np.ascontiguousarray(batch)
        limit = self.sidecar.max_batch
        if 0 < len(batch) <= limit:
            return self._infer(batch)
        embeddings = np.empty((len(batch), self.sidecar.embedding_dim), np.float32)
        for start in range(0, len(batch), limit):
            embeddings[start : start + limit] = self._infer(batch[start : start + limit])
        return embeddings


def check_device(device: str) -> None:
    """Raise InputError unless ``device`` is ``auto``, ``cpu`` or ``cuda:N``."""
    if device not in ("auto", "cpu") and not (device.startswith("cuda:") and device[5:].isdecimal()):
        raise InputError(f"device must be auto, cpu or cuda:N, got {device!r}")


_ONNX = "hamr_edge.onnx_backend:OnnxBackend"
_PYTORCH = "hamr_edge.trainer.torch_backend:TorchBackend"


def open_backend(artifact: str | Path, device: str = "auto", threads: int | None = None) -> Backend:
    """Choose the backend for an artifact. The libraries it needs are imported here, not before.

    Args:
        artifact: ``.onnx`` file (ONNX Runtime) or checkpoint folder (PyTorch, the reference).
        device: ``cpu``, ``cuda:0`` or ``auto`` (a GPU where one works, else the CPU; ``backend.device`` says which).
        threads: CPU threads of one inference; the library's default when None.

    Returns:
        A backend that is not open yet: use it in a ``with`` statement.

    Raises:
        InputError: The artifact is of no known kind, or ``device`` is not a device.
        ArtifactError: The artifact's sidecar is missing or wrong.
        UnavailableError: A library or the device asked for is not there.
    """
    path = Path(artifact)
    check_device(device)
    if path.is_dir():
        target = _PYTORCH
    elif path.suffix == ".onnx":
        target = _ONNX
    elif path.suffix == ".engine":
        raise UnavailableError(
            f"{path}: this version of hamr-edge does not run TensorRT engines yet; use the .onnx file"
        )
    elif not path.exists():
        raise InputError(f"model {path} is not there; expected an .onnx file or a checkpoint folder")
    else:
        raise InputError(f"model {path} is of no known kind; expected an .onnx file or a checkpoint folder")
    module_name, class_name = target.split(":")
    factory: Any = getattr(import_module(module_name), class_name)
    backend: Backend = factory(path, device=device, threads=threads)
    return backend
