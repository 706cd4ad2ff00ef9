"""A pipeline of your own: OpenCV or GStreamer frames, a detector, one embedding service, annotated pictures out.

    python examples/gstreamer_opencv.py video.mp4 --model build/model.fp32.onnx --detector yolox_nano.onnx -o out.mp4

On a Jetson the board's own decoder reads the camera, where OpenCV has GStreamer (JetPack's has):

    python examples/gstreamer_opencv.py "gst:rtspsrc location=rtsp://10.0.0.5/main protocols=tcp latency=200 !
      rtph264depay ! h264parse ! nvv4l2decoder ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert !
      video/x-raw,format=BGR ! appsink" --model build/model.fp16.engine --detector yolox_nano.onnx -o out.mp4
"""

from __future__ import annotations

import argparse
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack

from hamr_edge import Embedder
from hamr_edge.annotate import AnnotatedVideo
from hamr_edge.detector import open_detector
from hamr_edge.frame_reader import FrameReader
from hamr_edge.identities import Identities
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.reconnect import Reconnect
from hamr_edge.video import open_source

AHEAD = 4
"""Frames that are being embedded while the next one is searched for people."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--model", required=True)
    parser.add_argument("--detector", required=True, help="'hog' or an .onnx file")
    parser.add_argument("-o", "--output", required=True, help=".mp4 to write")
    parser.add_argument("--frames", type=int, default=None, help="stop after so many")
    options = parser.parse_args()
    detector = open_detector(options.detector)
    with ExitStack() as stack:
        embedder = stack.enter_context(Embedder(options.model))
        # Nothing waits for other cameras here. A slow model holds this loop up, and the reader gives up a live camera's
        # oldest frames (a recording's are all kept).
        service = stack.enter_context(EmbeddingService(embedder, max_delay_ms=0))
        # Decodes in a thread of its own, and opens a stream that breaks again.
        reader = stack.enter_context(FrameReader(open_source(options.source), reconnect=Reconnect()))
        video = None
        waiting: deque[tuple[object, object, Future]] = deque()
        for frame in reader:
            if video is None:
                identities = Identities(embedder.sidecar.embedding_dim)
                video = stack.enter_context(AnnotatedVideo(options.output, identities, reader.source.fps))
            boxes, _ = detector.detect(frame.image)
            waiting.append((frame, boxes, service.submit("camera", frame.image, boxes)))
            stop = options.frames is not None and frame.number >= options.frames
            while len(waiting) > (0 if stop else AHEAD):
                seen, its_boxes, embeddings = waiting.popleft()
                video.append(seen, its_boxes, embeddings.result())
            if stop:
                break
        while waiting and video is not None:
            seen, its_boxes, embeddings = waiting.popleft()
            video.append(seen, its_boxes, embeddings.result())
        counts = service.metrics().cameras["camera"]
        print(
            f"{counts.completed} frames, {counts.people} people, {reader.status.dropped} frames given up, "
            f"{counts.latency_ms.get('p50', 0):.0f} ms at the median from crops to embeddings"
        )


if __name__ == "__main__":
    main()
