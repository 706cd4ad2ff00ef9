from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge.annotate import AnnotatedVideo, draw_people, format_time, identity_color
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.identities import Identities
from hamr_edge.video import Frame
from tests.video_files import read_video


def _unit(*angles: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)] for angle in np.deg2rad(angles)], np.float32).reshape(-1, 2)


def test_people_keep_their_numbers_in_any_order() -> None:
    identities = Identities(2, threshold=0.9)
    assert identities.assign(_unit(0, 90)).tolist() == [1, 2]
    assert identities.assign(_unit(85, 5, 45)).tolist() == [2, 1, 3]
    assert identities.assign(_unit()).tolist() == []
    assert identities.assign(_unit(180, 0)).tolist() == [4, 1]
    assert identities.known == 4


def test_two_people_in_a_frame_never_share_a_number() -> None:
    identities = Identities(2, threshold=0.5)
    identities.assign(_unit(0))
    assert identities.assign(_unit(20, 2, 30)).tolist() == [2, 1, 3]  # the nearest keeps it, whatever the order


def test_a_prototype_follows_its_person() -> None:
    identities = Identities(2, threshold=np.cos(np.deg2rad(35)))
    for angle in range(0, 60, 2):
        assert identities.assign(_unit(angle)).tolist() == [1]
    assert identities.assign(_unit(-10)).tolist() == [2]


def test_the_one_not_seen_for_longest_is_forgotten() -> None:
    identities = Identities(2, threshold=0.99, capacity=2)
    for angle in (0, 90, 0, 180):
        identities.assign(_unit(angle))
    assert identities.assign(_unit(0, 180)).tolist() == [1, 3]
    assert identities.assign(_unit(90)).tolist() == [4]


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), threshold=st.floats(-1, 1))
def test_numbers_are_distinct_and_prototypes_bounded(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    identities = Identities(4, threshold, capacity=7)
    for _ in range(12):
        embeddings = rng.normal(size=(rng.integers(0, 10), 4)).astype(np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        numbers = identities.assign(embeddings)
        assert len(set(numbers.tolist())) == len(embeddings)
        assert ((numbers >= 1) & (numbers <= identities.known)).all()
        assert len(identities._prototypes) <= 7


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"cosine in -1..1, got 1.2"):
        Identities(2, threshold=1.2)
    with pytest.raises(InputError, match="capacity must be at least 1"):
        Identities(2, capacity=0)


def test_colours_of_the_first_people_are_far_apart() -> None:
    colors = np.array([identity_color(number) for number in range(1, 13)], float)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 40
    assert (colors.max(axis=1) > 150).all()  # none too dark to see


@pytest.mark.parametrize("size_hw", [(90, 120), (360, 480), (1080, 1920)])
def test_boxes_are_drawn_in_their_colours_at_any_size(size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 128, np.uint8)
    height, width = size_hw
    boxes = np.array([[0.4, 0.4, 0.6, 0.9], [0, 0, 0.2, 0.3]], np.float32) * [width, height, width, height]
    drawn = draw_people(image, boxes, np.array([5, 6]), "frame 1")
    assert (image == 128).all()
    x1, _, _, y2 = boxes[0].round().astype(int)
    assert tuple(drawn[y2 - 1, x1 + 3]) == identity_color(5)
    assert (drawn[int(0.7 * height), int(0.5 * width)] == 128).all()  # inside stays free
    ink = (drawn == identity_color(5)).all(axis=2).sum() / (height * width)
    assert 0.003 < ink < 0.05  # lines grow with the frame
    assert (drawn[height - 8 :, :40] != 128).any()  # the caption
    assert (drawn[:2, :2] == identity_color(6)).all()  # a label that would stick out is moved in


def test_boxes_and_labels_at_the_edges_do_not_fail() -> None:
    image = np.zeros((5, 7, 3), np.uint8)
    boxes = np.array([[0, 0, 7, 5], [6.6, 4.6, 7, 5]], np.float32)
    assert draw_people(image, boxes, np.array([1, 123456]), "a long caption").shape == (5, 7, 3)


def test_a_video_shows_the_same_person_in_the_same_colour(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with AnnotatedVideo(path, Identities(2), fps=10) as video:
        for index in range(4):
            box = np.array([[20 + 10 * index, 40, 70 + 10 * index, 150]], np.float32)
            image = np.full((180, 240, 3), 60, np.uint8)
            video.append(Frame(index + 1, index / 10, image), box, _unit(5 * index))
        assert not path.exists()
    frames = read_video(path)
    assert len(frames) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    color = np.array(identity_color(1))
    for index, frame in enumerate(frames):
        label = frame[30:38, 22 + 10 * index : 26 + 10 * index].reshape(-1, 3).astype(float)
        assert np.linalg.norm(np.median(label, axis=0) - color) < 60  # the codec blurs colours


def _append(video: AnnotatedVideo, number: int, image: np.ndarray, *boxes: tuple[float, ...]) -> None:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    video.append(Frame(number, 0.0, image), rows, _unit(*range(0, 90 * len(rows), 90)))


def test_an_error_keeps_what_was_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError), AnnotatedVideo(tmp_path / "out.mp4", Identities(2), 10) as video:  # noqa: PT012
        _append(video, 1, np.zeros((90, 120, 3), np.uint8))
        raise RuntimeError("broke")
    assert [file.name for file in tmp_path.iterdir()] == ["out.partial.mp4"]
    assert video.partial == tmp_path / "out.partial.mp4"
    assert "what was drawn is kept" in caplog.text


def test_frames_of_another_size_are_fitted_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out.mp4"
    with AnnotatedVideo(path, Identities(2), 10) as video:
        _append(video, 1, np.full((180, 240, 3), 250, np.uint8))
        for number in (2, 3):  # twice as wide as high: 240 x 120 of the video, 30 above and below
            _append(video, number, np.full((240, 480, 3), 250, np.uint8), (200, 40, 300, 200))
        _append(video, 4, np.full((180, 240, 3), 250, np.uint8))
    frames = read_video(path)
    assert [frame.shape for frame in frames] == [(180, 240, 3)] * 4
    for frame, bars in zip(frames, (False, True, True, False), strict=True):
        assert (np.abs(frame[5:20].astype(int) - 114).max() < 20) == bars
    assert np.abs(frames[1][60:100, 20:80].astype(int) - 250).max() < 20
    edge = frames[1][60:120, 99:103].reshape(-1, 3).astype(float)  # x1 of 200 lies at 100
    assert np.linalg.norm(edge - np.array(identity_color(1)), axis=1).min() < 60
    assert caplog.text.count("frame 2 is 480 x 240, the first was 240 x 180; such frames are fitted") == 1
    assert "frame 3" not in caplog.text


def test_a_video_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"must end in \.mp4"):
        AnnotatedVideo(tmp_path / "out.avi", Identities(2), 10)
    monkeypatch.setattr(cv2.VideoWriter, "fourcc", lambda *_: 0)  # a codec that no build has
    frame = Frame(1, 0.0, np.zeros((90, 120, 3), np.uint8))
    with (
        pytest.raises(HamrEdgeError, match=r"OpenCV cannot write .*out\.mp4 \(120 x 90, 10 frames/s, codec mp4v\)"),
        AnnotatedVideo(tmp_path / "out.mp4", Identities(2), 10) as video,
    ):
        video.append(frame, np.zeros((0, 4), np.float32), _unit())
    assert not list(tmp_path.iterdir())


def test_times_read_well() -> None:
    assert [format_time(seconds) for seconds in (0, 7.34, 59.96, 3723.4)] == ["0:00.0", "0:07.3", "1:00.0", "1:02:03.4"]
