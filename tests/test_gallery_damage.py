from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hamr_edge.errors import InputError
from hamr_edge.gallery import Gallery
from tests.gallery_cases import SPACE, change_member, crowd, read_members


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_short_or_changed_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "known.npz"
    gallery, rows = crowd(3, 2)
    gallery.save(path, overwrite=True)
    stored = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "cut"):
        path.write_bytes(stored[: data.draw(st.integers(0, len(stored) - 1), "at")])
    else:
        stored[data.draw(st.integers(0, len(stored) - 1), "at")] ^= data.draw(st.integers(1, 255), "bits")
        path.write_bytes(stored)
    with suppress(InputError):  # any other error fails the test
        again = Gallery.load(path)
        # It was a byte that means nothing, such as a date in the archive's list.
        np.testing.assert_array_equal(again.search(rows).ids, gallery.search(rows).ids)


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("header", {"schema": 2}, "schema 2, this version reads 1"),
        ("header", {"spaces": []}, "says nothing of what made the embeddings"),
        ("header", {"names": ["p0"]}, "people names places outside its list of 1"),
        ("header", {"next_id": 3}, "given twice"),
        ("embeddings", lambda rows: rows[:-1], "embeddings must be float32"),
        ("embeddings", lambda rows: rows.astype(np.float64), "embeddings must be float32"),
        ("embeddings", lambda rows: rows * np.nan, "not finite"),
        ("people", lambda rows: rows - 1, "people names places outside"),
        ("ids", lambda rows: rows * 0, "ids are given twice"),
        ("embeddings", lambda rows: rows * 1.01, "not of unit norm, row 0 has 1.01"),
        ("times_s", lambda rows: rows * np.inf, "not finite"),
        ("times_s", lambda rows: rows * 1e300, "no Unix seconds"),
        ("ids", lambda rows: rows - 1, "ids are given twice"),
        ("header", {"names": ["p0", "p0", "p1"]}, "people has a name twice"),
        ("header", {"names": ["p0", "\x1b[2J", "p2"]}, "printable characters"),
        ("header", {"cameras": ["north", None]}, "a camera's name must be"),
        ("header", {"next_id": float("inf")}, "next id must be a number"),
        ("header", {"retention_s": float("nan")}, "more than 0 seconds, got nan"),
        ("header", {"spaces": [{**SPACE.to_json(), "agreement": 10**400}]}, "agreement"),
        ("header", {"spaces": [{**SPACE.to_json(), "agreement": float("nan")}]}, "agreement"),
        ("header", {"spaces": [{**SPACE.to_json(), "compact": "{"}]}, "cannot be read: Expecting"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, member: str, change: object, message: str) -> None:
    path, (gallery, _) = tmp_path / "known.npz", crowd(3, 2)
    gallery.save(path)
    change_member(path, member, change)
    with pytest.raises(InputError, match=message):
        Gallery.load(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(tmp_path: Path, method: int) -> None:
    path, packed = tmp_path / "known.npz", tmp_path / "packed.npz"
    crowd(3, 2)[0].save(path)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(packed, "w", method) as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    with pytest.raises(InputError, match=r"packed\.npz cannot be read: its member 'header\.npy' is compressed"):
        Gallery.load(packed)


def test_what_json_makes_of_a_hostile_header_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "known.npz"
    crowd(3, 2)[0].save(path)
    np.savez(path, **{**read_members(path), "header": np.frombuffer(b"[" * 200_000, np.uint8)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"known\.npz cannot be read"):
        Gallery.load(path)
    np.savez(path, **{"ids": read_members(path)["ids"]})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="it holds no cameras"):
        Gallery.load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "known.npz")
    with pytest.raises(InputError, match="it is no regular file"):
        Gallery.load(tmp_path / "known.npz")


@pytest.mark.parametrize("place", ["file.txt/known.npz", "\0.npz", "x" * 300 + ".npz", "loop.npz"])
def test_paths_that_lead_nowhere_are_the_usual_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file.txt").touch()
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    with pytest.raises(InputError, match="gallery "):
        Gallery.load(tmp_path / place)
    with pytest.raises(InputError, match="gallery "):
        crowd(1, 1)[0].save(tmp_path / place)


def test_other_files_are_refused(tmp_path: Path, tiny_artifact: Path) -> None:
    gallery, _ = crowd(1, 1)
    with pytest.raises(InputError, match=r"must end in \.npz"):
        gallery.save(tmp_path / "known.bin")
    with pytest.raises(InputError, match="is not there; mkdir"):
        gallery.save(tmp_path / "nowhere" / "known.npz")
    with pytest.raises(InputError, match="'hamr-edge gallery enrol' makes one"):
        Gallery.load(tmp_path / "known.npz")
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04N.")
    with pytest.raises(InputError, match=r"it is no \.npz file"):
        Gallery.load(tmp_path / "pickle.npz")
    np.savez(tmp_path / "other.npz", header=np.array([None]))
    with pytest.raises(InputError, match="cannot be read"):
        Gallery.load(tmp_path / "other.npz")
    with pytest.raises(InputError, match="cannot be read"):
        Gallery.load(tiny_artifact)
