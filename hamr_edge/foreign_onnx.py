"""Runs an embedding model of others: any ``.onnx`` with one image in and one embedding out, by a description."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.errors import ArtifactError
from hamr_edge.input_description import parse_input_description
from hamr_edge.onnx_session import input_dtype, open_session, resolve_device
from hamr_edge.preprocess import RESIZE_RULE
from hamr_edge.sidecar import Sidecar, external_data_path, hash_file

_MAX_BATCH = 32
_EMBEDDINGS = ("embeddings", "features")
"""Which of several outputs is taken without being named."""
_PRECISIONS = {"float16": "fp16", "float32": "fp32", "uint8": "fp32"}


class ForeignOnnxBackend(Backend):
    """Runs a model that has no sidecar of ours; colour order, normalisation and layout are done here, in numpy.

    It gives embeddings as (N, D) or (N, D, 1, 1), normalised or not: here they are of unit L2 norm. A model of a fixed
    batch runs as often as it must, the last time padded.

    Args:
        artifact: The ``.onnx`` file.
        description: What it takes: see :func:`hamr_edge.input_description.parse_input_description`.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        threads: CPU threads of one inference; ONNX Runtime's default when None.

    Raises:
        InputError: The description has an error, or ``device`` is none.
        ArtifactError: The file is not there, is no such model, or takes something else than described.
        UnavailableError: ONNX Runtime or the device is not there.
    """

    def __init__(
        self, artifact: str | Path, description: str, device: str = "auto", threads: int | None = None
    ) -> None:
        self._path = Path(artifact)
        self._description = parse_input_description(description)
        self._asked_device = device
        self._threads = threads
        self._session: Any = None
        self._use(resolve_device(device))
        if not self._path.is_file():
            raise ArtifactError(f"artifact {self._path} is not there")
        # Without a sidecar, only the model itself says what it is.
        session, _ = open_session(self._path, "cpu", threads=1, spin=False)
        self._input = self._only_input(session)
        self._output = self._chosen_output(session)
        batch, size_hw = self._read_shape()
        self._fixed_batch = batch
        width = self._embed(session, np.zeros((1, *size_hw, 3), np.uint8)).shape[1]
        self.sidecar = self._describe(size_hw, width)

    def _use(self, device: str) -> None:
        self.device = device
        self.name = f"onnxruntime-{device.split(':')[0]}"

    @property
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""
        return self._session is not None

    def open(self) -> None:
        """Load the model; a second call does nothing."""
        if not self.is_open:
            self._session, device = open_session(self._path, self._asked_device, self._threads)
            self._use(device)

    def close(self) -> None:
        """Give the session's memory back."""
        self._session = None

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._embed(self._session, batch)

    def _embed(self, session: Any, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        step = self._fixed_batch or len(batch)
        runs = [self._run(session, batch[first : first + step]) for first in range(0, len(batch), step)]
        rows = np.concatenate(runs)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows

    def _run(self, session: Any, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One run: (N, D) float32 as the model gives them."""
        images = self._description.prepare(crops)
        missing = (self._fixed_batch or len(crops)) - len(crops)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        found = np.asarray(session.run([self._output], {self._input.name: images})[0])
        if found.ndim not in (2, 4) or len(found) != len(images) or any(side != 1 for side in found.shape[2:]):
            raise ArtifactError(
                f"{self._path}: output {self._output} must be (N, D) or (N, D, 1, 1), got {found.shape} for "
                f"{len(images)} images; it is no embedding of an image"
            )
        return found.reshape(len(found), -1)[: len(crops)].astype(np.float32)

    def _only_input(self, session: Any) -> Any:
        inputs = session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ArtifactError(f"{self._path} must take one image tensor of four sizes, it takes {_words(inputs)}")
        expected = self._description.dtype
        if (found := input_dtype(inputs[0]).name) != expected:
            names = {"float32": "float", "float16": "half", "uint8": "uint8"}
            raise ArtifactError(
                f"{self._path} takes {names[found]}, described as {names[expected]} ({self._description.words})"
            )
        return inputs[0]

    def _chosen_output(self, session: Any) -> str:
        """The one that is named, the only one, or the one that is called as embeddings are."""
        outputs = session.get_outputs()
        names = [output.name for output in outputs]
        wanted = self._description.output
        if wanted:
            if wanted not in names:
                raise ArtifactError(f"{self._path} has no output {wanted!r}; it gives {_words(outputs)}")
            return wanted
        likely = names if len(names) == 1 else [name for name in _EMBEDDINGS if name in names][:1]
        if not likely:
            raise ArtifactError(
                f"{self._path} has several outputs: {_words(outputs)}; name the embedding behind a colon, as "
                f"{self._description.words}:{names[0]}"
            )
        return str(likely[0])

    def _read_shape(self) -> tuple[int | None, tuple[int, int]]:
        """The batch, None where any will do, and height and width."""
        shape = [size if isinstance(size, int) else None for size in self._input.shape]
        last = self._description.layout == "nhwc"
        channels, sides = (shape[3], shape[1:3]) if last else (shape[1], shape[2:4])
        if channels not in (3, None):
            other = "nchw" if last else "nhwc"
            raise ArtifactError(
                f"{self._path} takes {_words([self._input])}, not 3 channels where {self._description.layout} has "
                f"them; images in colour alone will do, and if it is {other}, say so: {self._description.words}-{other}"
            )
        described = self._description.size_hw
        fixed = [side for side in sides if side is not None]
        if described is None and len(fixed) < 2:
            raise ArtifactError(
                f"{self._path} takes images of any size; say the one that it was trained on, height first, as "
                f"{self._description.words}-256x128"
            )
        size_hw = described or (fixed[0], fixed[1])
        if any(side not in (None, wanted) for side, wanted in zip(sides, size_hw, strict=True)):
            raise ArtifactError(
                f"{self._path} takes {_words([self._input])}, described as {size_hw[0]} x {size_hw[1]}; leave the size "
                "out"
            )
        return shape[0], size_hw

    def _describe(self, size_hw: tuple[int, int], width: int) -> Sidecar:
        sha256, data = hash_file(self._path), external_data_path(self._path)
        return Sidecar(
            artifact_sha256=sha256,
            input_size_hw=size_hw,
            embedding_dim=width,
            max_batch=max(_MAX_BATCH, self._fixed_batch or 0),
            precision=_PRECISIONS[self._description.dtype],
            source_sha256=sha256,
            external_data_sha256=hash_file(data) if data.is_file() else "",
            mean=self._description.mean_bgr,
            std=self._description.std_bgr,
            resize=RESIZE_RULE,
            network={"input": self._description.words, "output": self._output, "fixed_batch": self._fixed_batch},
        )


def _words(values: Sequence[Any]) -> str:
    return ", ".join(f"{value.name} {value.type} {value.shape}" for value in values) or "nothing"
