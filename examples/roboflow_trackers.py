"""DeepSORT of roboflow's trackers with hamr-edge's embeddings: a video in, an annotated video out.

    pip install "hamr-edge[onnx]" "trackers[deepsort]==2.0.1" "supervision==0.26.0rc7"
    python examples/roboflow_trackers.py video.mp4 --model build/model.fp32.onnx --detector yolox_nano.onnx -o out.mp4

Releases 2.1 to 2.6 have no tracker that looks at people; 2.0.1 is the last that has one.
"""

from __future__ import annotations

import argparse

import numpy as np
import supervision as sv
from trackers import DeepSORTTracker

from hamr_edge import Embedder
from hamr_edge.detector import open_detector
from hamr_edge.tracker_features import TrackerFeatures
from hamr_edge.video import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--model", required=True)
    parser.add_argument("--detector", required=True, help="'hog' or an .onnx file")
    parser.add_argument("-o", "--output", required=True, help=".mp4 to write")
    parser.add_argument("--threshold", type=float, help="least cosine of one person; 'hamr-edge bench' measures it")
    parser.add_argument("--anywhere", action="store_true", help="people may come back where their box was not expected")
    options = parser.parse_args()
    settings = {}
    if options.threshold is not None:
        settings["appearance_threshold"] = 1 - options.threshold  # the largest cosine distance
    if options.anywhere:
        settings["minimum_iou_threshold"] = 0.0  # by default, only a box that overlaps the expected one is compared
    detector = open_detector(options.detector)
    boxes_on, labels_on = sv.BoxAnnotator(), sv.LabelAnnotator()
    info = sv.VideoInfo.from_video_path(options.video)
    with (
        open_source(options.video) as source,
        Embedder(options.model) as embedder,
        sv.VideoSink(options.output, info) as sink,
    ):
        tracker = DeepSORTTracker(TrackerFeatures(embedder), frame_rate=info.fps, **settings)
        for frame in source:
            boxes, scores = detector.detect(frame.image)
            found = sv.Detections(xyxy=boxes, confidence=scores, class_id=np.zeros(len(boxes), int))
            tracked = tracker.update(found, frame.image)
            tracked = tracked[tracked.tracker_id >= 0]
            picture = boxes_on.annotate(frame.image, tracked)
            sink.write_frame(labels_on.annotate(picture, tracked, [f"#{number}" for number in tracked.tracker_id]))


if __name__ == "__main__":
    main()
