"""The peer's side of the protocol: a script builds an embedder, this answers questions about it.

It needs Python and numpy, and nothing of hamr-edge, so that it runs in the peer's own environment. What is asked and
answered is written down in README.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

VERSION = 1
_MISSING_LIBRARY = 4


class PeerEmbedder(ABC):
    """What a script wraps; frames and crops are (H, W, 3) uint8 BGR, boxes (N, 4) float32 xyxy pixels."""

    name: str
    version: str
    backend: str
    """Words for the reports: library, version, and what runs the network."""
    precision: str
    device: str
    model: str
    """File of the weights, for its size."""

    @abstractmethod
    def embed_crops(self, crops: list[np.ndarray]) -> np.ndarray:
        """(N, D) embeddings of N >= 1 crops."""

    @abstractmethod
    def embed_frame(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(N, D) embeddings of N >= 1 boxes: the way that is timed, so all that the peer's users would have to do."""


def import_library(name: str, makes_environment: str) -> Any:
    """Import a library, or end with a sentence that says how its environment is made."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        sys.stderr.write(
            f"{Path(sys.argv[0]).name} needs {name}, which does not import here ({error}); make its environment: "
            f"{makes_environment} (benchmarks/peers/README.md)\n"
        )
        raise SystemExit(_MISSING_LIBRARY) from error


def crop_window(box: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The pixels of a box, rounded and kept inside the frame, at least one pixel each way."""
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (int(value) for value in np.floor(box + 0.5))
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return frame[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]


def serve(parser: argparse.ArgumentParser, load: Callable[[argparse.Namespace], PeerEmbedder]) -> None:
    """Parse the arguments, load the embedder and answer until stdin ends."""
    arguments = parser.parse_args()
    answers = _take_stdout()
    begin = time.perf_counter()
    embedder = load(arguments)
    loaded = time.perf_counter()
    first = np.asarray(embedder.embed_crops([np.full((128, 64, 3), 127, np.uint8)]))
    embedded = time.perf_counter()
    ready = {
        "protocol": VERSION,
        "name": embedder.name,
        "version": embedder.version,
        "backend": embedder.backend,
        "precision": embedder.precision,
        "device": embedder.device,
        "embedding_dim": first.shape[-1],
        "size_bytes": Path(embedder.model).stat().st_size,
        "load_ms": 1000 * (loaded - begin),
        "first_embedding_ms": 1000 * (embedded - loaded),
        "peak_memory_mb": _peak_memory_mb(),
    }
    _answer(answers, ready)
    session = _Session(embedder)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            found = session.ask(question.pop("do"), question)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        _answer(answers, found)


class _Session:
    """One embedder and the frame or video that it was given last."""

    def __init__(self, embedder: PeerEmbedder) -> None:
        self._embedder = embedder
        self._frame: np.ndarray | None = None
        self._boxes = np.zeros((0, 4), np.float32)
        self._capture: Any = None

    def ask(self, what: str, words: dict[str, Any]) -> dict[str, Any]:
        """Answer one question."""
        questions = {
            "embed_crops": self._embed_crops,
            "prepare_frame": self._prepare_frame,
            "run_frame": self._run_frame,
            "open_video": self._open_video,
            "run_video": self._run_video,
            "memory": lambda: {"peak_memory_mb": _peak_memory_mb()},
        }
        if what not in questions:
            raise ValueError(f"no question {what!r}; this script knows {', '.join(questions)}")
        return questions[what](**words)

    def _embed_crops(self, pixels: str, shapes: list[list[int]], embeddings: str) -> dict[str, Any]:
        np.save(embeddings, np.asarray(self._embedder.embed_crops(_read_images(pixels, shapes)), np.float32))
        return {}

    def _prepare_frame(self, pixels: str, shapes: list[list[int]], boxes: list[list[float]]) -> dict[str, Any]:
        self._frame = _read_images(pixels, shapes)[0]
        self._boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        return {}

    def _run_frame(self) -> dict[str, Any]:
        if self._frame is None:
            raise ValueError("run_frame before prepare_frame")
        begin = time.perf_counter()
        self._embedder.embed_frame(self._frame, self._boxes)
        return {"seconds": time.perf_counter() - begin}

    def _open_video(self, path: str) -> dict[str, Any]:
        cv2 = import_library("cv2", "pip install opencv-python")
        self._capture = cv2.VideoCapture(path)
        if not self._capture.isOpened():
            raise ValueError(f"cv2.VideoCapture does not open {path}")
        return {}

    def _run_video(self, boxes: list[list[list[float]]], embeddings: str) -> dict[str, Any]:
        """The next frames of the video, as many as there are lists of boxes."""
        boxes_of_frames = [np.asarray(rows, np.float32).reshape(-1, 4) for rows in boxes]
        rows, frames = [], 0
        begin = time.perf_counter()
        for frame_boxes in boxes_of_frames:
            read, frame = self._capture.read()
            if not read:
                break
            frames += 1
            if len(frame_boxes):
                rows.append(self._embedder.embed_frame(frame, frame_boxes))
        seconds = time.perf_counter() - begin
        np.save(embeddings, np.concatenate([np.asarray(row, np.float32) for row in rows] or [np.zeros((0, 1))]))
        return {"seconds": seconds, "frames": frames}


def _take_stdout() -> TextIO:
    """Keep the real stdout for answers; what any library prints from now on, even in C, goes to stderr."""
    sys.stdout.flush()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def _answer(answers: TextIO, words: dict[str, Any]) -> None:
    answers.write(json.dumps(words) + "\n")
    answers.flush()


def _read_images(pixels: str, shapes: list[list[int]]) -> list[np.ndarray]:
    """All pixels lie in one flat uint8 array, image after image."""
    flat = np.load(pixels)
    ends = np.cumsum([height * width * 3 for height, width in shapes]).tolist()
    starts = [0, *ends[:-1]]
    return [
        flat[start:end].reshape(height, width, 3)
        for start, end, (height, width) in zip(starts, ends, shapes)  # noqa: B905 - the peer's Python may be old
    ]


def _peak_memory_mb() -> float:
    """Largest resident size so far, in 1e6 bytes."""
    try:
        # Of this program alone: getrusage also counts what the process was before it became this program.
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
