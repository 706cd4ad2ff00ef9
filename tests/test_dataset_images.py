from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.dataset import CorruptImageError, LabelledCrops, open_dataset, read_crop
from hamr_edge.errors import InputError
from hamr_edge.preprocess import resize_crop
from hamr_edge.trainer.datasets import load_training_images
from tests.tiny_dataset import CROP_SIZE_HW

SIZE_HW = (32, 16)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
JPEG = cv2.imencode(".jpg", PIXELS)[1].tobytes()
PROGRESSIVE = cv2.imencode(".jpg", PIXELS, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()
_THUMBNAIL = cv2.imencode(".jpg", PIXELS[:8, :8])[1].tobytes()
WITH_THUMBNAIL = JPEG[:2] + b"\xff\xe1" + (len(_THUMBNAIL) + 2).to_bytes(2, "big") + _THUMBNAIL + JPEG[2:]


def test_a_crop_is_read_as_bgr(tiny_dataset: Path) -> None:
    path = open_dataset(tiny_dataset).query.paths[0]
    image = read_crop(path)
    assert image.shape == (*CROP_SIZE_HW, 3)
    assert image.dtype == np.uint8
    assert np.array_equal(image, cv2.imread(str(path)))


@pytest.mark.parametrize("content", [b"no image", PNG[:-1], PNG[: len(PNG) // 2], PNG[:300] + b"xxxx" + PNG[304:]])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(content)
    with pytest.raises(CorruptImageError, match=r"broken\.jpg cannot be decoded; delete or replace it"):
        read_crop(broken)


def test_a_missing_an_empty_and_an_unreadable_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jpg is not there") as caught:
        read_crop(tmp_path / "gone.jpg")
    assert not isinstance(caught.value, CorruptImageError)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(CorruptImageError, match=r"empty\.jpg is an empty file; delete or replace it"):
        read_crop(tmp_path / "empty.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(InputError, match=r"folder\.jpg cannot be read: Is a directory"):
        read_crop(tmp_path / "folder.jpg")


@given(whole=st.sampled_from([JPEG, PROGRESSIVE, WITH_THUMBNAIL]), share=st.floats(0, 1, exclude_max=True))
def test_a_jpeg_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, whole: bytes, share: float) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.jpg"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CorruptImageError, match=r"cut\.jpg (is cut short|is an empty file|cannot be decoded)"):
        read_crop(path)


@pytest.mark.parametrize("whole", [JPEG, PROGRESSIVE, WITH_THUMBNAIL])
def test_a_lost_end_marker_is_told_from_other_damage(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "cut.jpg").write_bytes(whole[:-1])
    with pytest.raises(CorruptImageError, match=r"cut\.jpg is cut short: a JPEG without its end marker"):
        read_crop(tmp_path / "cut.jpg")


def test_reading_the_file_by_opencv_would_pass_a_jpeg_cut_short(tmp_path: Path) -> None:
    (tmp_path / "half.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    assert cv2.imread(str(tmp_path / "half.jpg")).shape == PIXELS.shape
    with pytest.raises(CorruptImageError, match=r"half\.jpg is cut short: a JPEG without its end marker; delete"):
        read_crop(tmp_path / "half.jpg")


@pytest.mark.parametrize(
    "content",
    [
        PROGRESSIVE,
        WITH_THUMBNAIL,
        JPEG + b"after the end \xff\xda",
        JPEG[:2] + b"\xff\xff" + JPEG[2:],  # fill bytes before a marker
    ],
)
def test_unusual_jpegs_are_whole(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.jpg").write_bytes(content)
    assert read_crop(tmp_path / "odd.jpg").shape == PIXELS.shape


@pytest.fixture
def crops(tmp_path: Path) -> LabelledCrops:
    """Two images each of the identities 3, 7 and 9, each image of its own grey."""
    paths = tuple(tmp_path / f"{identity:04d}_c1_{shot}.jpg" for identity in (3, 7, 9) for shot in (0, 1))
    for row, path in enumerate(paths):
        cv2.imwrite(str(path), np.full((40, 20, 3), 40 * row, np.uint8))
    return LabelledCrops(paths, np.array([3, 3, 7, 7, 9, 9]), np.ones(6, np.int64))


def test_training_images_are_the_files_in_their_order(crops: LabelledCrops) -> None:
    data = load_training_images(crops, SIZE_HW)
    assert data.images.shape == (6, *SIZE_HW, 3)
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (data.classes, data.paths, data.skipped) == (3, crops.paths, ())
    for image, path in zip(data.images, crops.paths, strict=True):
        assert np.array_equal(image, resize_crop(read_crop(path), SIZE_HW))


def test_a_corrupt_training_image_is_named_with_the_way_out(crops: LabelledCrops) -> None:
    crops.paths[3].write_bytes(crops.paths[3].read_bytes()[:-20])
    with pytest.raises(InputError, match=r"0007_c1_1\.jpg is cut short.*replace it, or go on .*: --skip-bad"):
        load_training_images(crops, SIZE_HW)


def test_skipping_keeps_images_labels_and_paths_together(crops: LabelledCrops) -> None:
    whole = load_training_images(crops, SIZE_HW)
    crops.paths[0].write_bytes(b"garbage")
    crops.paths[3].write_bytes(crops.paths[3].read_bytes()[:-20])
    data = load_training_images(crops, SIZE_HW, skip_bad=True)
    kept = [1, 2, 4, 5]
    assert data.skipped == (crops.paths[0], crops.paths[3])
    assert data.paths == tuple(crops.paths[row] for row in kept)
    assert data.labels.tolist() == [0, 1, 2, 2]
    assert np.array_equal(data.images, whole.images[kept])


def test_an_identity_that_loses_all_keeps_its_class(crops: LabelledCrops) -> None:
    """So that the network of a resumed run has as many classes as before, whatever was mended meanwhile."""
    for row in (2, 3):
        crops.paths[row].write_bytes(b"")
    data = load_training_images(crops, SIZE_HW, skip_bad=True)
    assert data.classes == 3
    assert data.labels.tolist() == [0, 0, 2, 2]


def test_a_missing_training_image_is_not_skipped(crops: LabelledCrops) -> None:
    crops.paths[2].unlink()
    with pytest.raises(InputError, match=r"0007_c1_0\.jpg is not there$"):
        load_training_images(crops, SIZE_HW, skip_bad=True)


def test_nothing_left_is_an_error(crops: LabelledCrops) -> None:
    for path in crops.paths:
        path.write_bytes(b"garbage")
    with pytest.raises(
        InputError, match=r"none of the 6 training images can be decoded, the first is .*0003_c1_0\.jpg"
    ):
        load_training_images(crops, SIZE_HW, skip_bad=True)
