"""The real trackers, each in an environment that 'make integrations' makes; skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder
from hamr_edge.tracker_features import TrackerFeatures
from tests.artifacts import write_tiny_artifact

REASON = "is not installed; 'make integrations' tests with it"
FRAMES, HIDDEN = 40, range(18, 24)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackerFeatures]:
    path = write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx")
    with Embedder(path, "cpu") as embedder:
        yield TrackerFeatures(embedder)


def two_people() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames in which two people of their own textures walk, and their boxes; both are hidden for some frames."""
    rng = np.random.default_rng(7)
    looks = rng.integers(0, 256, (2, 8, 4, 3), np.uint8).repeat(15, axis=1).repeat(15, axis=2)
    ground = rng.integers(90, 150, (24, 48, 3), np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    for number in range(FRAMES):
        frame = ground.copy()
        boxes = np.array([[20 + 4 * number, 20, 80 + 4 * number, 140], [380 - 4 * number, 110, 440 - 4 * number, 230]])
        for look, (x1, y1, x2, y2) in zip(looks, boxes, strict=True):
            frame[y1:y2, x1:x2] = look
        yield frame, boxes[:0] if number in HIDDEN else boxes


def names_by_person(tracked: list[list[tuple[float, int]]]) -> list[set[int]]:
    """The tracks that each person had: of the left one (going right) and the other, told apart by their row."""
    people: list[set[int]] = [set(), set()]
    for rows in tracked:
        for top, track in rows:
            people[int(top > 60)].add(track)
    return people


def check(tracked: list[list[tuple[float, int]]]) -> None:
    people = names_by_person(tracked)
    assert all(people), "somebody was never tracked"
    assert not people[0] & people[1], "two people had one track"


def test_boxmot(features: TrackerFeatures) -> None:
    boxmot = pytest.importorskip("boxmot", reason=f"boxmot {REASON}")
    from boxmot.reid.core.runtime import ReID

    frame, boxes = next(two_people())
    np.testing.assert_allclose(
        ReID.from_backend(features)(frame, boxes), features.get_features(boxes, frame), atol=1e-6
    )
    tracker = boxmot.BotSort(reid_model=features)
    tracked = []
    for image, found in two_people():
        rows = np.concatenate([found, np.full((len(found), 1), 0.9), np.zeros((len(found), 1))], axis=1)
        tracked.append([(row[1], int(row[4])) for row in tracker.update(rows.astype(np.float32), image)])
    check(tracked)
    assert [len(tracks) for tracks in names_by_person(tracked)] == [1, 1]


def test_roboflow_trackers(features: TrackerFeatures) -> None:
    trackers = pytest.importorskip("trackers", reason=f"trackers {REASON}")
    sv = pytest.importorskip("supervision", reason=f"supervision {REASON}")
    if not hasattr(trackers, "DeepSORTTracker"):
        pytest.skip(f"trackers {trackers.__name__} has no tracker with appearance in this release")
    tracker = trackers.DeepSORTTracker(feature_extractor=features, minimum_consecutive_frames=1)
    tracked = []
    for image, found in two_people():
        detections = sv.Detections(
            xyxy=found.astype(np.float32).reshape(-1, 4),
            confidence=np.full(len(found), 0.9, np.float32),
            class_id=np.zeros(len(found), int),
        )
        done = tracker.update(detections, image)
        tracked.append(
            [(box[1], int(track)) for box, track in zip(done.xyxy, done.tracker_id, strict=True) if track >= 0]
        )
    check(tracked)


def test_supervision_detections(features: TrackerFeatures) -> None:
    sv = pytest.importorskip("supervision", reason=f"supervision {REASON}")
    frame, boxes = next(two_people())
    got = features.extract_features(sv.Detections(xyxy=boxes.astype(np.float32)), frame)
    np.testing.assert_array_equal(got, features.get_features(boxes, frame))
    assert features.extract_features(sv.Detections.empty(), frame).shape == (0, 12)


def test_ultralytics(features: TrackerFeatures) -> None:
    pytest.importorskip("ultralytics", reason=f"ultralytics {REASON}")
    from ultralytics.engine.results import Boxes
    from ultralytics.trackers import BOTSORT
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    settings = IterableSimpleNamespace(**{**YAML.load(check_yaml("botsort.yaml")), "gmc_method": "none"})
    tracker = BOTSORT(settings)
    settings.with_reid, tracker.encoder = True, features
    tracked = []
    for image, found in two_people():
        rows = np.concatenate([found, np.full((len(found), 1), 0.9), np.zeros((len(found), 1))], axis=1)
        tracks = tracker.update(Boxes(rows.astype(np.float32).reshape(-1, 6), image.shape[:2]), image)
        tracked.append([(row[1], int(row[4])) for row in tracks])
    check(tracked)
    assert [len(tracks) for tracks in names_by_person(tracked)] == [1, 1]


def test_ultralytics_runs_the_preset(tmp_path: Path) -> None:
    pytest.importorskip("ultralytics", reason=f"ultralytics {REASON}")
    pytest.importorskip("onnx", reason=f"onnx {REASON}")
    from ultralytics.trackers.utils.reid import ReID

    from tests.preset_model import write_preset_pair

    plain, preset = write_preset_pair(tmp_path)
    encoder = ReID(str(preset), device="cpu")
    assert encoder.imgsz == (32, 16)
    frame, boxes = next(two_people())
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    theirs = np.stack(encoder(frame, centred.astype(np.float32)))
    # ultralytics cuts its crops 2 % and 10 pixels larger: with those boxes, ours are the same.
    crops = encoder._crop_detections(frame, centred.astype(np.float32))
    with Embedder(plain, "cpu") as embedder:
        ours = embedder.embed_crops([np.ascontiguousarray(crop) for crop in crops])
    assert len(theirs) == 2
    assert np.einsum("nd,nd->n", theirs / np.linalg.norm(theirs, axis=1, keepdims=True), ours).min() > 0.999
