"""A data set of the user's own: one folder for each identity."""

from __future__ import annotations

import re
from pathlib import Path

from hamr_edge.dataset_layouts import image_files, list_found, subfolders
from hamr_edge.errors import InputError
from hamr_edge.image_file import IMAGE_SUFFIXES
from hamr_edge.labelled_crops import JUNK_IDENTITY, ReidDataset, label_crops, without_junk

_SPLITS = ("train", "query", "gallery")
_JUNK_FOLDER = "-1"
# c3, cam3 or camera3, in upper case too, at the start of the name or after a character that is no letter or digit:
# c3_0001.jpg, 0002_c1s1_000451.jpg, walk-CAM12.png.
_CAMERA = re.compile(r"(?:^|[^A-Za-z0-9])c(?:am(?:era)?)?(\d+)", re.IGNORECASE)


def looks_like_folders(root: Path) -> bool:
    """Whether ``train`` or ``gallery`` is there and holds folders: Market-1501's layout has neither."""
    return any((root / split).is_dir() and subfolders(root / split) for split in ("train", "gallery"))


def read_folders(root: Path, name: str) -> ReidDataset:
    """Read ``train/<identity>/``, ``query/<identity>/`` and ``gallery/<identity>/``, each with images of any name.

    ``train`` alone is enough to train without scores, ``query`` and ``gallery`` to score; a split that is not there is
    empty. Folders of one name are one person in query and gallery, and identities are numbered from 1 in the order of
    the folders' names. A folder named -1 holds junk, as in Market-1501.

    The camera stands in the file's name as c3, cam3 or camera3: ``c3_0001.jpg``, ``0002_c1s1_000451.jpg``. A query is
    then scored against the other cameras' images. Where no file of query and gallery names a camera, each image counts
    as from a camera of its own: a query is scored against all of the gallery but copies of itself (the same bytes in
    the same identity's folder). Such scores are higher than those across cameras, as a person's next frame is easy to
    find. Training needs no cameras; there one that is not named is 0.

    Raises:
        InputError: There is no split, query comes without gallery or the reverse, a folder holds no images, an image
            lies outside an identity's folder, or some files of query and gallery name a camera and others do not.
    """
    splits = {split: _read_split(root / split) for split in _SPLITS if (root / split).is_dir()}
    if not splits or ("query" in splits) != ("gallery" in splits):
        raise InputError(
            f"{root} has no {'train' if not splits else 'gallery' if 'query' in splits else 'query'}; expected "
            f"train/<identity>/, or query/<identity>/ and gallery/<identity>/, or all three, found {list_found(root)}"
        )
    folders = sorted({path.parent.name for paths in splits.values() for path in paths} - {_JUNK_FOLDER})
    numbers = {folder: number for number, folder in enumerate(folders, 1)} | {_JUNK_FOLDER: JUNK_IDENTITY}
    train = splits.get("train", [])
    query, gallery = splits.get("query", []), splits.get("gallery", [])
    named = _named_cameras(query + gallery)
    cameras = {path: _camera_in(path) or 0 for path in train}
    cameras |= named if named is not None else _own_cameras(query + gallery)
    crops = [
        label_crops([(path, numbers[path.parent.name], cameras[path]) for path in paths])
        for paths in (train, query, gallery)
    ]
    return ReidDataset(name, without_junk(crops[0]), crops[1], crops[2], cameras_named=named is not None)


def _camera_in(path: Path) -> int | None:
    match = _CAMERA.search(path.name)
    return None if match is None else int(match.group(1))


def _named_cameras(paths: list[Path]) -> dict[Path, int] | None:
    """The camera of each image by its name; None where no name gives one."""
    named = {path: camera for path in paths if (camera := _camera_in(path)) is not None}
    if not named:
        return None
    if len(named) < len(paths):
        unnamed = next(path for path in paths if path not in named)
        raise InputError(
            f"{unnamed} names no camera, but {len(named):,} of {len(paths):,} test images do, like "
            f"{next(iter(named)).name}; name the camera in all of them (c3, cam3) or in none"
        )
    return named


def _own_cameras(paths: list[Path]) -> dict[Path, int]:
    """A camera for each image; copies of one image of a person share one, whatever their names."""
    alike: dict[tuple[str, int], list[Path]] = {}
    for path in paths:
        alike.setdefault((path.parent.name, path.stat().st_size), []).append(path)
    cameras: dict[Path, int] = {}
    for group in alike.values():
        contents: dict[bytes, int] = {}
        for path in group:
            content = path.read_bytes() if len(group) > 1 else b""
            cameras[path] = contents.setdefault(content, len(cameras) + 1)
    return cameras


def _read_split(folder: Path) -> list[Path]:
    loose = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    loose = [path for path in loose if not path.name.startswith(".")]
    if loose:
        raise InputError(
            f"{min(loose)} lies outside an identity's folder; expected {folder.name}/<identity>/{min(loose).name}"
        )
    identities = subfolders(folder)
    if not identities:
        raise InputError(f"{folder} holds no folders; expected one for each identity, with its images")
    return [path for identity in identities for path in image_files(identity)]
