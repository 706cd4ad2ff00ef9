"""Another program that embeds people, in a process and an environment of its own.

Questions and answers are lines of JSON on its stdin and stdout, arrays are ``.npy`` files:
``benchmarks/peers/README.md`` has them all, and ``benchmarks/peers/`` scripts for some libraries.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.benchmarks.peer_channel import READY, PeerChannel
from hamr_edge.boxes import check_boxes
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.openable import Openable
from hamr_edge.preprocess import check_image

PROTOCOL = 1
_README = "benchmarks/peers/README.md"
_EMBEDDINGS = "embeddings.npy"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a peer says of itself when it is ready."""

    name: str
    """Of its library."""
    version: str
    backend: str
    """Words for a table: library, version and what runs the network."""
    precision: str
    device: str
    embedding_dim: int
    size_bytes: int
    """Of its model's file."""
    load_ms: float
    """Importing its libraries and loading the model."""
    first_embedding_ms: float
    peak_memory_mb: float
    """Largest resident size so far, 1e6 bytes."""


class PeerProcess(Openable):
    """A peer: one process, started by :meth:`open` and ended by :meth:`close`, whatever happens in between.

    ::

        with PeerProcess("boxmot", "env/bin/python benchmarks/peers/boxmot_reid.py --model osnet.onnx") as peer:
            embeddings = peer.embed_crops(crops)

    After an error the process is ended: a program that answered wrongly once is not asked again. Not for several
    threads.

    Args:
        name: What reports and errors call it.
        command: Words, or a line that is split as a shell splits it; no shell runs it.
        start_timeout_s: How long it may take until it is ready.
        timeout_s: How long an answer may take.

    Raises:
        InputError: The command is empty, or a quote in it is left open.
    """

    def __init__(
        self, name: str, command: str | Sequence[str], start_timeout_s: float = 300.0, timeout_s: float = 300.0
    ) -> None:
        self.name = name
        try:
            self.command = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
        except ValueError as error:
            raise InputError(f"command of peer {name} cannot be split into words: {error}; got {command!r}") from error
        if not self.command:
            raise InputError(f"peer {name} has no command; see {_README}")
        self._start_timeout_s, self._timeout_s = start_timeout_s, timeout_s
        self._info: PeerInfo | None = None
        self._channel: PeerChannel | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""
        return self._channel is not None

    @property
    def info(self) -> PeerInfo:
        """What the peer said when it was ready; still there after :meth:`close`."""
        if self._info is None:
            raise HamrEdgeError(f"peer {self.name} was not opened; use 'with peer:' or .open()")
        return self._info

    def open(self) -> None:
        """Start the process and wait until its model is loaded; a second call does nothing.

        Raises:
            InputError: Its arguments are wrong.
            UnavailableError: The command, or a library that it needs, is not there.
            HamrEdgeError: It ended, answered something else, or took too long.
        """
        if self.is_open:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="hamr-edge-peer-")
        with self._ended_by_errors():
            self._channel = PeerChannel(self.name, self.command, Path(self._file("stderr.txt")))
            self._info = self._read_info(self._channel.read(READY, self._start_timeout_s))

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._drop(at_once=False)

    def embed_crops(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed crops of any sizes.

        Args:
            images: (H, W, 3) uint8 BGR each.

        Returns:
            (N, D) float32, rows of unit L2 norm.

        Raises:
            InputError: An image is not as expected.
            HamrEdgeError: The peer failed, or gave another shape or a value that is not finite.
        """
        for index, image in enumerate(images):
            check_image(image, f"images[{index}]")
        if not images:
            return np.zeros((0, self.info.embedding_dim), np.float32)
        self._ask("embed_crops", **self._write_images(images), embeddings=self._file(_EMBEDDINGS))
        return self._read_embeddings(len(images))

    def prepare_frame(self, frame: NDArray[np.uint8], boxes: ArrayLike) -> None:
        """Hand over the frame and boxes of :meth:`run_frame`.

        Args:
            frame: (H, W, 3) uint8 BGR.
            boxes: (N, 4) xyxy pixels, at least one; clipped to the frame here, as ours are.

        Raises:
            InputError: The frame or a box is not as expected.
            HamrEdgeError: The peer failed.
        """
        image = check_image(frame)
        checked = check_boxes(boxes, (image.shape[0], image.shape[1]))
        if not len(checked):
            raise InputError("a peer is timed on one box or more, got none")
        self._ask("prepare_frame", **self._write_images([image]), boxes=checked.tolist())

    def run_frame(self) -> float:
        """Embed the boxes of the prepared frame: seconds, by the peer's own clock around its own work."""
        return self._number(self._ask("run_frame"), "seconds")

    def open_video(self, path: Path) -> None:
        """Let the peer open a video by itself, at its first frame."""
        self._ask("open_video", path=str(path.resolve()))

    def run_video(self, boxes: Sequence[NDArray[np.float32]]) -> tuple[float, NDArray[np.float32]]:
        """Decode and embed the next frames of the video.

        Args:
            boxes: (N, 4) xyxy pixels inside the frame, an array a frame.

        Returns:
            Seconds by the peer's own clock, and the (M, D) unit rows of all boxes in order.
        """
        answer = self._ask("run_video", boxes=[rows.tolist() for rows in boxes], embeddings=self._file(_EMBEDDINGS))
        if answer.get("frames") != len(boxes):
            raise self._failed(
                f"decoded {answer.get('frames')} of {len(boxes)} frames; its OpenCV reads this video in another way"
            )
        count = sum(len(rows) for rows in boxes)
        embeddings = self._read_embeddings(count) if count else np.zeros((0, self.info.embedding_dim), np.float32)
        return self._number(answer, "seconds"), embeddings

    def peak_memory_mb(self) -> float:
        """Largest resident size of the process so far, 1e6 bytes."""
        return self._number(self._ask("memory"), "peak_memory_mb")

    def _ask(self, what: str, **words: Any) -> dict[str, Any]:
        if self._channel is None:
            raise self._not_open()
        with self._ended_by_errors():
            return self._channel.ask(what, words, self._timeout_s)

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """A process that failed, or that we stopped listening to, is out of step: it is ended."""
        try:
            yield
        except BaseException:
            self._drop(at_once=True)
            raise

    def _drop(self, at_once: bool) -> None:
        channel, self._channel = self._channel, None
        folder, self._folder = self._folder, None
        try:
            if channel is not None:
                if at_once:
                    channel.kill()
                else:
                    channel.end()
        finally:
            if folder is not None:
                folder.cleanup()

    def _read_info(self, answer: dict[str, Any]) -> PeerInfo:
        if answer.get("protocol") != PROTOCOL:
            raise self._failed(
                f"speaks protocol {answer.get('protocol')!r}, expected {PROTOCOL}; take the scripts of this version "
                f"({_README})"
            )
        names = [field.name for field in fields(PeerInfo)]
        missing = [name for name in names if name not in answer]
        if missing:
            raise self._failed(f"does not say its {', '.join(missing)} when it is ready ({_README})")
        for name in ("embedding_dim", "size_bytes", "load_ms", "first_embedding_ms", "peak_memory_mb"):
            self._number(answer, name)
        return PeerInfo(**{name: answer[name] for name in names})

    def _read_embeddings(self, rows: int) -> NDArray[np.float32]:
        expected = (rows, self.info.embedding_dim)
        path = Path(self._file(_EMBEDDINGS))
        try:
            found = np.load(path, allow_pickle=False)
            path.unlink()  # an answer without a new file must not find this one
        except (OSError, ValueError, EOFError) as error:
            raise self._failed(f"wrote no .npy array of embeddings ({error}); see {_README}") from error
        if found.shape != expected or found.dtype != np.float32:
            raise self._failed(
                f"gave embeddings of {found.dtype} {found.shape}, expected float32 {expected}; it must give one row an "
                "image, always of the same width"
            )
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise self._failed(f"gave a value that is not finite in row {row} of its embeddings; try its model alone")
        unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return unit

    def _number(self, answer: dict[str, Any], name: str) -> float:
        value = answer.get(name)
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self._failed(f"answered {name} = {value!r}, expected a finite number above 0 ({_README})")
        return float(value)

    def _failed(self, words: str) -> HamrEdgeError:
        """The error of an answer that will not do; the process is ended."""
        self._drop(at_once=True)
        return HamrEdgeError(f"peer {self.name} {words}")

    def _write_images(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        """All pixels in one flat array, so that one file holds images of any sizes."""
        file = self._file("pixels.npy")
        np.save(file, np.concatenate([image.reshape(-1) for image in images]))
        return {"pixels": file, "shapes": [list(image.shape[:2]) for image in images]}

    def _file(self, name: str) -> str:
        if self._folder is None:
            raise self._not_open()
        return str(Path(self._folder.name) / name)

    def _not_open(self) -> HamrEdgeError:
        return HamrEdgeError(f"peer {self.name} is not open; use 'with peer:' or .open()")


def parse_peer(text: str) -> PeerProcess:
    """Read ``NAME=COMMAND``, as ``--peer`` takes it.

    Raises:
        InputError: There is no name or no command.
    """
    name, equals, command = text.partition("=")
    if not equals or not name.strip() or not command.strip():
        raise InputError(
            f"--peer expects NAME=COMMAND, as boxmot='env/bin/python benchmarks/peers/boxmot_reid.py --model "
            f"osnet.onnx', got {text!r}"
        )
    return PeerProcess(name.strip(), command)
