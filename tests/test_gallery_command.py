from __future__ import annotations

import json
import os
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from hamr_edge.cli import hamr_edge
from hamr_edge.gallery import Gallery
from tests.artifacts import write_tiny_artifact

PEOPLE = ("ada", "bo", "chen")


def _run(*words: object) -> Result:
    return CliRunner().invoke(hamr_edge, ["gallery", *map(str, words)], catch_exceptions=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder a person, three much alike pictures each."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for person in PEOPLE:
        (root / person).mkdir()
        colour = rng.integers(0, 256, (32, 16, 3))
        for view in range(3):
            image = np.clip(colour + rng.normal(0, 4, colour.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / person / f"{view}.png"), image)
    return root


@pytest.fixture
def known(tmp_path: Path, pictures: Path, tiny_artifact: Path) -> Path:
    path = tmp_path / "known.npz"
    made = _run("enrol", path, pictures, "--model", tiny_artifact, "--camera", "door", "--time", "2026-03-01", "-q")
    assert made.exit_code == 0, made.output
    assert "3 people, 9 embeddings enrolled" in made.output
    return path


def test_people_are_enrolled_found_listed_and_forgotten(known: Path, pictures: Path, tiny_artifact: Path) -> None:
    found = _run("search", known, *sorted(pictures.glob("*/0.png")), "--model", tiny_artifact, "-k", 1)
    lines = [line.split() for line in found.output.splitlines() if ".png" in line]
    assert [line[1:3] for line in lines] == [[person, "1.0000"] for person in PEOPLE]
    listed = _run("list", known).output
    assert "door" in listed
    assert "2026-03-01 00:00:00 UTC" in listed
    assert "3 people, 9 embeddings, no retention time" in listed
    bo = [row.tobytes() for row in Gallery.load(known)._rows.embeddings[3:6]]
    stored = known.read_bytes()
    assert b'"bo"' in stored
    assert all(row in stored for row in bo)
    gone = _run("forget", known, "bo")
    assert "3 embeddings deleted" in gone.output
    stored = known.read_bytes()
    assert b'"bo"' not in stored
    assert not any(row in stored for row in bo)
    again = _run("search", known, pictures / "bo", "--model", tiny_artifact, "--threshold", 0.9999)
    assert again.output.count("nobody") == 3
    assert "not in" in str(_run("forget", known, "ada", "bo").exception)
    assert "ada" in _run("list", known).output  # none or all


def test_filters_and_more_views(known: Path, pictures: Path, tiny_artifact: Path) -> None:
    more = _run(
        "enrol", known, pictures / "ada" / "0.png", "--name", "zoe", "--model", tiny_artifact, "--camera", "roof"
    )
    assert more.exit_code == 0, more.output
    ask = ("search", known, pictures / "ada" / "0.png", "--model", tiny_artifact, "-k", 9)
    assert "zoe" not in _run(*ask, "--camera", "door").output
    assert "chen" not in _run(*ask, "--camera", "roof").output
    assert "zoe" not in _run(*ask, "--until", "2026-03-02").output
    assert "chen" not in _run(*ask, "--since", "2026-03-01T00:00:01+00:00").output
    assert "chen" in _run(*ask).output
    replaced = _run("enrol", known, pictures / "ada" / "0.png", "--name", "ada", "--replace", "--model", tiny_artifact)
    assert "4 people, 8 embeddings" in replaced.output


def test_old_views_are_forgotten_by_hand_and_by_the_retention_time(
    known: Path, pictures: Path, tiny_artifact: Path
) -> None:
    model = ("--model", tiny_artifact)
    assert "0 embeddings deleted" in _run("forget", known, "--older-than", "36500d").output
    enrolled = _run("enrol", known, pictures / "bo", "--name", "di", "--time", time.time(), "--retention", "1s", *model)
    assert "1 people, 3 embeddings" in enrolled.output
    time.sleep(1.05)
    listed = _run("list", known)
    assert "3 embeddings were older than the retention time" in listed.output
    assert b'"di"' not in known.read_bytes()
    assert "older than the retention time" not in _run("list", known).output


def test_a_shorter_retention_time_says_whom_it_deletes_before_it_is_saved(
    known: Path, pictures: Path, tiny_artifact: Path
) -> None:
    model = ("--model", tiny_artifact, "-q")
    _run("enrol", known, pictures / "ada" / "0.png", "--name", "ada", "--camera", "roof", *model)
    said = "were seen more than 30m ago and are deleted"
    cut = _run("enrol", known, pictures / "bo" / "0.png", "--name", "zoe", "--retention", "30m", *model)
    assert f"8 embeddings of 3 people {said}; of 2 of these people nothing is left" in cut.output
    assert "2 people, 2 embeddings, kept for 30m" in _run("list", known).output
    assert "kept for 90d" in _run("retention", known, "90d").output
    assert "no retention time" in _run("retention", known, "none").output
    assert Gallery.load(known).retention_s is None
    old = ("--name", "old", "--time", "2026-03-01", *model)
    assert _run("enrol", known, pictures / "chen", *old).exit_code == 0
    assert "3 embeddings of 1 people" in _run("retention", known, "2h").output
    assert b'"old"' not in known.read_bytes()


def test_a_folder_that_cannot_be_written_to_is_listed_and_searched(
    known: Path, pictures: Path, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery.load(known)
    gallery.enrol("new", np.eye(1, gallery.space.embedding_dim, dtype=np.float32))
    gallery._retention_s, gallery._rows._oldest_s = 3600.0, np.inf  # as if the time had passed since it was saved
    gallery.save(known)
    stored = known.read_bytes()
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    for words in (("list", known), ("search", known, pictures / "ada" / "0.png", "--model", tiny_artifact)):
        result = _run(*words)
        assert result.exit_code == 0, result.output
        assert "9 embeddings were older than the retention time" in result.output
        assert "warning: the file still holds them: gallery" in result.output
        assert "new" in result.output
        assert "chen" not in result.output
    assert known.read_bytes() == stored


def test_a_search_is_written_as_json(known: Path, pictures: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    asked = ("search", known, pictures / "bo" / "1.png", "--model", tiny_artifact, "-k", 1)
    found = json.loads(_run(*asked, "--json", "-").stdout)
    assert [line["picture"] for line in found] == [str(pictures / "bo" / "1.png")]
    (person,) = found[0]["people"]
    assert person == {
        "name": "bo",
        "cosine": pytest.approx(1, abs=1e-5),
        "camera": "door",
        "unix_time": datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp(),
    }
    shown = _run(*asked, "--json", tmp_path / "found.json", "--threshold", 1)
    assert "nobody" in shown.output or "bo" in shown.output
    assert len(json.loads((tmp_path / "found.json").read_text())) == 1
    assert "is not there; mkdir" in str(_run(*asked, "--json", tmp_path / "no" / "found.json").exception)


def test_a_camera_that_saw_nobody_is_warned_of(known: Path, pictures: Path, tiny_artifact: Path) -> None:
    asked = ("search", known, pictures / "ada" / "0.png", "--model", tiny_artifact)
    assert "no embedding was seen by a camera 'dor'; there are: door" in _run(*asked, "--camera", "dor").output
    assert "warning" not in _run(*asked, "--camera", "door").output


def test_equal_pictures_are_enrolled_once(known: Path, pictures: Path, tiny_artifact: Path) -> None:
    again = _run("enrol", known, pictures, "--model", tiny_artifact, "--camera", "roof", "-q")
    assert "3 people, 9 embeddings enrolled, 9 of them in place of equal ones from before" in again.output
    assert [(person.views, person.cameras) for person in Gallery.load(known).people()] == [(3, ("roof",))] * 3


def test_a_person_is_renamed(known: Path) -> None:
    assert "'bo' is 'Bo Li' now; " in _run("rename", known, "bo", "Bo Li").output
    assert [person.name for person in Gallery.load(known).people()] == ["Bo Li", "ada", "chen"]


def test_hidden_folders_are_nobody(tmp_path: Path, pictures: Path, tiny_artifact: Path) -> None:
    shutil.copytree(pictures, tmp_path / "people")
    (tmp_path / "people" / ".thumbs").mkdir()
    made = _run("enrol", tmp_path / "known.npz", tmp_path / "people", "--model", tiny_artifact, "-q")
    assert "3 people, 9 embeddings enrolled;" in made.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("forget", "known.npz"), "name whom to forget, or pass --older-than"),
        (("forget", "known.npz", "ada", "--older-than", "3d"), "one of both"),
        (("forget", "known.npz", "--older-than", "3 days"), "is not like 12h or 30d"),
        (("list", "absent.npz"), "'hamr-edge gallery enrol' makes one"),
        (("enrol", "known.npz", "pictures/ada", "--model", "M"), "must be a folder with a folder a person"),
        (("enrol", "known.npz", "empty", "--name", "x", "--model", "M"), "must hold pictures"),
        (("enrol", "known.bin", "pictures", "--model", "M"), r"must end in .npz"),
        (("enrol", "known.npz", "pictures", "--model", "M", "--time", "yesterday"), "neither a Unix time nor a date"),
        (
            ("enrol", "known.npz", "pictures", "--model", "M", "--time", "20260301"),
            "no time since 2001; a date is like",
        ),
        (("enrol", "known.npz", "pictures", "--model", "M", "--time", "nan"), "a date is like 2026-03-01"),
        (("enrol", "known.npz", "pictures", "--model", "M", "--time", "1772323200000"), "divide milliseconds by 1000"),
        (("enrol", "known.npz", "pictures/ada", "--model", "M", "--name", "#2"), "must not be like #2"),
        (("search", "known.npz", "pictures/ada/0.png", "--model", "M", "-k", "1000000000"), "1<=x<=10000"),
        (
            ("search", "known.npz", "pictures", "--model", "M", "--since", "2026-03-05", "--until", "2026-03-01"),
            "since must not be later than until",
        ),
        (("retention", "known.npz", "30"), "'30' is not like 12h or 30d; the units are s, m, h, d; or none"),
        (("rename", "known.npz", "ada", "bo"), "'bo' is in the gallery already"),
        (("rename", "known.npz", "zoe", "eve"), "'zoe' is not in the gallery"),
        (("search", "known.npz", "pictures/ada/0.png", "--model", "OTHER"), "the checkpoint is"),
    ],
)
def test_what_is_wrong_is_said(
    words: tuple[str, ...],
    message: str,
    known: Path,
    pictures: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures").symlink_to(pictures)
    other = write_tiny_artifact(tmp_path / "other.onnx", seed=1)
    text = other.with_name("other.onnx.json").read_text().replace("0" * 64, "1" * 64)
    other.with_name("other.onnx.json").write_text(text)
    places = {"M": str(tiny_artifact), "OTHER": str(other)}
    result = _run(*(places.get(word, word) for word in words))
    assert result.exit_code != 0
    assert message in result.output + str(result.exception)
