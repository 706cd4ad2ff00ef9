"""BoT-SORT of ultralytics with hamr-edge's embeddings: a video in, an annotated video out.

    pip install hamr-edge ultralytics lap
    python examples/ultralytics_tracking.py video.mp4 --model build/model.fp32.onnx --yolo yolo11n.pt

Without a line of Python the preset does it: 'hamr-edge export RUN -o build --preset ultralytics', and in a copy of
ultralytics' botsort.yaml 'with_reid: True' and 'model: build/model.fp32.ultralytics.onnx'.
"""

from __future__ import annotations

import argparse

from ultralytics import YOLO

from hamr_edge import Embedder
from hamr_edge.tracker_features import TrackerFeatures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--model", required=True)
    parser.add_argument("--yolo", default="yolo11n.pt", help="detector, by its .pt file")
    parser.add_argument("--tracker", default="botsort.yaml", help="its settings")
    options = parser.parse_args()
    with Embedder(options.model) as embedder:
        features = TrackerFeatures(embedder)

        def use_features(predictor) -> None:
            """Before each batch, as trackers are made when prediction starts, after callbacks of ours."""
            for tracker in predictor.trackers:
                tracker.args.with_reid, tracker.encoder = True, features

        yolo = YOLO(options.yolo)
        yolo.add_callback("on_predict_batch_start", use_features)
        for _ in yolo.track(options.video, classes=[0], tracker=options.tracker, stream=True, save=True):
            pass


if __name__ == "__main__":
    main()
