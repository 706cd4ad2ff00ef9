"""File names that are not UTF-8: escaped where they are written down, refused where OpenCV would end the process."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from hamr_edge.cli import hamr_edge
from hamr_edge.errors import InputError
from tests.video_files import moving_square, write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
_NAME = "caf\udce9"
_ESCAPED = r"caf\udce9"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("v.avi"), moving_square(2))
    Path(f"{_NAME}.avi").write_bytes(Path("v.avi").read_bytes())
    Path(f"{_NAME}.txt").write_text("1,-1,5,5,50,90\n")
    Path(_NAME).mkdir()
    cv2.imwrite("1.png", np.zeros((100, 200, 3), np.uint8))
    Path("1.png").rename(Path(_NAME) / "1.png")


def _embed(model: Path, *arguments: str) -> Result:
    options = ["-m", str(model), "--detections", f"{_NAME}.txt", "-o", "o.parquet", "-q"]
    return CliRunner().invoke(hamr_edge, ["embed", *arguments, *options], standalone_mode=False)


def test_they_are_escaped(tiny_artifact: Path) -> None:
    result = _embed(tiny_artifact, _NAME, "--video", "o.mp4")
    assert result.exception is None, result.output
    assert _ESCAPED in result.stdout
    table = pq.read_table("o.parquet")
    assert table["camera"].to_pylist() == [_ESCAPED]
    assert table.schema.metadata[b"source"].decode() == _ESCAPED
    assert table.schema.metadata[b"people"].decode() == f"{_ESCAPED}.txt"


def test_a_camera_of_such_a_name(tiny_artifact: Path) -> None:
    assert _embed(tiny_artifact, "v.avi", "--camera", _NAME).exception is None
    assert pq.read_table("o.parquet")["camera"].to_pylist() == [_ESCAPED]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"{_NAME}.avi"], f"source {_ESCAPED}.avi must have a name in UTF-8; rename it"),
        (["v.avi", "--video", f"{_NAME}.mp4"], f"output {_ESCAPED}.mp4 must have a name in UTF-8"),
    ],
)
def test_a_video_of_such_a_name_is_refused(tiny_artifact: Path, arguments: list[str], message: str) -> None:
    result = _embed(tiny_artifact, *arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not Path("o.parquet").exists()
