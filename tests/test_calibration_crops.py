from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.calibration.crops import (
    calibration_batches,
    choose_calibration_crops,
    random_calibration_batches,
)
from hamr_edge.dataset import CorruptImageError, LabelledCrops, ReidDataset, open_dataset, read_crop
from hamr_edge.errors import InputError
from hamr_edge.preprocess import stack_crops

SIZE_HW = (32, 16)


def labelled(rows: list[tuple[int, int]]) -> LabelledCrops:
    """Crops of (identity, camera) rows, without files."""
    identities, cameras = np.array(rows, np.int64).reshape(-1, 2).T
    return LabelledCrops(tuple(Path(f"{row:06d}.jpg") for row in range(len(rows))), identities, cameras)


def dataset_of(train: LabelledCrops) -> ReidDataset:
    others = labelled([(1, 1), (2, 2)])
    return ReidDataset("made", train, others, others)


EVEN = labelled([(identity, camera) for identity in range(60) for camera in range(6) for _ in range(5)])


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=2, max_size=200),
    st.integers(0, 5),
    st.data(),
)
def test_no_identity_or_camera_of_it_is_preferred(rows: list[tuple[int, int]], seed: int, data: st.DataObject) -> None:
    train = labelled(rows)
    count = data.draw(st.integers(1, len(rows)))
    chosen = choose_calibration_crops(dataset_of(train), count, seed)
    assert len(chosen) == len(set(chosen.paths)) == count
    assert set(chosen.paths) <= set(train.paths)
    # Nobody gives two crops more than another who has crops left, and no camera of anybody does.
    for label in ((lambda row: row[0]), (lambda row: row)):
        held = Counter(label(row) for row in rows)
        given_ = Counter(label(row) for row in zip(chosen.identities.tolist(), chosen.cameras.tolist(), strict=True))
        for one in held:
            rivals = [other for other in held if isinstance(one, int) or other[0] == one[0]]
            if given_[one] < held[one]:
                assert all(given_[other] <= given_[one] + 1 for other in rivals)


def test_cameras_are_even_where_there_are_fewer_crops_than_identities() -> None:
    chosen = choose_calibration_crops(dataset_of(EVEN), 30, 0)
    assert len(set(chosen.identities.tolist())) == 30
    assert Counter(chosen.cameras.tolist()) == dict.fromkeys(range(6), 5)


def test_the_seed_chooses() -> None:
    dataset = dataset_of(EVEN)
    assert choose_calibration_crops(dataset, 40, 3).paths == choose_calibration_crops(dataset, 40, 3).paths
    assert choose_calibration_crops(dataset, 40, 3).paths != choose_calibration_crops(dataset, 40, 4).paths
    assert len({choose_calibration_crops(dataset, 1, seed).paths for seed in range(20)}) > 10


def test_a_small_set_is_taken_whole_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    train = labelled([(1, 1), (2, 1)])
    with caplog.at_level(logging.WARNING):
        assert choose_calibration_crops(dataset_of(train), 2, 0).paths == train.paths
        assert not caplog.messages
        assert choose_calibration_crops(dataset_of(train), 512, 0).paths == train.paths
    assert caplog.messages == ["made has 2 training crops, 512 were asked for: all are used"]


def test_no_training_crop_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"made has no training crops.*--data.*--allow-random-calibration"):
        choose_calibration_crops(dataset_of(labelled([])), 10, 0)


def test_batches_are_the_crops_as_the_runtime_resizes_them(tiny_dataset: Path) -> None:
    crops = open_dataset(tiny_dataset).train
    batches = calibration_batches(crops, SIZE_HW, 4)
    expected = stack_crops([read_crop(path) for path in crops.paths], SIZE_HW)
    assert batches.input_size_hw == SIZE_HW
    for _ in range(2):  # they can be gone through again
        found = list(batches)
        assert [len(batch) for batch in found] == [4, 2]
        assert len(batches) == 2
        np.testing.assert_array_equal(np.concatenate(found), expected)


def test_the_hash_is_of_names_bytes_and_order(tiny_dataset: Path, tmp_path: Path) -> None:
    crops = open_dataset(tiny_dataset).train

    def sha256(crops: LabelledCrops) -> str:
        return calibration_batches(crops, SIZE_HW).sha256

    first = sha256(crops)
    copied = tuple(Path(shutil.copy(path, tmp_path)) for path in crops.paths)
    copy = LabelledCrops(copied, crops.identities, crops.cameras)
    assert sha256(copy) == first  # where they lie does not matter
    assert sha256(crops.select(np.arange(len(crops))[::-1])) != first
    assert sha256(crops.select(np.arange(len(crops) - 1))) != first
    with copied[2].open("ab") as file:
        file.write(b"\0")  # after the image's end: the same pixels
    assert sha256(copy) != first
    shutil.copy(crops.paths[2], copied[2])
    assert sha256(copy) == first
    other = copied[2].rename(tmp_path / "other.png")
    renamed = LabelledCrops((*copied[:2], other, *copied[3:]), crops.identities, crops.cameras)
    assert sha256(renamed) != first


def test_a_crop_that_cannot_be_read_is_named(tiny_dataset: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    crops = LabelledCrops((broken,), np.array([1]), np.array([1]))
    with pytest.raises(CorruptImageError, match=r"broken\.jpg"):
        calibration_batches(crops, SIZE_HW)
    with pytest.raises(InputError, match="at least one crop"):
        calibration_batches(labelled([]), SIZE_HW)


def test_noise_is_refused_unless_asked_for() -> None:
    with pytest.raises(InputError, match="--allow-random-calibration"):
        random_calibration_batches(10, SIZE_HW, 0, allow_random=False)
    noise = random_calibration_batches(10, SIZE_HW, 0, allow_random=True, batch_size=4)
    assert [batch.shape for batch in noise] == [(4, *SIZE_HW, 3), (4, *SIZE_HW, 3), (2, *SIZE_HW, 3)]
    assert noise.sha256 == random_calibration_batches(10, SIZE_HW, 0, allow_random=True).sha256
    assert noise.sha256 != random_calibration_batches(10, SIZE_HW, 1, allow_random=True).sha256
