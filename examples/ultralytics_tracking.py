"""BoT-SORT of ultralytics with hamr-edge's embeddings: a video in, an annotated video out.

    pip install "hamr-edge[onnx]" ultralytics lap
    python examples/ultralytics_tracking.py video.mp4 --model build/model.fp32.onnx --yolo yolo11n.pt --threshold 0.6

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
    parser.add_argument("--threshold", type=float, help="least cosine of one person; 'hamr-edge bench' measures it")
    parser.add_argument("--anywhere", action="store_true", help="people may come back where their box was not expected")
    options = parser.parse_args()
    with Embedder(options.model) as embedder:
        features = TrackerFeatures(embedder)

        def use_features(predictor) -> None:
            features.attach(predictor)
            for tracker in predictor.trackers:
                if options.threshold is not None:
                    tracker.appearance_thresh = (1 + options.threshold) / 2  # ultralytics halves the cosine distance
                if options.anywhere:
                    tracker.proximity_thresh = 0.0  # by default, only a box that overlaps the expected one is compared

        yolo = YOLO(options.yolo)
        yolo.add_callback("on_predict_batch_start", use_features)
        for _ in yolo.track(options.video, classes=[0], tracker=options.tracker, stream=True, save=True):
            pass


if __name__ == "__main__":
    main()
