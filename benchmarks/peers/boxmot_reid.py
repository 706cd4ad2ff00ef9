"""A peer: boxmot's ReID runtime on an .onnx file, as its trackers call it.

boxmot is AGPL-3.0. It runs here in a process and an environment of its own; none of it is part of hamr-edge.
"""

from __future__ import annotations

import argparse

import numpy as np
from protocol import PeerEmbedder, import_library, serve

_ENVIRONMENT = "pip install torch==2.13.0 torchvision==0.28.0 boxmot==25.0.0 onnxruntime==1.24.3"


class BoxmotReID(PeerEmbedder):
    """``ReID(weights)(image, boxes)``: it crops, resizes and normalises by itself, in a batch."""

    name = "boxmot"
    precision = "fp32"
    device = "cpu"

    def __init__(self, arguments: argparse.Namespace) -> None:
        ort = import_library("onnxruntime", _ENVIRONMENT)
        torch = import_library("torch", _ENVIRONMENT)
        if arguments.threads:
            _limit_sessions(ort, arguments.threads)
            torch.set_num_threads(arguments.threads)
            import_library("cv2", _ENVIRONMENT).setNumThreads(arguments.threads)
        runtime = import_library("boxmot.reid.core.runtime", _ENVIRONMENT)
        self.reid = runtime.ReID(arguments.model, device="cpu")
        self.model = arguments.model
        self.version = import_library("boxmot", _ENVIRONMENT).__version__
        self.backend = f"boxmot {self.version} (onnxruntime {ort.__version__}, torch {torch.__version__})"

    def embed_crops(self, crops: list[np.ndarray]) -> np.ndarray:
        """(N, D) of N crops."""
        return np.asarray(self.reid(crops))

    def embed_frame(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(N, D) of N boxes."""
        return np.asarray(self.reid(frame, boxes))


def _limit_sessions(ort: object, threads: int) -> None:
    """Let every session have so many threads: boxmot has no option for it, and ONNX Runtime no variable."""

    class Limited(ort.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            self.intra_op_num_threads = threads

    ort.SessionOptions = Limited


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="an .onnx file that takes RGB floats, channels first")
    parser.add_argument("--threads", type=int, help="of ONNX Runtime, PyTorch and OpenCV; default: theirs")
    serve(parser, BoxmotReID)


if __name__ == "__main__":
    main()
