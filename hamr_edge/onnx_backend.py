"""Runs an ONNX artifact on ONNX Runtime, on the CPU or a CUDA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend, check_device
from hamr_edge.errors import ArtifactError, InputError
from hamr_edge.input_description import parse_input_description
from hamr_edge.onnx_binding import BoundSession
from hamr_edge.onnx_session import open_session, resolve_device
from hamr_edge.sidecar import Sidecar, load_sidecar
from hamr_edge.stage_times import StageTimes

CPU_PRECISION = "int8-cpu"
"""Made for ONNX Runtime's CPU kernels: other devices lack its operators."""


def fuses_quantised(sidecar: Sidecar) -> bool:
    """Whether ONNX Runtime may make integer kernels of an artifact's Q/DQ: not of what stands in for TensorRT."""
    return sidecar.precision != "int8"


class OnnxBackend(Backend):
    """Runs an exported ``.onnx`` file: ``images`` -> ``embeddings``, or ``frame`` and ``boxes`` -> ``embeddings``.

    Args:
        artifact: The ``.onnx`` file; its sidecar must lie beside it.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        threads: CPU threads of one inference; ONNX Runtime's default when None.
        allow_cpu_nodes: On a GPU, let the CPU run what the GPU lacks kernels for.
        device_buffers: Keep inputs and outputs in buffers on the device: on a GPU when None. On the CPU that is one
            copy more.

    Raises:
        ArtifactError: The sidecar is missing or wrong.
        InputError: ``device`` is none, or the artifact is made for CPUs and a GPU was asked for.
        UnavailableError: ONNX Runtime or the device is not there.
    """

    def __init__(
        self,
        artifact: str | Path,
        device: str = "auto",
        threads: int | None = None,
        *,
        allow_cpu_nodes: bool = False,
        device_buffers: bool | None = None,
    ) -> None:
        self.sidecar = load_sidecar(artifact)
        self._path = Path(artifact)
        if self.sidecar.precision == CPU_PRECISION and device != "cpu":
            check_device(device)
            if device != "auto":
                raise InputError(f"{artifact} is made for CPUs; take model.int8.onnx or model.fp16.onnx for {device}")
            device = "cpu"
        self._prepare = parse_input_description(self.sidecar.input).prepare if self.sidecar.input else None
        self._asked_device = device
        self._threads = threads
        self._allow_cpu_nodes = allow_cpu_nodes
        self._device_buffers = device_buffers
        self._session: Any = None
        self._bound: BoundSession | None = None
        self._use(resolve_device(device))

    def _use(self, device: str) -> None:
        self.device = device
        self.name = f"onnxruntime-{device.split(':')[0]}"

    @property
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""
        return self._session is not None

    def open(self) -> None:
        """Load the artifact and hold its inputs and outputs against the sidecar; a second call does nothing."""
        if self.is_open:
            return
        session, device = open_session(
            self._path,
            self._asked_device,
            self._threads,
            fuse_quantised=fuses_quantised(self.sidecar),
            allow_cpu_nodes=self._allow_cpu_nodes,
        )
        found = [
            (value.name, value.type, *(size if isinstance(size, int) else "any" for size in value.shape[1:]))
            for value in (*session.get_inputs(), *session.get_outputs())
        ]
        expected = [*self._inputs(), ("embeddings", "tensor(float)", self.sidecar.embedding_dim)]
        if found != expected:
            raise ArtifactError(f"{self._path} takes and gives {found}; its sidecar says {expected}")
        if self._device_buffers if self._device_buffers is not None else device != "cpu":
            self._bound = BoundSession(session, device, self.sidecar.max_batch, self.sidecar.embedding_dim)
        self._session = session
        self._use(device)

    def _inputs(self) -> list[tuple[str | int, ...]]:
        """Names, types and sizes behind the first of the inputs that the sidecar's form has."""
        if self.sidecar.form == "frame":
            return [("frame", "tensor(uint8)", "any", 3), ("boxes", "tensor(float)", 4)]
        if self.sidecar.form == "nchw":
            return [("images", "tensor(float)", 3, *self.sidecar.input_size_hw)]
        return [("images", "tensor(uint8)", *self.sidecar.input_size_hw, 3)]

    def close(self) -> None:
        """Give the session's memory back."""
        self._bound = None
        self._session = None

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run({"images": self._images(batch)}, len(batch))

    def _images(self, batch: NDArray[np.uint8]) -> NDArray[np.generic]:
        """Crops as the artifact takes them; the ``nchw`` form is for tools that prepare them themselves."""
        return batch if self._prepare is None else self._prepare(batch)

    def _infer_frame(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._run({"frame": frame, "boxes": boxes}, len(boxes))

    def _crop_stages(self, batch: NDArray[np.uint8]) -> StageTimes:
        if self._bound is None:
            return super()._crop_stages(batch)
        return self._bound.run_stages({"images": self._images(batch)}, len(batch))

    def _frame_stages(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> StageTimes:
        if self._bound is None:
            return super()._frame_stages(frame, boxes)
        return self._bound.run_stages({"frame": frame, "boxes": boxes}, len(boxes))

    def _run(self, feeds: dict[str, NDArray[Any]], rows: int) -> NDArray[np.float32]:
        if self._bound is not None:
            return self._bound.run(feeds, rows)
        embeddings: NDArray[np.float32] = self._session.run(["embeddings"], feeds)[0]
        return embeddings
