"""Runs an ONNX artifact on ONNX Runtime, on the CPU or a CUDA GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.errors import ArtifactError, UnavailableError
from hamr_edge.sidecar import load_sidecar

_log = logging.getLogger(__name__)
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            "ONNX Runtime is not installed; pip install 'hamr-edge[onnx]', or 'hamr-edge[gpu]' for CUDA"
        ) from error
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


class OnnxBackend(Backend):
    """Runs ``images`` -> ``embeddings`` of an exported ``.onnx`` file.

    Args:
        artifact: The ``.onnx`` file; its sidecar must lie beside it.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        threads: CPU threads of one inference; ONNX Runtime's default when None.

    Raises:
        ArtifactError: The sidecar is missing or wrong.
        UnavailableError: ONNX Runtime or the device is not there.
    """

    def __init__(self, artifact: str | Path, device: str = "auto", threads: int | None = None) -> None:
        self.sidecar = load_sidecar(artifact)
        self._ort = import_onnxruntime()
        self._path = Path(artifact)
        self._threads = threads
        self._session: Any = None
        has_cuda = _CUDA in self._ort.get_available_providers()
        if device.startswith("cuda") and not has_cuda:
            raise UnavailableError(
                f"{device} was asked for, but this onnxruntime {self._ort.__version__} has no {_CUDA}; "
                "pip uninstall onnxruntime, then pip install 'hamr-edge[gpu]'"
            )
        self._may_fall_back = device == "auto"
        self._use(("cuda:0" if has_cuda else "cpu") if device == "auto" else device)

    def _use(self, device: str) -> None:
        self.device = device
        self.name = f"onnxruntime-{device.split(':')[0]}"

    @property
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""
        return self._session is not None

    def open(self) -> None:
        """Load the artifact on the device asked for; only ``auto`` may fall back, and says so in the log."""
        if self.is_open:
            return
        try:
            self._session = self._create_session()
        except UnavailableError as error:
            if not self._may_fall_back:
                raise
            _log.warning("%s; using the CPU", error)
            self._use("cpu")
            self._session = self._create_session()
        found = [
            (value.name, value.type, *value.shape[1:])
            for value in (*self._session.get_inputs(), *self._session.get_outputs())
        ]
        expected = [
            ("images", "tensor(uint8)", *self.sidecar.input_size_hw, 3),
            ("embeddings", "tensor(float)", self.sidecar.embedding_dim),
        ]
        if found != expected:
            self.close()
            raise ArtifactError(f"{self._path} takes and gives {found}; its sidecar says {expected}")

    def _create_session(self) -> Any:
        options = self._ort.SessionOptions()
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if self.device == "cpu":
            try:
                return self._ort.InferenceSession(str(self._path), options, providers=[_CPU])
            except Exception as error:  # ONNX Runtime raises its own types, and RuntimeError
                raise ArtifactError(
                    f"ONNX Runtime {self._ort.__version__} cannot load {self._path}: {error}"
                ) from error
        # Without this, a CUDA library that does not load is a warning and the whole graph runs on the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = (_CUDA, {"device_id": self.device.split(":")[1]})
        try:
            session = self._ort.InferenceSession(str(self._path), options, providers=[provider])
        except Exception as error:  # ONNX Runtime raises its own types, and RuntimeError
            raise UnavailableError(f"{self.device} cannot run {self._path}: {error}") from error
        if session.get_providers()[0] != _CUDA:
            raise UnavailableError(
                f"{self.device} was asked for, but ONNX Runtime chose {session.get_providers()}; its CUDA or cuDNN "
                "libraries did not load ('hamr-edge doctor' says more)"
            )
        return session

    def close(self) -> None:
        """Give the session's memory back."""
        self._session = None

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = self._session.run(["embeddings"], {"images": batch})[0]
        return embeddings
