from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from hamr_edge.dataset import open_dataset, read_crop
from hamr_edge.errors import InputError
from hamr_edge.trainer.synth_command import synth
from hamr_edge.trainer.synthetic import random_crops
from hamr_edge.trainer.synthetic_data import write_dataset, write_video


def test_a_data_set_has_markets_form(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", ids=10, cameras=3, seed=1)
    dataset = open_dataset(tmp_path / "data")
    assert set(dataset.train.identities) == set(range(1, 6))
    assert set(dataset.query.identities) == set(range(6, 11))
    assert {-1, 0} < set(dataset.gallery.identities)
    assert set(dataset.query.cameras) == {1, 2, 3}
    assert not set(dataset.train.identities) & set(dataset.query.identities)
    assert read_crop(dataset.train.paths[0]).shape == (128, 64, 3)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / name, ids=4, cameras=2, seed=seed)
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.jpg")} for name in "abc")
    assert a == b
    assert a != c


def test_people_differ_more_than_pictures_of_one(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", ids=12, cameras=2, seed=0)
    train = open_dataset(tmp_path / "data").train
    torsos = np.stack([read_crop(path)[25:60, 20:44].mean((0, 1)) for path in train.paths])
    distance = np.linalg.norm(torsos[:, None] - torsos[None], axis=2)
    same = (train.identities[:, None] == train.identities[None]) & (train.cameras[:, None] == train.cameras[None])
    assert distance[same].mean() < 0.5 * distance[train.identities[:, None] != train.identities[None]].mean()


def test_random_crops_are_seeded() -> None:
    for one, other in zip(random_crops(3, seed=4), random_crops(3, seed=4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_video_and_detections_agree(tmp_path: Path) -> None:
    detections = write_video(tmp_path / "walk.avi", people=3, frames=12)
    capture = cv2.VideoCapture(str(tmp_path / "walk.avi"))
    frames = 0
    while capture.read()[0]:
        frames += 1
    rows = [line.split(",") for line in detections.read_text().splitlines()]
    assert frames == 12
    assert {int(row[0]) for row in rows} <= set(range(1, 13))
    assert len(rows) >= 30


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        write_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("ids", "cameras"), [(3, 4), (10, 1), (10, 10)])
def test_wrong_numbers_are_named(tmp_path: Path, ids: int, cameras: int) -> None:
    with pytest.raises(InputError, match=f"got {ids} and {cameras}"):
        write_dataset(tmp_path / "data", ids=ids, cameras=cameras)


def test_a_video_of_no_known_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write a \.xyz video"):
        write_video(tmp_path / "walk.xyz", frames=1)
    assert not list(tmp_path.iterdir())


def test_command(tmp_path: Path) -> None:
    video = tmp_path / "v.avi"
    result = CliRunner().invoke(synth, [str(tmp_path / "data"), "--ids", "4", "--cameras", "2", "--video", str(video)])
    assert result.exit_code == 0, result.output
    assert video.exists()
