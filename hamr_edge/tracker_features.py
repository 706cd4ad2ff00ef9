"""Our embeddings in the trackers people use: the one method that each of them calls, on one object.

No tracker is imported here; what they call was read in their sources: roboflow ``trackers`` (``extract_features``),
boxmot (``get_features``) and ultralytics (the encoder of BoT-SORT, Deep OC-SORT and TrackTrack).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.embedder import Embedder
from hamr_edge.errors import InputError
from hamr_edge.pipeline import EmbeddingService


class TrackerFeatures:
    """Embeds a tracker's detections.

    ::

        features = TrackerFeatures(embedder)
        DeepSORTTracker(feature_extractor=features)         # roboflow trackers 2.0
        BotSort(reid_model=features)                        # boxmot 25; ReID.from_backend(features)
        yolo.add_callback("on_predict_batch_start", features.attach)    # ultralytics, tracker="botsort.yaml"

    Boxes may reach out of the frame and are clipped; one that is wholly outside, inverted or not finite is an
    InputError that names the row. With a service, trackers in several threads share one model.

    Args:
        embedder: Open; one thread's, but for engines. Or an open service.
        camera: Whose frames these are, for a service.
    """

    def __init__(self, embedder: Embedder | EmbeddingService, camera: str = "tracker") -> None:
        self._embedder, self._camera = embedder, camera

    def get_features(self, xyxys: ArrayLike, img: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What boxmot calls.

        Args:
            xyxys: (N, 4) pixels; further columns are not looked at.
            img: (H, W, 3) uint8 BGR.

        Returns:
            (N, D) float32, rows of unit L2 norm in the boxes' order; the caller owns it.

        Raises:
            InputError: The frame or a box is not as expected.
        """
        boxes = np.asarray(xyxys, dtype=np.float32)
        if boxes.ndim == 2:
            boxes = boxes[:, :4]
        if isinstance(self._embedder, EmbeddingService):
            return self._embedder.submit(self._camera, img, boxes).result()
        return self._embedder.embed(img, boxes)

    def extract_features(self, detections: Any, frame: Any) -> NDArray[np.float32]:
        """What roboflow ``trackers`` call; releases differ in the order of the two.

        Args:
            detections: ``supervision.Detections``, or anything with (N, 4) pixels in ``xyxy``.
            frame: (H, W, 3) uint8 BGR.

        Returns:
            As :meth:`get_features`; nobody gives (0, D).

        Raises:
            InputError: Neither of the two has boxes, or as :meth:`get_features`.
        """
        if not hasattr(detections, "xyxy"):
            detections, frame = frame, detections
        if not hasattr(detections, "xyxy"):
            raise InputError("expected detections with boxes in .xyxy, as supervision has them, and a frame")
        return self.get_features(detections.xyxy, frame)

    def attach(self, predictor: Any) -> None:
        """Make ultralytics' trackers use these embeddings; to be added as the callback ``on_predict_batch_start``.

        Trackers are made when prediction starts, after callbacks of ours; hence before each batch.

        Args:
            predictor: With the ``trackers`` that ``YOLO.track`` made.

        Raises:
            InputError: A tracker does not look at people, or its settings feed it the detector's own features.
        """
        for tracker in predictor.trackers:
            settings = tracker.args
            if not hasattr(tracker, "encoder"):
                raise InputError(
                    f"ultralytics' {type(tracker).__name__} does not look at people; expected tracker='botsort.yaml', "
                    "or another with an encoder"
                )
            if tracker.encoder is not self and settings.with_reid and getattr(settings, "model", "auto") == "auto":
                raise InputError(
                    "the tracker's settings have with_reid: True with model: auto, so that ultralytics feeds it the "
                    "detector's own features in place of frames; set with_reid: False there, attach() turns it on"
                )
            # Under "auto", the default, ultralytics would never call the encoder, and say nothing.
            settings.with_reid, settings.model, tracker.encoder = True, "hamr-edge", self

    def __call__(self, img: NDArray[np.uint8], dets: ArrayLike) -> list[NDArray[np.float32]]:
        """What ultralytics' trackers call.

        Args:
            img: (H, W, 3) uint8 BGR.
            dets: (N, 4 or more): centre x and y, width and height in pixels.

        Returns:
            N embeddings, (D,) float32 each.

        Raises:
            InputError: As :meth:`get_features`.
        """
        boxes = np.asarray(dets, dtype=np.float32)
        if boxes.ndim != 2 or not len(boxes):
            return []
        halves = boxes[:, 2:4] / 2
        return list(self.get_features(np.concatenate([boxes[:, :2] - halves, boxes[:, :2] + halves], axis=1), img))
