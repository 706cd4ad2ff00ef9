from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hamr_edge import Embedder, InputError
from hamr_edge.pipeline import EmbeddingService
from hamr_edge.tracker_features import TrackerFeatures

BOXES = np.array([[10, 10, 40, 90], [60.5, 20, 100, 110], [-5, 0, 20, 60]], np.float32)


@pytest.fixture(params=["embedder", "service"])
def features(request: pytest.FixtureRequest, tiny_artifact: Path) -> Iterator[TrackerFeatures]:
    with Embedder(tiny_artifact, "cpu") as embedder:
        if request.param == "embedder":
            yield TrackerFeatures(embedder)
        else:
            with EmbeddingService(embedder, max_delay_ms=0) as service:
                yield TrackerFeatures(service, "door")


def test_every_tracker_gets_the_embedders_rows(
    features: TrackerFeatures, tiny_artifact: Path, frame: np.ndarray
) -> None:
    with Embedder(tiny_artifact, "cpu") as embedder:
        expected = embedder.embed(frame, BOXES)
    with_scores = np.concatenate([BOXES, np.full((3, 2), 0.5, np.float32)], axis=1)
    np.testing.assert_allclose(features.get_features(with_scores, frame), expected, atol=1e-6)
    detections = SimpleNamespace(xyxy=BOXES.astype(np.float64))
    np.testing.assert_allclose(features.extract_features(detections, frame), expected, atol=1e-6)
    np.testing.assert_allclose(features.extract_features(frame, detections), expected, atol=1e-6)
    centred = np.concatenate([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2], np.ones((3, 1))], axis=1)
    rows = features(frame, centred)
    assert [row.shape for row in rows] == [(12,)] * 3
    np.testing.assert_allclose(np.stack(rows), expected, atol=1e-5)


def test_nobody(features: TrackerFeatures, frame: np.ndarray) -> None:
    assert features.get_features(np.empty((0, 4)), frame).shape == (0, 12)
    assert features.extract_features(SimpleNamespace(xyxy=np.empty((0, 4))), frame).shape == (0, 12)
    assert features(frame, np.empty((0, 5))) == []


def test_a_box_that_is_none_is_named(features: TrackerFeatures, frame: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"boxes\[1\]"):
        features.get_features([[0, 0, 5, 5], [5, 5, 2, 2]], frame)
    with pytest.raises(InputError, match=r"\.xyxy"):
        features.extract_features(frame, frame)


def test_attaching_turns_off_ultralytics_own_features(features: TrackerFeatures) -> None:
    tracker = SimpleNamespace(encoder=None, args=SimpleNamespace(with_reid=False, model="auto"))
    for _ in range(2):  # before each batch
        features.attach(SimpleNamespace(trackers=[tracker]))
        assert tracker.encoder is features
        assert tracker.args.with_reid
        assert tracker.args.model != "auto"
    with pytest.raises(InputError, match="does not look at people"):
        features.attach(SimpleNamespace(trackers=[SimpleNamespace(args=tracker.args)]))


def test_no_tracker_is_imported() -> None:
    assert not {"boxmot", "ultralytics", "supervision", "trackers"} & set(sys.modules)
