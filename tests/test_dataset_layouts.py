from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.dataset import JUNK_IDENTITY, KINDS, LabelledCrops, open_dataset
from hamr_edge.errors import InputError
from tests.standard_sets import CUHK03, DUKE, MARKET, write_images, write_market_like, write_msmt17


def labels(crops: LabelledCrops) -> list[tuple[int, int]]:
    return list(zip(crops.identities.tolist(), crops.cameras.tolist(), strict=True))


def test_market1501(tmp_path: Path) -> None:
    dataset = open_dataset(write_market_like(tmp_path / "mine", MARKET))
    assert dataset.name == "mine"
    assert labels(dataset.train) == [(2, 1), (2, 2), (7, 6)]
    assert labels(dataset.query) == [(1, 1), (3, 3)]
    assert labels(dataset.gallery) == [(JUNK_IDENTITY, 1), (JUNK_IDENTITY, 5), (0, 3), (0, 6), (1, 2), (3, 6)]


def test_junk_is_not_trained_on_and_distractors_are(tmp_path: Path) -> None:
    root = write_market_like(tmp_path, MARKET)
    write_images(root / "bounding_box_train", ["-1_c1s1_000451_03.jpg", "0000_c1s1_000451_03.jpg"])
    assert labels(open_dataset(root).train) == [(0, 1), (2, 1), (2, 2), (7, 6)]


def test_dukemtmc(tmp_path: Path) -> None:
    dataset = open_dataset(write_market_like(tmp_path, DUKE))
    assert labels(dataset.train) == [(1, 2), (1, 5), (14, 8)]
    assert labels(dataset.query) == [(5, 2), (8, 7)]
    assert labels(dataset.gallery) == [(5, 1), (8, 6), (10, 2), (7139, 8)]


def test_cuhk03_is_read_by_the_folder_of_its_boxes(tmp_path: Path) -> None:
    root = tmp_path / "some-copy"
    write_market_like(root / "labeled", CUHK03)
    dataset = open_dataset(root / "labeled")
    assert dataset.name == "some-copy/labeled"
    assert labels(dataset.train) == [(1, 1), (1, 2), (2, 1)]
    assert labels(dataset.query) == [(3, 1), (3, 2)]
    assert labels(dataset.gallery) == [(3, 1), (3, 1), (3, 2)]


@given(
    identity=st.integers(0, 10**9), camera=st.integers(0, 10**6), rest=st.sampled_from(["s1_000451_03", "_f01", "_1"])
)
def test_any_number_of_digits_is_read(
    tmp_path_factory: pytest.TempPathFactory, identity: int, camera: int, rest: str
) -> None:
    root = write_market_like(tmp_path_factory.mktemp("set"), CUHK03)
    name = f"{identity:04d}_c{camera}{rest}.jpg"
    write_images(root / "query", [name])
    query = open_dataset(root).query
    row = [path.name for path in query.paths].index(name)
    assert labels(query)[row] == (identity, camera)


@pytest.mark.parametrize("version", [1, 2])
def test_msmt17(tmp_path: Path, version: int) -> None:
    dataset = open_dataset(write_msmt17(tmp_path / "wei", version))
    folder = {1: "train", 2: "mask_train_v2"}[version]
    assert [path.relative_to(tmp_path).as_posix() for path in dataset.train.paths] == [
        f"wei/{folder}/0000/0000_000_01_0303morning_0008_0.jpg",
        f"wei/{folder}/0000/0000_018_12_0114afternoon_1558_1.jpg",
        f"wei/{folder}/0001/0001_004_15_0302noon_0331_1_ex.jpg",
    ]
    assert labels(dataset.train) == [(0, 1), (0, 12), (1, 15)]
    assert labels(dataset.query) == [(0, 7), (3059, 13)]
    assert labels(dataset.gallery) == [(0, 1), (0, 7), (3059, 2)]
    assert all(path.is_file() for crops in (dataset.train, dataset.query, dataset.gallery) for path in crops.paths)


def test_msmt17_takes_the_identity_of_the_list(tmp_path: Path) -> None:
    root = write_msmt17(tmp_path, 1)
    (root / "list_query.txt").write_text("3059/3059_011_13_0113noon_0441_2.jpg 12\r\n\r\n")
    assert labels(open_dataset(root).query) == [(12, 13)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("0000/0000_000_01_0303morning_0008_0.jpg", "got '0000/0000_000_01_0303morning_0008_0.jpg'"),
        ("0000/holiday.jpg 0", "got '0000/holiday.jpg 0'"),
        ("0000/0000_000_01_0303morning_0008_0.jpg x", r"0008_0\.jpg x'"),
    ],
)
def test_an_msmt17_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, found: str) -> None:
    root = write_msmt17(tmp_path, 1)
    with (root / "list_train.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=rf"list_train\.txt, line 3: expected a line like .*{found}"):
        open_dataset(root)


@pytest.mark.parametrize("victim", ["test/0000/0000_002_07_0303morning_0020_1.jpg", "test/3059"])
def test_an_image_that_an_msmt17_list_names_must_be_there(tmp_path: Path, victim: str) -> None:
    root = write_msmt17(tmp_path, 1)
    (root / victim).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"\.jpg is not there, though .*list_query\.txt, line \d, names it"):
        open_dataset(root)


def test_an_empty_msmt17_list_is_named(tmp_path: Path) -> None:
    root = write_msmt17(tmp_path, 2)
    (root / "list_gallery.txt").write_text("\n")
    with pytest.raises(InputError, match=r"list_gallery\.txt names no images"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("lost", "named"),
    [("list_val.txt", r"has no list_val\.txt;"), ("test", "has no train and test, or mask_train_v2 and mask_test_v2;")],
)
def test_an_msmt17_that_is_not_whole_is_named(tmp_path: Path, lost: str, named: str) -> None:
    root = write_msmt17(tmp_path / "data", 1)
    (root / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"{named} expected MSMT17's layout .*found .*list_query\.txt"):
        open_dataset(root)


def test_what_is_nothing_known_lists_what_is_there_and_what_is_known(tmp_path: Path) -> None:
    write_images(tmp_path, [f"holiday-{day}.jpg" for day in range(10)])
    with pytest.raises(
        InputError,
        match=r"found holiday-0\.jpg, .*holiday-7\.jpg and 2 more; known are Market-1501's, .*bounding_box_train, query"
        r".*list_train\.txt.*train/<identity>/, query/<identity>/, gallery/<identity>/\)$",
    ):
        open_dataset(tmp_path)


def test_an_empty_folder_is_nothing_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing; known are"):
        open_dataset(tmp_path)


def test_data_sets_inside_a_folder_are_offered(tmp_path: Path) -> None:
    for half in ("labeled", "detected"):
        write_market_like(tmp_path / "cuhk03-np" / half, CUHK03)
    with pytest.raises(InputError, match=r"it holds data sets, name one: \S+cuhk03-np/detected, \S+cuhk03-np/labeled$"):
        open_dataset(tmp_path / "cuhk03-np")


def test_a_kind_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be one of auto, market1501, .*folders, got 'market'"):
        open_dataset(tmp_path, "market")


def test_a_kind_asked_for_is_not_guessed(tmp_path: Path) -> None:
    market = write_market_like(tmp_path / "market", MARKET)
    with pytest.raises(
        InputError, match=r"has no list_train\.txt, .*found bounding_box_test, bounding_box_train, query"
    ):
        open_dataset(market, "msmt17-layout")
    msmt17 = write_msmt17(tmp_path / "msmt17-copy", 1)
    with pytest.raises(InputError, match=r"has no bounding_box_train, query, bounding_box_test; .*found list_gallery"):
        open_dataset(msmt17, "market-layout")
    assert len(KINDS) == len(set(KINDS))
