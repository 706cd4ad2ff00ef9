"""The ways through a video that are timed against each other: ours, and peers in processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.benchmarks.peer_process import PeerProcess
from hamr_edge.embedder import Embedder
from hamr_edge.errors import HamrEdgeError
from hamr_edge.openable import Openable
from hamr_edge.sidecar import Sidecar
from hamr_edge.stage_clock import StageClock
from hamr_edge.video import Frame, FrameSource, open_source

_PLAIN_INPUT = "rgb-float-imagenet"
"""The only input of others that the plain loop knows."""


class OurWay(Openable):
    """Decode, crop and infer, frame by frame, as ``hamr-edge embed`` does, without its table.

    Attributes:
        name: In reports.
        stage_seconds: Seconds of each stage in the last segment, by name.
    """

    def __init__(self, backend: Backend) -> None:
        self.name = "hamr-edge"
        self.stage_seconds: dict[str, float] = {}
        self._backend = backend
        self._embedder = Embedder(backend)
        self._source: FrameSource | None = None
        self._frames: Iterator[Frame] = iter(())

    @property
    def backend(self) -> str:
        """Library and device."""
        return self._backend.name

    def open(self) -> None:
        """Load the model."""
        self._embedder.open()

    def close(self) -> None:
        """Give the model's memory and the video back."""
        if self._source is not None:
            self._source.close()
            self._source = None
        self._embedder.close()

    def rewind(self, path: Path) -> None:
        """Open a video at its first frame."""
        if self._source is not None:
            self._source.close()
        self._source = open_source(path)
        self._source.open()
        self._frames = iter(self._source)

    def run(self, boxes: Sequence[NDArray[np.float32]]) -> tuple[float, NDArray[np.float32]]:
        """Decode and embed the next frames.

        Args:
            boxes: (N, 4) xyxy pixels, an array a frame.

        Returns:
            Seconds, and the (M, D) embeddings of all boxes in order.

        Raises:
            HamrEdgeError: The video ended.
        """
        rows = [np.zeros((0, self._embedder.sidecar.embedding_dim), np.float32)]
        in_graph = self._embedder.sidecar.form == "frame"
        clock = StageClock()
        for frame_boxes in boxes:
            with clock.stage("decode"):
                frame = next(self._frames, None)
            if frame is None:
                raise HamrEdgeError("the video ended before its last segment; does another program write it?")
            if in_graph:
                with clock.stage("infer"):
                    rows.append(self._embedder.embed(frame.image, frame_boxes))
                continue
            with clock.stage("crop"):
                batch = self._embedder.crop(frame.image, frame_boxes)
            with clock.stage("infer"):
                rows.append(self._embedder.embed_batch(batch))
        clock.stop()
        self.stage_seconds = clock.seconds
        return clock.total_s, np.concatenate(rows)


class PeerWay:
    """An open peer, which decodes by itself.

    Attributes:
        name: In reports.
    """

    def __init__(self, peer: PeerProcess) -> None:
        self.name = peer.name
        self._peer = peer

    @property
    def backend(self) -> str:
        """Words for the table."""
        return self._peer.info.backend

    def rewind(self, path: Path) -> None:
        """Open a video at its first frame."""
        self._peer.open_video(path)

    def run(self, boxes: Sequence[NDArray[np.float32]]) -> tuple[float, NDArray[np.float32]]:
        """As :meth:`OurWay.run`; the seconds are by the peer's own clock."""
        return self._peer.run_video(boxes)


def plain_loop(model: Path, sidecar: Sidecar, described: str | None, threads: int | None) -> PeerProcess | str:
    """The plain cv2 and ONNX Runtime loop on the same file, in a process of its own with this Python.

    Returns:
        The peer, not open yet; or words that say why there is none.
    """
    script = Path(__file__).resolve().parent / "peers" / "plain_loop.py"
    if not script.is_file():
        return "benchmarks/peers/plain_loop.py is part of the source code only, not of an installed package"
    if model.suffix != ".onnx" or sidecar.form != "crops":
        return f"{model} is not an .onnx file in the crops form"
    if described is not None and described != _PLAIN_INPUT:
        return f"it takes {_PLAIN_INPUT}, not {described}"
    height, width = sidecar.input_size_hw
    kind = "uint8" if described is None else "float"
    options = ["--model", str(model), "--size", f"{height}x{width}", "--input", kind]
    options += ["--threads", str(threads)] if threads else []
    return PeerProcess("plain loop", [sys.executable, str(script), *options])
