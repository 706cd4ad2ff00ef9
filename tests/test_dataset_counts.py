from __future__ import annotations

from pathlib import Path

import pytest

from hamr_edge.dataset import open_dataset
from hamr_edge.dataset_counts import PUBLISHED, DatasetCounts, count_dataset
from hamr_edge.errors import InputError
from tests.standard_sets import CUHK03, DUKE, MARKET, write_images, write_market_like, write_msmt17

TINY = {
    "market1501": DatasetCounts((3, 2), (2, 2), (6, 3), 5),
    "dukemtmc": DatasetCounts((3, 2), (2, 2), (4, 4), 6),
    "cuhk03-labelled": DatasetCounts((3, 2), (2, 1), (3, 1), 2),
    "cuhk03-detected": DatasetCounts((3, 2), (2, 1), (3, 1), 2),
    "msmt17": DatasetCounts((3, 2), (2, 2), (3, 2), 6),
}
OFFICIAL_FOLDERS = {
    "market1501": "Market-1501-v15.09.15",
    "dukemtmc": "DukeMTMC-reID",
    "cuhk03-labelled": "cuhk03-np/labeled",
    "cuhk03-detected": "CUHK03-NP/detected",
    "msmt17": "MSMT17_V2",
}


def write(kind: str, root: Path) -> Path:
    if kind == "msmt17":
        return write_msmt17(root, 2)
    return write_market_like(root, {"market1501": MARKET, "dukemtmc": DUKE}.get(kind, CUHK03))


@pytest.fixture
def tiny_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny trees count as the whole sets."""
    for kind, counts in TINY.items():
        monkeypatch.setitem(PUBLISHED, kind, counts)


def test_the_published_counts_are_the_papers() -> None:
    """Table 1: identities of training and test, images, cameras."""
    table = {
        "market1501": (1501, 12_936, 751, 3_368, 19_732, 6),
        "dukemtmc": (1812, 16_522, 702, 2_228, 17_661, 8),
        "cuhk03-labelled": (1467, 7_368, 767, 1_400, 5_328, 2),
        "cuhk03-detected": (1467, 7_365, 767, 1_400, 5_332, 2),
        "msmt17": (4101, 32_621, 1041, 11_659, 82_161, 15),
    }
    assert table == {
        kind: (
            counts.train[1] + counts.gallery[1] - (kind == "market1501"),  # whose distractors are one label, of nobody
            *counts.train,
            counts.query[0],
            counts.gallery[0],
            counts.cameras,
        )
        for kind, counts in PUBLISHED.items()
    }


def test_junk_is_counted_as_images_of_nobody(tmp_path: Path) -> None:
    counts = count_dataset(open_dataset(write("market1501", tmp_path)))
    assert counts == TINY["market1501"]


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_standard_set_of_the_right_counts_opens(tmp_path: Path, tiny_counts: None, kind: str) -> None:
    assert len(open_dataset(write(kind, tmp_path / "copy"), kind).train) == 3
    assert len(open_dataset(write(kind, tmp_path / OFFICIAL_FOLDERS[kind])).train) == 3


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_part_of_a_standard_set_is_refused(tmp_path: Path, kind: str) -> None:
    layout = "msmt17-layout" if kind == "msmt17" else "market-layout"
    counts = PUBLISHED[kind]
    cameras = "" if kind.startswith("cuhk03") else rf"[56] cameras, expected {counts.cameras}; "
    words = (
        rf"is not the whole {kind}: 3 training images of 2 identities, expected {counts.train[0]:,} of "
        rf"{counts.train[1]:,}; 2 query images of .*; \d gallery images of .*; {cameras}copy it again, "
        rf"or read it as {layout} "
    )
    root = write(kind, tmp_path / OFFICIAL_FOLDERS[kind])
    for asked in ("auto", kind):
        with pytest.raises(InputError, match=words):
            open_dataset(root, asked)
    assert len(open_dataset(root, layout).train) == 3


def test_a_link_goes_by_its_name(tmp_path: Path) -> None:
    root = write("market1501", tmp_path / "my-part")
    (tmp_path / "market1501").symlink_to(root)
    with pytest.raises(InputError, match="is not the whole market1501"):
        open_dataset(tmp_path / "market1501")
    write("dukemtmc", tmp_path / "Duke" / "DukeMTMC-reID")
    (tmp_path / "link").symlink_to(tmp_path / "Duke" / "DukeMTMC-reID")
    with pytest.raises(InputError, match="is not the whole dukemtmc"):
        open_dataset(tmp_path / "link")


@pytest.mark.parametrize("kind", PUBLISHED)
def test_auto_leaves_sets_of_other_names_uncounted(tmp_path: Path, kind: str) -> None:
    assert len(open_dataset(write(kind, tmp_path / "my-part")).train) == 3


def test_only_what_differs_is_named(tmp_path: Path, tiny_counts: None) -> None:
    root = write("market1501", tmp_path / "market1501")
    next((root / "query").iterdir()).unlink()
    with pytest.raises(
        InputError,
        match=r"market1501: 1 query images of 1 identities, expected 2 of 2; copy",
    ):
        open_dataset(root)


def test_one_image_too_many_is_found(tmp_path: Path, tiny_counts: None) -> None:
    root = write("market1501", tmp_path)
    write_images(root / "bounding_box_train", ["0002_c1s1_000999_03.jpg"])
    with pytest.raises(InputError, match=r"whole market1501: 4 training images of 2 identities, expected 3 of 2; copy"):
        open_dataset(root, "market1501")


@pytest.mark.parametrize("half", ["labeled", "Labelled"])
def test_cuhk03_is_found_in_its_folder(tmp_path: Path, tiny_counts: None, half: str) -> None:
    write_market_like(tmp_path / half, CUHK03)
    dataset = open_dataset(tmp_path, "cuhk03-labelled")
    assert dataset.query.paths[0].parent.parent == tmp_path / half
    assert dataset.name.endswith(f"/{half}")


def test_a_standard_set_of_the_wrong_kind_is_refused(tmp_path: Path, tiny_counts: None) -> None:
    root = write("dukemtmc", tmp_path)
    with pytest.raises(InputError, match="4 gallery images of 4 identities, expected 6 of 3; 6 cameras, expected 5"):
        open_dataset(root, "market1501")
