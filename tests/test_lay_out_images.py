"""Whole crops on frames: how bench and eval feed an artifact in the frame form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge import open_backend
from hamr_edge.benchmarks.parity import row_cosines
from hamr_edge.crop_canvas import LARGEST_FRAME_HW, SMALLEST_FRAME_HW, fits_a_frame, lay_out_images
from hamr_edge.evaluation import embed_images
from hamr_edge.preprocess import stack_crops
from tests.artifacts import write_tiny_frame_artifact
from tests.planted_faults import resize_by_nearest
from tests.variants import write_variant

_SIZES = st.tuples(st.integers(1, 700), st.integers(1, 1300))


@settings(deadline=None, max_examples=40)
@given(st.lists(_SIZES, min_size=1, max_size=24), st.integers(1, 9))
def test_every_image_lies_whole_in_a_box_of_its_own(sizes: list[tuple[int, int]], most: int) -> None:
    images = [np.full((*size, 3), 1 + index, np.uint8) for index, size in enumerate(sizes)]
    left = list(images)
    for frame, boxes in lay_out_images(images, most):
        assert 1 <= len(boxes) <= most
        for side in range(2):
            assert SMALLEST_FRAME_HW[side] <= frame.shape[side] <= LARGEST_FRAME_HW[side]
        for x1, y1, x2, y2 in boxes.astype(int).tolist():
            np.testing.assert_array_equal(frame[y1:y2, x1:x2], left.pop(0))
    assert not left


def test_an_image_larger_than_any_frame_is_told() -> None:
    height, width = LARGEST_FRAME_HW
    assert fits_a_frame(np.zeros((height, width, 3), np.uint8))
    assert not fits_a_frame(np.zeros((height + 1, 1, 3), np.uint8))
    assert not fits_a_frame(np.zeros((1, width + 1, 3), np.uint8))


@pytest.mark.parametrize("mirror", [False, True])
def test_the_graph_resizes_as_the_crops_form_is_fed(tmp_path: Path, mirror: bool) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (rng.integers(20, 90), rng.integers(10, 50), 3), np.uint8) for _ in range(19)]
    frame_form = write_tiny_frame_artifact(tmp_path / "tiny.onnx")
    with open_backend(frame_form, "cpu") as by_graph, open_backend(tmp_path / "crops" / "tiny.onnx", "cpu") as by_us:
        np.testing.assert_allclose(
            embed_images(by_graph, images, mirror), embed_images(by_us, images, mirror), atol=1e-6
        )
        too_large = [np.zeros((LARGEST_FRAME_HW[0] + 1, 8, 3), np.uint8)]
        np.testing.assert_allclose(embed_images(by_graph, too_large), embed_images(by_us, too_large), atol=1e-6)


def test_a_graph_that_resizes_another_way_gives_other_embeddings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (rng.integers(20, 90), rng.integers(10, 50), 3), np.uint8) for _ in range(9)]
    right = write_tiny_frame_artifact(tmp_path / "tiny.onnx")
    wrong = write_variant(right, tmp_path / "wrong.onnx", resize_by_nearest)
    with open_backend(wrong, "cpu") as backend, open_backend(tmp_path / "crops" / "tiny.onnx", "cpu") as by_us:
        expected = embed_images(by_us, images)
        assert row_cosines(expected, embed_images(backend, images)).max() < 1 - 1e-4
        # Ready crops are not resized: this fault cannot be seen on them.
        ready = backend.infer(stack_crops(images, backend.sidecar.input_size_hw))
        assert row_cosines(expected, ready).min() >= 1 - 1e-6
