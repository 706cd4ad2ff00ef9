"""BoT-SORT of boxmot with hamr-edge's embeddings: a video in, MOT text out.

pip install "hamr-edge[onnx]" boxmot==25.0.0
python examples/boxmot_tracking.py video.mp4 --model build/model.fp32.onnx --detector yolox_nano.onnx -o tracks.txt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import boxmot
import numpy as np

from hamr_edge import Embedder
from hamr_edge.detector import open_detector
from hamr_edge.tracker_features import TrackerFeatures
from hamr_edge.video import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--model", required=True)
    parser.add_argument("--detector", required=True, help="'hog' or an .onnx file")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threshold", type=float, help="least cosine of one person; 'hamr-edge bench' measures it")
    parser.add_argument("--anywhere", action="store_true", help="people may come back where their box was not expected")
    options = parser.parse_args()
    settings = {}
    if options.threshold is not None:
        settings["appearance_thresh"] = 1 - options.threshold  # boxmot's is the largest cosine distance
    if options.anywhere:
        settings["proximity_thresh"] = 1.0  # by default, only a box that overlaps the expected one is compared
    detector = open_detector(options.detector)
    with open_source(options.video) as source, Embedder(options.model) as embedder, options.output.open("w") as out:
        tracker = boxmot.BotSort(reid_model=TrackerFeatures(embedder), **settings)
        for frame in source:
            boxes, scores = detector.detect(frame.image)
            rows = np.concatenate([boxes, scores[:, None], np.zeros((len(boxes), 1), np.float32)], axis=1)
            for x1, y1, x2, y2, track, score, *_ in tracker.update(rows, frame.image).tolist():
                line = (
                    frame.number,
                    int(track),
                    f"{x1:.1f}",
                    f"{y1:.1f}",
                    f"{x2 - x1:.1f}",
                    f"{y2 - y1:.1f}",
                    f"{score:.3f}",
                )
                out.write(",".join(map(str, line)) + "\n")


if __name__ == "__main__":
    main()
