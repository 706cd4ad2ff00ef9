from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hamr_edge.dataset import JUNK_IDENTITY, open_dataset
from hamr_edge.errors import InputError
from hamr_edge.evaluation import can_be_scored
from hamr_edge.ranking import score_retrieval
from tests.standard_sets import write_images

MARKED = (
    "train/anna/c1_0001.jpg",
    "train/anna/c2_0001.jpg",
    "train/ben/c1_0001.jpg",
    "query/carla/walk-CAM3.png",
    "query/dora/0004_c12s1_000451_01.jpg",
    "gallery/carla/walk_camera4.jpg",
    "gallery/carla/c3.jpg",
    "gallery/dora/x c1 y.jpeg",
    "gallery/-1/c1_7.jpg",
    "gallery/emil/c3_1.jpg",
)
UNMARKED = (
    "train/anna/a.jpg",
    "train/anna/b.jpg",
    "train/ben/a.jpg",
    "query/carla/1.jpg",
    "gallery/carla/1.jpg",
    "gallery/carla/2.jpg",
    "gallery/dora/1.jpg",
)


def test_identities_are_numbered_by_the_folders_names(tmp_path: Path) -> None:
    write_images(tmp_path, MARKED)
    dataset = open_dataset(tmp_path)
    assert dataset.train.identities.tolist() == [1, 1, 2]
    assert dataset.query.identities.tolist() == [3, 4]
    assert [path.parent.name for path in dataset.gallery.paths] == ["-1", "carla", "carla", "dora", "emil"]
    assert dataset.gallery.identities.tolist() == [JUNK_IDENTITY, 3, 3, 4, 5]


def test_cameras_are_read_from_the_names(tmp_path: Path) -> None:
    write_images(tmp_path, MARKED)
    dataset = open_dataset(tmp_path)
    assert dataset.train.cameras.tolist() == [1, 2, 1]
    assert dataset.query.cameras.tolist() == [3, 12]
    assert dataset.gallery.cameras.tolist() == [1, 3, 4, 1, 3]
    assert dataset.cameras_named


@pytest.mark.parametrize("name", ["disc3.jpg", "0001.jpg", "c.jpg", "magic12_a.jpg", "c-3.jpg"])
def test_other_names_are_no_cameras(tmp_path: Path, name: str) -> None:
    write_images(tmp_path, [f"query/a/{name}", "query/a/other.jpg", "gallery/a/more.jpg"])
    (tmp_path / "query/a/other.jpg").write_bytes(b"no copy")
    assert len(set(open_dataset(tmp_path).query.cameras.tolist())) == 2


def test_without_cameras_a_query_is_scored_against_all_but_its_copies(tmp_path: Path) -> None:
    write_images(tmp_path, UNMARKED)
    (tmp_path / "gallery/carla/1.jpg").write_bytes(b"another image of the query's name")
    dataset = open_dataset(tmp_path)  # all images are alike but that one
    query, another, copy, dora = *dataset.query.cameras.tolist(), *dataset.gallery.cameras.tolist()
    assert query == copy
    assert not dataset.cameras_named
    assert len({query, another, dora}) == 3
    assert can_be_scored(dataset.query, dataset.gallery)
    gallery = np.array([[0.6, 0.8], [1, 0], [0.8, 0.6]], np.float32)  # the copy is nearest, then dora, then the other
    scores = score_retrieval(
        np.eye(2, dtype=np.float32)[:1],
        gallery,
        dataset.query.identities,
        dataset.gallery.identities,
        dataset.query.cameras,
        dataset.gallery.cameras,
    )
    assert (scores.rank1, scores.map) == (0, 0.5)


def test_images_of_one_size_are_not_taken_for_copies(tmp_path: Path) -> None:
    for number, name in enumerate(("query/a/1.jpg", "gallery/a/1.jpg", "gallery/a/2.jpg")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"image %d" % number)
    dataset = open_dataset(tmp_path)
    assert len({*dataset.query.cameras.tolist(), *dataset.gallery.cameras.tolist()}) == 3


def test_some_cameras_are_an_error_in_the_test_images_alone(tmp_path: Path) -> None:
    write_images(tmp_path, [*UNMARKED, "train/ben/c3_1.jpg"])
    assert open_dataset(tmp_path).train.cameras.tolist() == [0, 0, 0, 3]
    write_images(tmp_path, ["gallery/carla/c3_1.jpg"])
    with pytest.raises(
        InputError, match=r"1\.jpg names no camera, but 1 of 5 test images do, like c3_1\.jpg; name the camera in all"
    ):
        open_dataset(tmp_path)


def test_training_alone_is_enough_to_train(tmp_path: Path) -> None:
    write_images(tmp_path, [name for name in UNMARKED if name.startswith("train")])
    dataset = open_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (3, 0, 0)
    assert not can_be_scored(dataset.query, dataset.gallery)


def test_query_and_gallery_alone_are_enough_to_score(tmp_path: Path) -> None:
    write_images(tmp_path, [name for name in MARKED if not name.startswith("train")])
    dataset = open_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (0, 2, 5)
    assert dataset.train.identities.shape == (0,)


@pytest.mark.parametrize("lost", ["query", "gallery"])
def test_query_and_gallery_come_together(tmp_path: Path, lost: str) -> None:
    write_images(tmp_path, [name for name in MARKED if not name.startswith(lost)])
    with pytest.raises(InputError, match=rf"has no {lost}; expected train/<identity>/, .*found .*train"):
        open_dataset(tmp_path)


def test_no_split_at_all_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, ["anna/1.jpg", "ben/1.jpg"])
    with pytest.raises(InputError, match=r"has no train; expected train/<identity>/, .*found anna, ben"):
        open_dataset(tmp_path, "folders")
    with pytest.raises(InputError, match=r"no data set of a known layout: found anna, ben; .*train/<identity>/"):
        open_dataset(tmp_path)


def test_an_image_outside_the_folders_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, [*UNMARKED, "train/stray.jpg"])
    with pytest.raises(InputError, match=r"stray\.jpg lies outside an identity's folder; expected train/<identity>/"):
        open_dataset(tmp_path)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, [*UNMARKED, "train/zoe/cam1/1.jpg"])
    with pytest.raises(InputError, match=r"zoe holds no images \(\.jpg, \.jpeg, \.png\)"):
        open_dataset(tmp_path)


def test_a_split_without_folders_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, UNMARKED[:3])
    (tmp_path / "query").mkdir()
    (tmp_path / "gallery").mkdir()
    with pytest.raises(InputError, match="query holds no folders; expected one for each identity"):
        open_dataset(tmp_path)


def test_hidden_things_are_left_alone(tmp_path: Path) -> None:
    write_images(tmp_path, [*UNMARKED, "train/.thumbnails/1.jpg", "train/.hidden.jpg", "train/anna/._a.jpg"])
    (tmp_path / "train" / "notes.txt").write_text("text")
    assert len(open_dataset(tmp_path).train) == 3
