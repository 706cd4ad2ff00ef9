from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from hamr_edge.errors import InputError
from hamr_edge.followed_gallery import FollowedGallery
from hamr_edge.gallery import Gallery
from hamr_edge.identities import Identities
from hamr_edge.naming import Naming
from hamr_edge.sidecar import Sidecar
from tests.gallery_cases import DIM, SPACE, crowd, unit_rows

SIDECAR = Sidecar("a" * 64, (32, 16), DIM, 8, "fp32", "c" * 64)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    gallery, _ = crowd(people=3, views=1)
    gallery.save(tmp_path / "people.npz")
    return tmp_path / "people.npz"


def names(followed: FollowedGallery) -> list[str]:
    return [str(name) for name in followed.search(unit_rows(3), k=1).names[:, 0]]


def test_what_another_process_forgets_or_enrols_counts_at_once(path: Path) -> None:
    followed = FollowedGallery(path, SIDECAR, every_s=0)
    assert names(followed) == ["p0", "p1", "p2"]
    other = Gallery.load(path)
    other.forget("p1")
    other.save(path)
    assert "p1" not in names(followed)
    other.enrol("p1 again", unit_rows(3)[1:2])
    other.save(path)
    assert names(followed) == ["p0", "p1 again", "p2"]
    first = followed.gallery
    assert followed.gallery is first  # an unchanged file is not read again


def test_a_name_is_gone_in_the_next_frame(path: Path) -> None:
    naming = Naming(Identities(DIM), FollowedGallery(path, SIDECAR, every_s=0), 0.9)
    assert [person.label for person in naming.name(unit_rows(3))] == ["p0", "p1", "p2"]
    other = Gallery.load(path)
    other.forget("p0")
    other.save(path)
    assert [person.label for person in naming.name(unit_rows(3))] == ["#1", "p1", "p2"]


def test_without_a_readable_file_nobody_has_a_name_and_one_warning_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    followed = FollowedGallery(path, SIDECAR, every_s=0)
    whole = path.read_bytes()
    path.unlink()
    with caplog.at_level(logging.WARNING):
        assert names(followed) == names(followed) == ["", "", ""]
        path.write_bytes(whole[:100])
        assert names(followed) == names(followed) == ["", "", ""]
        path.write_bytes(whole)
        assert names(followed) == ["p0", "p1", "p2"]
    words = [record.message for record in caplog.records]
    assert len(words) == 3
    assert "is not there" in words[0]
    assert "cannot be read" in words[1]
    assert "now holds 3 people" in words[2]


def test_a_gallery_of_another_checkpoint_names_nobody(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    followed = FollowedGallery(path, SIDECAR, every_s=0)
    Gallery(replace(SPACE, checkpoint_sha256="d" * 64, artifact_sha256="e" * 64)).save(path, overwrite=True)
    assert names(followed) == ["", "", ""]
    assert "the checkpoint is" in caplog.text


def test_a_file_that_cannot_be_read_for_a_while_is_read_again(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = FollowedGallery(path, SIDECAR, every_s=0)
    load, reason = Gallery.load, "Permission denied"

    def refuse(*_: object) -> Gallery:
        raise InputError(reason)

    path.chmod(0o640)  # inode, content and size stay
    monkeypatch.setattr(Gallery, "load", refuse)
    assert names(followed) == names(followed) == ["", "", ""]
    reason = "Input/output error"
    assert names(followed) == ["", "", ""]
    monkeypatch.setattr(Gallery, "load", load)  # nothing about the file has changed
    assert names(followed) == ["p0", "p1", "p2"]
    words = [record.message.partition(": ")[2] or record.message for record in caplog.records]
    assert words[:2] == ["Permission denied", "Input/output error"]
    assert "now holds 3 people" in words[2]
    assert len(words) == 3


def test_a_folder_that_may_not_be_entered_is_no_error(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = FollowedGallery(path, SIDECAR, every_s=0)

    def refuse(*_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        patch.setattr("builtins.open", refuse)
        found = followed.gallery
    assert len(found) == 0
    assert "Permission denied" in caplog.text


def test_a_mixed_gallery_is_followed_where_it_is_allowed(path: Path) -> None:
    other = replace(SIDECAR, artifact_sha256="b" * 64, precision="int8")
    with pytest.raises(InputError, match="not known to agree"):
        FollowedGallery(path, other)
    assert names(FollowedGallery(path, other, allow_mixed=True)) == ["p0", "p1", "p2"]


def test_the_file_is_looked_at_now_and_then(path: Path) -> None:
    followed = FollowedGallery(path, SIDECAR, every_s=3600)
    path.unlink()
    assert names(followed) == ["p0", "p1", "p2"]


def test_a_missing_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        FollowedGallery(tmp_path / "people.npz", SIDECAR)
