"""A peer: cv2 and ONNX Runtime as most people write it, one crop and one inference a box."""

from __future__ import annotations

import argparse

import numpy as np
from protocol import PeerEmbedder, crop_window, import_library, serve

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
_ENVIRONMENT = "pip install numpy==2.4.6 opencv-python==4.14.0.94 onnxruntime==1.32.0"


class PlainLoop(PeerEmbedder):
    """Crop, resize, colours, range, layout, one run, norm; box by box."""

    name = "plain loop"
    precision = "fp32"
    device = "cpu"

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.cv2 = import_library("cv2", _ENVIRONMENT)
        ort = import_library("onnxruntime", _ENVIRONMENT)
        options = ort.SessionOptions()
        if arguments.threads:
            options.intra_op_num_threads = arguments.threads
            self.cv2.setNumThreads(arguments.threads)
        self.session = ort.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
        taken = self.session.get_inputs()[0]
        self.input_name = taken.name
        self.output_name = self.session.get_outputs()[0].name
        self.uint8 = arguments.input == "uint8"
        height, width = taken.shape[1:3] if self.uint8 else taken.shape[2:4]
        if arguments.size:
            height, width = (int(side) for side in arguments.size.split("x"))
        if not isinstance(height, int) or not isinstance(width, int):
            raise SystemExit(f"{arguments.model} takes images of any size; say which: --size 256x128")
        self.size_wh = (width, height)
        self.model = arguments.model
        self.version = ort.__version__
        self.backend = f"cv2 {self.cv2.__version__} + onnxruntime {ort.__version__}, box by box"

    def embed_crop(self, crop: np.ndarray) -> np.ndarray:
        """(D,) of one crop."""
        image = self.cv2.resize(crop, self.size_wh)
        if self.uint8:  # the rest is in the graph
            blob = image[None]
        else:
            image = self.cv2.cvtColor(image, self.cv2.COLOR_BGR2RGB)
            image = (image.astype(np.float32) / 255.0 - MEAN) / STD
            blob = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
        features = self.session.run([self.output_name], {self.input_name: blob})[0].reshape(-1)
        return features / np.linalg.norm(features)

    def embed_crops(self, crops: list[np.ndarray]) -> np.ndarray:
        """(N, D) of N crops."""
        return np.stack([self.embed_crop(crop) for crop in crops])

    def embed_frame(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(N, D) of N boxes."""
        return np.stack([self.embed_crop(crop_window(box, frame)) for box in boxes])


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="an .onnx file")
    parser.add_argument("--size", help="height x width, as 256x128; default: what the model fixes")
    parser.add_argument("--threads", type=int, help="of ONNX Runtime and OpenCV; default: theirs")
    parser.add_argument(
        "--input",
        choices=("float", "uint8"),
        default="float",
        help="float: RGB, ImageNet's mean and deviation, channels first; uint8: hamr-edge's own artifacts, whose graph "
        "does that",
    )
    serve(parser, PlainLoop)


if __name__ == "__main__":
    main()
