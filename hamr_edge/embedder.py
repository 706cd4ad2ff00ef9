"""The public face of the runtime: embeddings of the people in a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.backend import Backend, OnDevice, open_backend
from hamr_edge.openable import Openable
from hamr_edge.preprocess import check_image, crop_boxes, stack_crops
from hamr_edge.sidecar import Sidecar

if TYPE_CHECKING:
    from hamr_edge.device_embeddings import DeviceEmbeddings


class Embedder(Openable):
    """Embeds detector crops.

    ::

        with Embedder("build/model.fp32.onnx") as embedder:
            embeddings = embedder.embed(frame, boxes)

    Not safe to share between threads, but for engines: use one embedder a thread.

    Args:
        model: An artifact, a checkpoint folder, or a backend; a backend that came open stays open afterwards.
        device: ``cpu``, ``cuda:N`` or ``auto``; ``embedder.device`` says what is used. Not for a backend.
        threads: CPU threads of one inference; the library's default when None. Not for a backend.

    Raises:
        InputError: See :func:`hamr_edge.backend.open_backend`.
        UnavailableError: A library or the device asked for is not there.
    """

    def __init__(self, model: str | Path | Backend, device: str = "auto", threads: int | None = None) -> None:
        self._backend = model if isinstance(model, Backend) else open_backend(model, device, threads)
        self._owns_backend = not self._backend.is_open

    def open(self) -> None:
        """Load the model; for callers that cannot use a ``with`` statement."""
        self._backend.open()

    def close(self) -> None:
        """Give the model's memory back."""
        if self._owns_backend:
            self._backend.close()

    @property
    def sidecar(self) -> Sidecar:
        """What is known about the model: input size, embedding width, precision, scores."""
        return self._backend.sidecar

    @property
    def device(self) -> str:
        """The device in use."""
        return self._backend.device

    @property
    def backend_name(self) -> str:
        """Library and device, like ``onnxruntime-cpu``."""
        return self._backend.name

    @overload
    def embed(
        self, frame: NDArray[np.uint8] | OnDevice, boxes: ArrayLike, to_host: Literal[True] = True
    ) -> NDArray[np.float32]: ...

    @overload
    def embed(
        self, frame: NDArray[np.uint8] | OnDevice, boxes: ArrayLike, to_host: Literal[False]
    ) -> DeviceEmbeddings: ...

    def embed(
        self, frame: NDArray[np.uint8] | OnDevice, boxes: ArrayLike, to_host: bool = True
    ) -> NDArray[np.float32] | DeviceEmbeddings:
        """Embed the people in a frame.

        An artifact in the ``frame`` form crops and resizes inside its graph; for one in the ``crops`` form that is
        done here.

        Args:
            frame: (H, W, 3) uint8 BGR, as OpenCV reads it. An engine in the frame form takes one that is on its GPU
                already, of any library with DLPack or the CUDA array interface.
            boxes: (N, 4) xyxy pixels; partly outside the frame is clipped.
            to_host: False leaves the embeddings on the GPU, for PyTorch, CuPy and others; engines alone can.

        Returns:
            (N, D) float32, rows of unit L2 norm in the boxes' order; (0, D) for no boxes. The caller owns it.

        Raises:
            InputError: The frame or a box is not as expected; the message names the row.
        """
        if self.sidecar.form == "frame":
            infer_frame = self._backend.infer_frame if to_host else self._backend.infer_frame_to_device
            return infer_frame(frame, boxes)
        crops = self.crop(check_image(frame), boxes)
        return self._backend.infer(crops) if to_host else self._backend.infer_to_device(crops)

    def embed_crops(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed (H, W, 3) uint8 BGR crops of any sizes: (N, D) float32, as :meth:`embed`."""
        return self.embed_batch(stack_crops(crops, self.sidecar.input_size_hw))

    def crop(self, frame: NDArray[np.uint8], boxes: ArrayLike) -> NDArray[np.uint8]:
        """The first half of :meth:`embed` outside any graph: (N, H, W, 3) uint8 crops at the model's input size."""
        return crop_boxes(frame, boxes, self.sidecar.input_size_hw)

    def embed_batch(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The second half of :meth:`embed`: embed crops that are at the model's input size."""
        return self._backend.infer(batch)
