"""Which pictures a command enrols or looks for, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hamr_edge.errors import InputError
from hamr_edge.gallery_input import normalise_name
from hamr_edge.image_file import IMAGE_SUFFIXES


def list_pictures(named: Sequence[Path]) -> list[Path]:
    """Image files, and those of folders, in order.

    Raises:
        InputError: A folder holds none.
    """
    found = []
    for path in named:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not inside:
            raise InputError(f"folder {path} must hold pictures ({', '.join(IMAGE_SUFFIXES)}), and holds none")
        found += inside
    return found


def list_pictures_by_person(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Pictures by person, of folders with a folder a person; hidden ones, such as file managers make, are left alone.

    Raises:
        InputError: One is no such folder, or a person's folder holds no pictures.
    """
    people: dict[str, list[Path]] = {}
    for folder in folders:
        own = sorted(folder.iterdir()) if folder.is_dir() else []
        own = [path for path in own if path.is_dir() and not path.name.startswith(".")]
        if not own:
            raise InputError(f"{folder} must be a folder with a folder a person; or say who it is with --name")
        for person in own:
            people.setdefault(normalise_name(person.name), []).extend(list_pictures([person]))
    return people
