"""Opening a data set: which kind a folder holds, its crops, and its published counts. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from hamr_edge.dataset_counts import PUBLISHED, check_counts
from hamr_edge.dataset_folders import looks_like_folders, read_folders
from hamr_edge.dataset_layouts import MARKET_FOLDERS, MSMT17_LISTS, list_found, read_market, read_msmt17, subfolders
from hamr_edge.errors import InputError
from hamr_edge.image_file import CorruptImageError, read_crop
from hamr_edge.labelled_crops import JUNK_IDENTITY, LabelledCrops, ReidDataset

__all__ = [
    "JUNK_IDENTITY",
    "KINDS",
    "CorruptImageError",
    "LabelledCrops",
    "ReidDataset",
    "open_dataset",
    "read_crop",
]

KINDS = ("auto", *PUBLISHED, "market-layout", "msmt17-layout", "folders")
"""What ``--dataset`` takes: a standard set, whose counts are checked, or a layout alone."""
_CUHK03_FOLDERS = {"cuhk03-labelled": ("labeled", "labelled"), "cuhk03-detected": ("detected",)}
_CUHK03_NAMES = ("cuhk03-np", "cuhk03_np", "cuhk03np")
# Folder names, in lower case, under which the standard sets are published or kept by the field's toolboxes.
_KIND_OF_NAME = {
    "market-1501-v15.09.15": "market1501",
    "market-1501": "market1501",
    "market1501": "market1501",
    "dukemtmc-reid": "dukemtmc",
    "dukemtmcreid": "dukemtmc",
    "msmt17_v1": "msmt17",
    "msmt17_v2": "msmt17",
    "msmt17": "msmt17",
}


def open_dataset(root: str | Path, kind: str = "auto") -> ReidDataset:
    """Read a data set's file names; images are read later, by :func:`read_crop`.

    Args:
        root: The data set's folder. For CUHK03-NP the one that holds ``labeled`` and ``detected``, or one of these.
        kind: One of ``KINDS``. A standard set has its published counts checked. ``market-layout`` and
            ``msmt17-layout`` read parts of such sets and sets that are named alike, ``folders`` a folder for each
            identity (:func:`hamr_edge.dataset_folders.read_folders`). ``auto`` goes by what the folder holds, and
            takes it for a standard set, counts and all, only where the folder has that set's name, such as
            Market-1501-v15.09.15.

    Raises:
        InputError: The folder is not there, is not of that kind or of any kind, holds something that cannot be read,
            or a standard set's counts differ.
    """
    root = Path(root)
    if kind not in KINDS:
        raise InputError(f"data set kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not root.is_dir():
        raise InputError(
            f"data set {root} is not a folder; 'hamr-edge synth {root}' would write a procedural one there"
        )
    if kind == "auto":
        kind = _find_kind(root)
    if kind in _CUHK03_FOLDERS:
        root = next((path for path in subfolders(root) if path.name.lower() in _CUHK03_FOLDERS[kind]), root)
    if kind in ("msmt17", "msmt17-layout"):
        dataset = read_msmt17(root, _name_of(root))
    elif kind == "folders":
        dataset = read_folders(root, _name_of(root))
    else:
        dataset = read_market(root, _name_of(root))
    if kind in PUBLISHED:
        check_counts(dataset, kind, root, "msmt17-layout" if kind == "msmt17" else "market-layout")
    return dataset


def _find_kind(root: Path) -> str:
    layout = _find_layout(root)
    if layout is None:
        inside = [str(path) for path in subfolders(root) if _find_layout(path) is not None]
        raise InputError(
            f"{root} is no data set of a known layout: found {list_found(root)}; known are Market-1501's, "
            f"DukeMTMC-reID's and CUHK03-NP's ({', '.join(MARKET_FOLDERS)}), MSMT17's ({', '.join(MSMT17_LISTS)}) and "
            "one folder for each identity (train/<identity>/, query/<identity>/, gallery/<identity>/)"
            + (f"; it holds data sets, name one: {', '.join(inside)}" if inside else "")
        )
    for place in (root.absolute(), root.resolve()):  # a link goes by its own name and by its target's
        own, parent = place.name.lower(), place.parent.name.lower()
        if own in _KIND_OF_NAME:
            return _KIND_OF_NAME[own]
        if parent in _CUHK03_NAMES:
            return next((kind for kind, names in _CUHK03_FOLDERS.items() if own in names), layout)
    return layout


def _find_layout(root: Path) -> str | None:
    if all((root / folder).is_dir() for folder in MARKET_FOLDERS):
        return "market-layout"
    if any((root / listed).is_file() for listed in MSMT17_LISTS):
        return "msmt17-layout"
    if looks_like_folders(root):
        return "folders"
    if any((root / folder).is_dir() for folder in MARKET_FOLDERS):
        return "market-layout"  # whose reader says what is missing
    return None


def _name_of(root: Path) -> str:
    """The folder's name; CUHK03-NP's two folders go by their parent's too."""
    whole = root.resolve()
    halves = [name for names in _CUHK03_FOLDERS.values() for name in names]
    return f"{whole.parent.name}/{whole.name}" if whole.name.lower() in halves else whole.name
