"""A model in a comparison: one that a backend of ours runs, or a peer in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.benchmarks.cold_start import ColdStart
from hamr_edge.benchmarks.latency import SelfTimed
from hamr_edge.benchmarks.peer_process import PeerProcess
from hamr_edge.benchmarks.results import Role
from hamr_edge.embedder import Embedder
from hamr_edge.evaluation import embed_chunks, embed_files
from hamr_edge.openable import Openable
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import external_data_path

_PEER_CROPS = 32


@dataclass(slots=True)
class ModelContestant(Openable):
    """A checkpoint, ``.onnx`` or ``.engine``."""

    name: str
    role: Role
    model: str
    """As the user named it."""
    backend: Backend
    cold_options: tuple[tuple[str, str], ...] = ()
    """What a fresh process tells ``open_backend`` besides model, device and threads."""

    def open(self) -> None:
        """Load the model."""
        self.backend.open()

    def close(self) -> None:
        """Give its memory back."""
        self.backend.close()

    @property
    def label(self) -> str:
        """Library and device."""
        return self.backend.name

    @property
    def precision(self) -> str:
        """Of the sidecar."""
        return self.backend.sidecar.precision

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda:N``."""
        return self.backend.device

    @property
    def embedding_dim(self) -> int:
        """Values of an embedding."""
        return self.backend.sidecar.embedding_dim

    @property
    def max_batch(self) -> int:
        """Largest batch at once."""
        return self.backend.sidecar.max_batch

    @property
    def size_bytes(self) -> int:
        """The file and its weights beside it; of a checkpoint, its weights."""
        path = Path(self.model)
        files = (path / "weights.safetensors",) if path.is_dir() else (path, external_data_path(path))
        return sum(file.stat().st_size for file in files if file.is_file())

    def embed(self, paths: Sequence[Path], mirror: bool, quiet: bool) -> NDArray[np.float32]:
        """Embed image files: (N, D) float32."""
        return embed_files(self.backend, paths, mirror, quiet, self.name)

    def inference(self, images: Sequence[NDArray[np.uint8]]) -> Callable[[], object]:
        """From a ready batch in host memory to embeddings in host memory."""
        batch = stack_crops(images, self.backend.sidecar.input_size_hw)
        return lambda: self.backend.infer(batch)

    def whole_frame(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Callable[[], object]:
        """From a frame and its boxes to embeddings."""
        embedder = Embedder(self.backend)
        return lambda: embedder.embed(frame, boxes)


@dataclass(slots=True)
class PeerContestant(Openable):
    """Another program."""

    name: str
    model: str
    """Its command."""
    peer: PeerProcess

    role: Role = "beside"
    max_batch: int = 2**31
    """It splits what is too much for it by itself."""

    def open(self) -> None:
        """Start the program and let it load its model."""
        self.peer.open()

    def close(self) -> None:
        """End the program."""
        self.peer.close()

    @property
    def label(self) -> str:
        """Library and its version."""
        return self.peer.info.backend

    @property
    def precision(self) -> str:
        """As the program says."""
        return self.peer.info.precision

    @property
    def device(self) -> str:
        """As the program says."""
        return self.peer.info.device

    @property
    def embedding_dim(self) -> int:
        """Values of an embedding."""
        return self.peer.info.embedding_dim

    @property
    def size_bytes(self) -> int:
        """Of its model's file."""
        return self.peer.info.size_bytes

    @property
    def cold_start(self) -> ColdStart:
        """As the program says when it has started."""
        info = self.peer.info
        return ColdStart(
            import_ms=None,
            load_ms=info.load_ms,
            first_embedding_ms=info.first_embedding_ms,
            to_first_embedding_ms=info.load_ms + info.first_embedding_ms,
            peak_memory_mb=info.peak_memory_mb,
            gpu_memory_mb=None,
            processes=1,
        )

    def embed(self, paths: Sequence[Path], mirror: bool, quiet: bool) -> NDArray[np.float32]:
        """Embed image files: (N, D) float32, rows of unit L2 norm."""
        return embed_chunks(self._embed_images, paths, _PEER_CROPS, self.embedding_dim, mirror, quiet, self.name)

    def _embed_images(self, images: Sequence[NDArray[np.uint8]], mirror: bool) -> NDArray[np.float32]:
        return self.peer.embed_crops([np.ascontiguousarray(image[:, ::-1]) for image in images] if mirror else images)

    def whole_frame(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Callable[[], object]:
        """From a frame and its boxes to embeddings, timed by the program itself."""
        self.peer.prepare_frame(frame, boxes)
        return lambda: SelfTimed(self.peer.run_frame())


Contestant = ModelContestant | PeerContestant
