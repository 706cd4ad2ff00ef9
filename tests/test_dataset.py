from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import InputError
from hamr_edge.dataset import JUNK_IDENTITY, open_dataset
from tests.tiny_dataset import CAMERAS, GALLERY, JUNK, QUERIES, TEST_IDENTITIES


@pytest.fixture
def copy(tiny_dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dataset, tmp_path / "copy"))


def test_names_give_identities_and_cameras(tiny_dataset: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    assert dataset.name == "tiny"
    assert len(dataset.query) == QUERIES
    assert len(dataset.gallery) == GALLERY + JUNK
    assert len(dataset.train) == 6
    assert set(dataset.query.identities.tolist()) == set(TEST_IDENTITIES)
    assert set(dataset.gallery.identities.tolist()) == {JUNK_IDENTITY, 0, *TEST_IDENTITIES}
    assert set(dataset.gallery.cameras.tolist()) == set(CAMERAS)
    assert list(dataset.query.paths) == sorted(dataset.query.paths)
    for path, identity, camera in zip(*_columns(dataset.gallery), strict=True):
        assert path.name.startswith(f"{identity:04d}_c{camera}" if identity >= 0 else f"-1_c{camera}")


def _columns(crops: object) -> tuple:
    return crops.paths, crops.identities, crops.cameras  # type: ignore[attr-defined]


def test_select_keeps_the_arrays_parallel(tiny_dataset: Path) -> None:
    query = open_dataset(tiny_dataset).query
    chosen = query.select(np.array([3, 1]))
    assert chosen.paths == (query.paths[3], query.paths[1])
    assert chosen.identities.tolist() == query.identities[[3, 1]].tolist()
    mask = query.identities == TEST_IDENTITIES[0]
    assert len(query.select(mask)) == len(CAMERAS)
    assert len(query.select(np.zeros(len(query), bool))) == 0


def test_other_files_are_left_alone(copy: Path) -> None:
    (copy / "query" / "Thumbs.db").write_bytes(b"windows")
    (copy / "query" / "readme.txt").write_text("text")
    assert len(open_dataset(copy).query) == QUERIES


def test_hidden_files_and_junk_are_not_trained_on(copy: Path) -> None:
    before = open_dataset(copy).train
    image = before.paths[0].read_bytes()
    (copy / "bounding_box_train" / "._0002_c1s1_000451_03.jpg").write_bytes(b"resource fork")
    (copy / "bounding_box_train" / "-1_c1s1_000451_03.jpg").write_bytes(image)
    assert open_dataset(copy).train.paths == before.paths


def test_a_name_without_labels_is_named(copy: Path) -> None:
    (copy / "query" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"holiday\.jpg does not name identity and camera"):
        open_dataset(copy)


def test_a_missing_folder_is_named_with_what_was_found(copy: Path) -> None:
    shutil.rmtree(copy / "query")
    with pytest.raises(InputError, match=r"has no query; .*found bounding_box_test, bounding_box_train"):
        open_dataset(copy)


def test_an_empty_split_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "query")
    (copy / "query").mkdir()
    with pytest.raises(InputError, match="query holds no images"):
        open_dataset(copy)


def test_a_missing_root_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a folder; 'hamr-edge synth"):
        open_dataset(tmp_path / "nowhere")
