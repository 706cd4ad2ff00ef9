from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hamr_edge import Embedder, InputError, open_backend
from hamr_edge.errors import HamrEdgeError
from hamr_edge.sidecar import hash_file, load_sidecar, sidecar_path, write_sidecar


def test_rows_are_unit_and_in_the_order_of_the_boxes(tiny_artifact: Path, frame: np.ndarray) -> None:
    boxes = np.array([[0, 0, 40, 90], [50, 10, 90, 110], [100, 5, 150, 119]], np.float32)
    with Embedder(tiny_artifact, device="cpu") as embedder:
        embeddings = embedder.embed(frame, boxes)
        backwards = embedder.embed(frame, boxes[::-1])
    assert embeddings.shape == (3, 12)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embeddings[::-1], backwards, atol=1e-6)


def test_any_number_of_boxes(tiny_artifact: Path, frame: np.ndarray) -> None:
    box = np.array([[3, 4, 60, 100]], np.float32)
    with Embedder(tiny_artifact, device="cpu") as embedder:
        one = embedder.embed(frame, box)
        assert embedder.embed(frame, []).shape == (0, 12)
        nine = embedder.embed(frame, box.repeat(9, axis=0))  # the artifact's maximum batch is 8
    np.testing.assert_allclose(nine, one.repeat(9, axis=0), atol=1e-6)


def test_frame_need_not_be_contiguous(tiny_artifact: Path, frame: np.ndarray) -> None:
    box = [[3, 4, 60, 100]]
    with Embedder(tiny_artifact, device="cpu") as embedder:
        expected = embedder.embed(np.ascontiguousarray(frame[::2, ::2]), box)
        np.testing.assert_array_equal(embedder.embed(frame[::2, ::2], box), expected)


def test_a_closed_embedder_says_how_to_open_it(tiny_artifact: Path, frame: np.ndarray) -> None:
    with pytest.raises(HamrEdgeError, match="not open"):
        Embedder(tiny_artifact, device="cpu").embed(frame, [[0, 0, 10, 10]])


def test_wrong_batch_is_named(tiny_artifact: Path) -> None:
    with open_backend(tiny_artifact, "cpu") as backend:
        with pytest.raises(InputError, match=r"crop\[None\]"):
            backend.infer(np.zeros((32, 16, 3), np.uint8))
        with pytest.raises(InputError, match="got float32"):
            backend.infer(np.zeros((1, 32, 16, 3), np.float32))  # type: ignore[arg-type]


def test_a_file_that_is_no_model_is_named(tiny_artifact: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    write_sidecar(replace(load_sidecar(tiny_artifact), artifact_sha256=hash_file(path)), sidecar_path(path))
    with pytest.raises(InputError, match=r"broken\.onnx cannot be loaded by ONNX Runtime"):
        open_backend(path, "cpu").open()
