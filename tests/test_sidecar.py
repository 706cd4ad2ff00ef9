from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hamr_edge import ArtifactError
from hamr_edge.sidecar import hash_file, load_sidecar, sidecar_path, write_sidecar


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    for source in (tiny_artifact, sidecar_path(tiny_artifact)):
        shutil.copy(source, tmp_path)
    return tmp_path / tiny_artifact.name


def test_what_is_written_is_read(artifact: Path) -> None:
    sidecar = load_sidecar(artifact)
    assert sidecar.artifact_sha256 == hash_file(artifact)
    assert sidecar.input_size_hw == (32, 16)
    write_sidecar(sidecar, sidecar_path(artifact))
    assert load_sidecar(artifact) == sidecar


def test_a_missing_artifact_says_what_writes_one(artifact: Path) -> None:
    artifact.unlink()
    with pytest.raises(ArtifactError, match=r"is not there; 'hamr-edge export"):
        load_sidecar(artifact)


def test_a_missing_sidecar_is_named(artifact: Path) -> None:
    sidecar_path(artifact).unlink()
    with pytest.raises(ArtifactError, match=r"has no sidecar tiny\.onnx\.json; copy both files together, or export ag"):
        load_sidecar(artifact)


def test_another_files_sidecar_is_refused(artifact: Path) -> None:
    with artifact.open("ab") as file:
        file.write(b"\0")
    message = (
        r"is not of this tiny\.onnx: it vouches for SHA-256 .{12}\.\.\., the file has .{12}\.\.\.; copy all files again"
    )
    with pytest.raises(ArtifactError, match=f"{message}, or export again with 'hamr-edge export'$"):
        load_sidecar(artifact)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '"text"', "{}", '{"schema": 1}', "\x00"], ids=lambda text: repr(text)
)
def test_broken_json_is_an_artifact_error(artifact: Path, text: str) -> None:
    sidecar_path(artifact).write_text(text)
    with pytest.raises(ArtifactError, match=r"tiny\.onnx\.json cannot be read"):
        load_sidecar(artifact)


def test_bytes_that_are_no_text_are_an_artifact_error(artifact: Path) -> None:
    sidecar_path(artifact).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_sidecar(artifact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(schema=2), "schema 2, this version reads 1"),
        (lambda values: values.update(surprise=1), r"unknown entries \['surprise'\]"),
        (lambda values: values.pop("precision"), "precision"),
        (lambda values: values.pop("max_batch"), "max_batch"),
        (lambda values: values.update(max_batch=0), "max_batch must be a whole number of at least 1, got 0"),
        (lambda values: values.update(embedding_dim="12"), "embedding_dim must be a whole number"),
        (lambda values: values.update(input_size_hw=[32]), "cannot be read"),
        (lambda values: values.update(input_size_hw=[0, 16]), r"two sizes in pixels, got \[0, 16\]"),
        (lambda values: values.update(artifact_sha256=5), "artifact_sha256 must be text, got 5"),
        (lambda values: values.update(form="frames"), "runs the forms crops, frame, nchw in BGR, got frames"),
        (lambda values: values.update(color_order="RGB"), "got crops in RGB"),
        (lambda values: values.update(mean=[0, 0]), "three values each"),
        (lambda values: values.update(mean=["a", 0, 0]), "cannot be read"),
    ],
)
def test_a_wrong_entry_is_named(artifact: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    values = json.loads(sidecar_path(artifact).read_text())
    change(values)
    sidecar_path(artifact).write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=message):
        load_sidecar(artifact)
