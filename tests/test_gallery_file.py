from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from hamr_edge.gallery_file import read_gallery
from hamr_edge.sidecar import load_sidecar
from tests.gallery_cases import SPACE, change_member, crowd, unit_rows


def test_a_gallery_comes_back_as_it_was(tmp_path: Path) -> None:
    gallery, rows = crowd(5, 3)
    gallery.forget("p1")
    gallery.retention_s = 1e12
    gallery.save(tmp_path / "known.npz")
    again = Gallery.load(tmp_path / "known.npz")
    assert (again.people(), again.spaces, again.retention_s) == (gallery.people(), (SPACE,), 1e12)
    one, other = gallery.search(rows, 4), again.search(rows, 4)
    for name in ("names", "similarity", "ids", "cameras", "times_s"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert again.enrol("p9", rows[:1]).tolist() == [15]  # never a number twice


def test_an_empty_gallery_comes_back(tmp_path: Path) -> None:
    Gallery(SPACE).save(tmp_path / "known.npz")
    assert len(Gallery.load(tmp_path / "known.npz")) == 0


def test_nothing_of_a_forgotten_person_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    gallery, rows = Gallery(SPACE), unit_rows(40)
    gallery.enrol("stays", rows[:30], "hall")
    gallery.enrol("Grace Hopper", rows[30:], "vault")
    rows = gallery._rows.embeddings.copy()
    gallery.save(path)
    stored = path.read_bytes()
    assert b"Grace Hopper" in stored
    assert all(row.tobytes() in stored for row in rows)
    gallery.forget("Grace Hopper")
    gallery.save(path)
    stored = path.read_bytes()
    for trace in (b"Grace", b"Hopper", b"vault", *(row.tobytes() for row in rows[30:])):
        assert trace not in stored
    # Not a part of one either: four values are 16 bytes that no other row has.
    assert not any(row[start : start + 4].tobytes() in stored for row in rows[30:] for start in range(0, 16, 4))
    assert all(row.tobytes() in stored for row in rows[:30])
    lock = tmp_path / ".known.npz.lock"
    assert sorted(tmp_path.iterdir()) == [lock, path]
    assert lock.read_bytes() == b""


def test_what_is_too_old_is_deleted_on_loading_and_from_the_file_on_saving(tmp_path: Path) -> None:
    path, rows, now = tmp_path / "known.npz", unit_rows(2), time.time()
    gallery = Gallery(SPACE, retention_s=0.2)
    gallery.enrol("old", rows[:1], time_s=now)
    gallery.enrol("new", rows[1:], time_s=now + 100)
    old = gallery._rows.embeddings[0].tobytes()
    gallery.save(path)
    assert old in path.read_bytes()
    while time.time() < now + 0.25:
        time.sleep(0.02)
    again = Gallery.load(path)
    assert (again.expired, [person.name for person in again.people()]) == (1, ["new"])
    again.save(path)
    assert old not in path.read_bytes()


def test_others_changes_are_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    gallery, rows = crowd(2, 1)
    forgotten = gallery._rows.embeddings[0].tobytes()
    gallery.save(path)
    stale, other = Gallery.load(path), Gallery.load(path)
    other.forget("p0")
    other.save(path)
    with pytest.raises(InputError, match="made or changed by another since"):
        stale.save(path)  # it would bring back who was forgotten
    assert forgotten not in path.read_bytes()
    other.enrol("p5", rows[:1])
    other.save(path)
    with pytest.raises(InputError, match="made or changed by another since"):
        Gallery(SPACE).save(path)
    stale.save(path, overwrite=True)
    path.unlink()
    with pytest.raises(InputError, match="was deleted by another since; overwrite it to make it again"):
        stale.save(path)


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX's")
def test_a_new_file_is_its_owners_alone_and_an_old_one_keeps_its_permissions(tmp_path: Path) -> None:
    path, (gallery, _) = tmp_path / "known.npz", crowd(1, 1)
    gallery.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    gallery.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="gives files to others, which only root may do")
def test_the_owner_and_the_group_stay_where_they_may_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, (gallery, _) = tmp_path / "known.npz", crowd(1, 1)
    gallery.save(path)
    os.chown(path, 1000, 1001)
    path.chmod(0o640)
    gallery.save(path)
    facts = path.stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (1000, 1001, 0o640)
    assert not caplog.text

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    gallery.save(path)
    facts = path.stat()
    assert (facts.st_uid, stat.S_IMODE(facts.st_mode)) == (0, 0o600)  # root's group was not to read it
    assert "is user 0's now, not user 1000's: Operation not permitted" in caplog.text
    assert "keeps neither its group 1001" in caplog.text


def test_a_reader_sees_the_old_gallery_or_the_new_one(tmp_path: Path) -> None:
    path, (gallery, rows) = tmp_path / "known.npz", crowd(1, 1)
    gallery.save(path)
    done, sizes = threading.Event(), set()

    def read() -> None:
        while not done.is_set():
            sizes.add(len(Gallery.load(path)))

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        gallery.enrol("more", np.repeat(rows, 200, axis=0))
        gallery.save(path)
    done.set()
    reader.join()
    assert sizes <= {1 + 200 * turn for turn in range(31)}
    assert sizes


@pytest.mark.parametrize("camera", [None, 0, False, ()])
def test_nothing_is_saved_that_could_not_be_loaded(tmp_path: Path, camera: str) -> None:
    path, (gallery, rows) = tmp_path / "known.npz", crowd(2, 1)
    gallery.save(path)
    stored = path.read_bytes()
    with pytest.raises(InputError, match="a camera's name must be 1 to 200"):
        gallery.enrol("p2", rows[:1], camera)
    gallery._rows._camera_names[0] = camera  # as if a check had been forgotten
    with pytest.raises(InputError, match="is not written, as it could not be read again: a camera's name"):
        gallery.save(path)
    assert path.read_bytes() == stored


def test_saving_through_a_link_changes_the_file_itself(tmp_path: Path) -> None:
    real, link = tmp_path / "real.npz", tmp_path / "folder" / "link.npz"
    link.parent.mkdir()
    link.symlink_to(real)
    gallery, _ = crowd(2, 1)
    gallery.save(real)
    forgotten = gallery._rows.embeddings[0].tobytes()
    again = Gallery.load(link)
    again.forget("p0")
    again.save(link)
    assert link.is_symlink()
    assert forgotten not in real.read_bytes()
    gallery = Gallery.load(real)
    gallery.save(link)  # one file under two names
    assert len(gallery) == 1


def test_two_spellings_of_one_name_in_an_earlier_file_are_merged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, (gallery, rows) = tmp_path / "known.npz", crowd(3, 1)
    gallery.save(path)
    change_member(path, "header", {"names": ["Zo\u00eb", "Zoe\u0308", "p2"], "cameras": ["north"]})
    again = Gallery.load(path)
    assert "'Zo\u00eb': stored in several spellings" in caplog.text
    assert [(person.name, person.views) for person in again.people()] == [("Zo\u00eb", 2), ("p2", 1)]
    assert again.search(rows[1:2]).names.tolist() == [["Zo\u00eb"]]
    assert again.forget("Zoe\u0308") == 2


def test_loading_and_forgetting_leave_no_copy_in_the_arrays_that_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, (gallery, _) = tmp_path / "known.npz", crowd(3, 2)
    gallery.save(path)
    read: list[np.ndarray] = []

    def keep(place: Path) -> object:
        record, stamp = read_gallery(place)
        read.append(record.embeddings)
        return record, stamp

    monkeypatch.setattr("hamr_edge.gallery.read_gallery", keep)
    again = Gallery.load(path)
    forgotten = again._rows.embeddings[2].tobytes()
    again.forget("p1")
    assert forgotten not in read[0].tobytes()


def test_an_artifact_of_another_checkpoint_is_refused(tmp_path: Path, tiny_artifact: Path) -> None:
    path, (gallery, _) = tmp_path / "known.npz", crowd(1, 1)
    gallery.save(path)
    with pytest.raises(InputError, match=r"the checkpoint is 000000000000\.\.\., expected cccccccccccc"):
        Gallery.load(path, load_sidecar(tiny_artifact))


def test_every_artifact_that_enrolled_is_stamped_in(tmp_path: Path, tiny_artifact: Path) -> None:
    sidecar = load_sidecar(tiny_artifact)
    other = replace(sidecar, artifact_sha256="b" * 64, precision="fp16")
    path, rows = tmp_path / "known.npz", unit_rows(2, dim=12)
    known = {"min_cosine": 0.9999}
    one = Gallery(SPACE.of(replace(sidecar, parity=known)))
    one.enrol("ada", rows[:1])
    one.save(path)
    two = Gallery.load(path, replace(other, parity=known))
    assert len(two.spaces) == 1  # nothing enrolled yet
    two.enrol("bo", rows[1:])
    two.save(path)
    assert [space.precision for space in Gallery.load(path).spaces] == ["fp32", "fp16"]
    third = replace(sidecar, artifact_sha256="d" * 64, precision="int8")
    with pytest.raises(InputError, match="agreement not measured"):
        Gallery.load(path, third)
    mixed = Gallery.load(path, third, allow_mixed=True)
    mixed.enrol("chen", unit_rows(1, 3, 12))
    mixed.save(path)
    again = Gallery.load(path)  # to list and to forget, nothing has to agree
    assert [person.name for person in again.people()] == ["ada", "bo", "chen"]
    again.forget("chen")
    again.save(path)
    assert len(Gallery.load(path).spaces) == 3


@pytest.mark.skipif(os.name == "nt", reason="the lock is POSIX's")
def test_of_two_who_save_at_once_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    crowd(1, 1)[0].save(path)
    for turn in range(5):
        both, refused = threading.Barrier(2), []

        def save(gallery: Gallery, both: threading.Barrier = both, refused: list[str] = refused) -> None:
            both.wait(20)
            try:
                gallery.save(path)
            except InputError as error:
                refused.append(str(error))

        galleries = [Gallery.load(path), Gallery.load(path)]
        threads = [threading.Thread(target=save, args=(gallery,)) for gallery in galleries]
        for number, gallery in enumerate(galleries):
            gallery.enrol(f"{turn} {number}", unit_rows(200 + 2000 * number, turn))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert "made or changed by another since" in refused[0]
        assert len(Gallery.load(path).people()) == 2 + turn  # whole, and of one of both


@pytest.mark.skipif(os.name == "nt", reason="the lock is POSIX's")
def test_what_a_killed_save_left_is_deleted_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    gallery, rows = crowd(1, 1)
    gallery.save(path)
    code = (
        "import os, numpy as np\nfrom hamr_edge.gallery import Gallery\n"
        f"gallery = Gallery.load({str(path)!r})\n"
        f"gallery.enrol('victim', np.array({rows.tolist()}))\n"
        "os.fsync = lambda number: os.kill(os.getpid(), 9)\n"
        f"gallery.save({str(path)!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    left = [file for file in tmp_path.iterdir() if file.suffix == ".npz" and file != path]
    assert len(left) == 1
    assert b"victim" in left[0].read_bytes()
    gallery.save(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".known.npz.lock", "known.npz"]
