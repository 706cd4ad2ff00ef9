"""A peer: torchreid's FeatureExtractor on a checkpoint of its own, as its documentation says."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from protocol import PeerEmbedder, crop_window, import_library, serve

_ENVIRONMENT = (
    "pip install torch==2.13.0 torchvision==0.28.0 torchreid==0.2.5 opencv-python==4.14.0.94 gdown tensorboard scipy "
    "h5py matplotlib"
)


class Torchreid(PeerEmbedder):
    """Its users crop the boxes and turn BGR to RGB; the extractor does the rest, each crop through Pillow."""

    name = "torchreid"
    precision = "fp32"
    device = "cpu"

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch = import_library("torch", _ENVIRONMENT)
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        if not Path(arguments.model).is_file():  # torchreid would fetch another one
            raise SystemExit(f"{arguments.model} is not there")
        # The package of the index and the one of the project's repository keep it in different places.
        torchreid = import_library("torchreid", _ENVIRONMENT)
        module = "torchreid.reid.utils" if hasattr(torchreid, "reid") else "torchreid.utils"
        extractor = import_library(module, _ENVIRONMENT).FeatureExtractor
        height, width = (int(side) for side in arguments.size.split("x"))
        self.extractor = extractor(
            model_name=arguments.architecture,
            model_path=arguments.model,
            image_size=(height, width),
            device="cpu",
            verbose=False,
        )
        self.model = arguments.model
        self.version = torchreid.__version__
        self.backend = f"torchreid {self.version} (torch {torch.__version__})"

    def embed_crops(self, crops: list[np.ndarray]) -> np.ndarray:
        """(N, D) of N crops."""
        features = self.extractor([np.ascontiguousarray(crop[:, :, ::-1]) for crop in crops]).numpy()
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    def embed_frame(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(N, D) of N boxes."""
        return self.embed_crops([crop_window(box, frame) for box in boxes])


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a .pth file of torchreid")
    parser.add_argument("--architecture", default="osnet_x0_25", help="torchreid's name of it")
    parser.add_argument("--size", default="256x128", help="height x width of its input")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: its own")
    serve(parser, Torchreid)


if __name__ == "__main__":
    main()
