"""The real trackers, each in an environment that 'make integrations' makes; skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from hamr_edge import Embedder, InputError
from hamr_edge.tracker_features import TrackerFeatures
from tests.artifacts import write_tiny_artifact

REASON = "is not installed; 'make integrations' tests with it"
FRAMES, HIDDEN = 40, range(18, 24)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    path = write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx")
    with Embedder(path, "cpu") as embedder:
        yield embedder


@pytest.fixture
def features(embedder: Embedder) -> CountedFeatures:
    return CountedFeatures(embedder)


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


def who_comes_back_elsewhere() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames in which two people stand, are hidden, and stand where nobody was: motion cannot tell who is who."""
    rng = np.random.default_rng(7)
    looks = rng.integers(0, 256, (2, 8, 4, 3), np.uint8).repeat(12, axis=1).repeat(15, axis=2)
    for number in range(FRAMES):
        frame = np.full((240, 480, 3), 120, np.uint8)
        corners = ((20, 4), (390, 4)) if number < HIDDEN.start else ((300, 130), (160, 130))
        boxes = np.array([[x, y, x + 60, y + 96] for x, y in corners])
        for look, (x1, y1, x2, y2) in zip(looks, boxes, strict=True):
            frame[y1:y2, x1:x2] = look
        yield frame, boxes[:0] if number in HIDDEN else boxes


Track = Callable[[np.ndarray, np.ndarray], list[tuple[float, float, int]]]
"""Gives a tracker a frame and boxes; left and top of each tracked box and its number come back."""


def numbers_of_people(track: Track, scene: Iterator[tuple[np.ndarray, np.ndarray]]) -> list[set[int]]:
    """The numbers that each of the two people had."""
    people: list[set[int]] = [set(), set()]
    for image, boxes in scene:
        for left, top, number in track(image, boxes):
            people[int(np.abs(boxes[:, :2] - (left, top)).sum(axis=1).argmin())].add(number)
    assert all(people), "somebody was never tracked"
    assert not people[0] & people[1], "two people had one number"
    return people


class CountedFeatures(TrackerFeatures):
    """Counts what a tracker asks for."""

    asked = 0

    def get_features(self, xyxys: ArrayLike, img: np.ndarray) -> np.ndarray:
        self.asked += len(np.asarray(xyxys))
        return super().get_features(xyxys, img)

    def threshold(self) -> float:
        """A cosine between that of a person with the same person, 1, and that of the two people."""
        frame, boxes = next(who_comes_back_elsewhere())
        first, second = super().get_features(boxes, frame)
        assert first @ second < 0.9
        return (1 + float(first @ second)) / 2


def check_tracker(
    make: Callable[[CountedFeatures, bool], Track], features: CountedFeatures, can_look_elsewhere: bool = True
) -> None:
    """Two walkers keep their numbers; who comes back elsewhere has the old one only where appearance alone may decide.

    Args:
        make: Of the embeddings, and whether appearance counts anywhere, a new tracker.
        features: Asked for everybody.
        can_look_elsewhere: Whether the tracker has a setting for it.
    """
    walkers = numbers_of_people(make(features, False), two_people())
    assert features.asked > 0, "the tracker never asked for an embedding"
    assert [len(numbers) for numbers in walkers] == [1, 1]
    near = numbers_of_people(make(features, False), who_comes_back_elsewhere())
    assert [len(numbers) for numbers in near] == [2, 2]
    if can_look_elsewhere:
        anywhere = numbers_of_people(make(features, True), who_comes_back_elsewhere())
        assert [len(numbers) for numbers in anywhere] == [1, 1]


def test_boxmot(features: CountedFeatures) -> None:
    boxmot = pytest.importorskip("boxmot", reason=f"boxmot {REASON}")
    from boxmot.reid.core.runtime import ReID

    frame, boxes = next(two_people())
    np.testing.assert_allclose(
        ReID.from_backend(features)(frame, boxes), features.get_features(boxes, frame), atol=1e-6
    )

    def make(features: CountedFeatures, anywhere: bool) -> Track:
        settings = {"proximity_thresh": 1.0} if anywhere else {}
        tracker = boxmot.BotSort(
            reid_model=features, appearance_thresh=1 - features.threshold(), use_cmc=False, **settings
        )

        def track(image: np.ndarray, found: np.ndarray) -> list[tuple[float, float, int]]:
            rows = np.concatenate([found, np.full((len(found), 1), 0.9), np.zeros((len(found), 1))], axis=1)
            return [(row[0], row[1], int(row[4])) for row in tracker.update(rows.astype(np.float32), image)]

        return track

    check_tracker(make, features)


def test_roboflow_trackers(features: CountedFeatures) -> None:
    trackers = pytest.importorskip("trackers", reason=f"trackers {REASON}")
    sv = pytest.importorskip("supervision", reason=f"supervision {REASON}")
    if not hasattr(trackers, "DeepSORTTracker"):
        pytest.skip(f"trackers {trackers.__name__} has no tracker with appearance in this release")

    def make(features: CountedFeatures, anywhere: bool) -> Track:
        tracker = trackers.DeepSORTTracker(
            feature_extractor=features,
            minimum_consecutive_frames=1,
            appearance_threshold=1 - features.threshold(),
            minimum_iou_threshold=0.0 if anywhere else 0.3,
        )

        def track(image: np.ndarray, found: np.ndarray) -> list[tuple[float, float, int]]:
            detections = sv.Detections(
                xyxy=found.astype(np.float32).reshape(-1, 4),
                confidence=np.full(len(found), 0.9, np.float32),
                class_id=np.zeros(len(found), int),
            )
            done = tracker.update(detections, image)
            pairs = zip(done.xyxy, done.tracker_id, strict=True)
            return [(box[0], box[1], int(number)) for box, number in pairs if number >= 0]

        return track

    check_tracker(make, features)


def test_supervision_detections(features: CountedFeatures) -> None:
    sv = pytest.importorskip("supervision", reason=f"supervision {REASON}")
    frame, boxes = next(two_people())
    got = features.extract_features(sv.Detections(xyxy=boxes.astype(np.float32)), frame)
    np.testing.assert_array_equal(got, features.get_features(boxes, frame))
    assert features.extract_features(sv.Detections.empty(), frame).shape == (0, 12)


@pytest.mark.parametrize("kind", ["BOTSORT", "DEEPOCSORT", "TRACKTRACK"])
def test_ultralytics(features: CountedFeatures, kind: str) -> None:
    pytest.importorskip("ultralytics", reason=f"ultralytics {REASON}")
    from ultralytics.engine.results import Boxes
    from ultralytics.trackers.track import TRACKER_MAP
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    def make(features: CountedFeatures, anywhere: bool) -> Track:
        settings = IterableSimpleNamespace(**{**YAML.load(check_yaml(f"{kind.lower()}.yaml")), "gmc_method": "none"})
        tracker = TRACKER_MAP[kind.lower()](settings)
        features.attach(SimpleNamespace(trackers=[tracker]))
        tracker.appearance_thresh = (1 + features.threshold()) / 2
        if anywhere:
            tracker.proximity_thresh = 0.0

        def track(image: np.ndarray, found: np.ndarray) -> list[tuple[float, float, int]]:
            rows = np.concatenate([found, np.full((len(found), 1), 0.9), np.zeros((len(found), 1))], axis=1)
            tracks = tracker.update(Boxes(rows.astype(np.float32).reshape(-1, 6), image.shape[:2]), image)
            return [(row[0], row[1], int(row[4])) for row in tracks]

        return track

    check_tracker(make, features, can_look_elsewhere=kind != "TRACKTRACK")  # that one wants an overlap of 0.10, always


def test_ultralytics_without_an_encoder_says_so(features: CountedFeatures) -> None:
    pytest.importorskip("ultralytics", reason=f"ultralytics {REASON}")
    from ultralytics.trackers import BOTSORT, BYTETracker
    from ultralytics.utils import YAML, IterableSimpleNamespace
    from ultralytics.utils.checks import check_yaml

    settings = IterableSimpleNamespace(**YAML.load(check_yaml("bytetrack.yaml")))
    with pytest.raises(InputError, match="BYTETracker does not look at people"):
        features.attach(SimpleNamespace(trackers=[BYTETracker(settings)]))
    settings = IterableSimpleNamespace(**{**YAML.load(check_yaml("botsort.yaml")), "with_reid": True})
    with pytest.raises(InputError, match="with_reid: False"):
        features.attach(SimpleNamespace(trackers=[BOTSORT(settings)]))


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
