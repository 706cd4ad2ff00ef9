"""Crops alone and in company: batches of every size, up to the largest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hamr_edge import open_backend
from hamr_edge.benchmarks.consistency import BatchConsistency, measure_consistency
from hamr_edge.dataset import open_dataset
from hamr_edge.evaluation import embed_files
from hamr_edge.scored_crops import ScoredCrops, choose_crops
from tests import variants
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact
from tests.engine_files import write_engine
from tests.gpu_double import Machine
from tests.planted_faults import resize_by_nearest


@pytest.fixture
def crops(tiny_dataset: Path) -> ScoredCrops:
    return choose_crops(open_dataset(tiny_dataset))


def _measure(
    artifact: Path, crops: ScoredCrops, batches: tuple[int, ...] = (1, 8), reference: Path | None = None
) -> BatchConsistency:
    expected = None
    if reference is not None:
        with open_backend(reference, "cpu") as backend:
            expected = embed_files(backend, crops.paths)
    with open_backend(artifact) as backend:
        return measure_consistency(backend, crops, batches, np.random.default_rng(0), expected)


def test_every_size_is_held_against_the_reference(tmp_path: Path, crops: ScoredCrops) -> None:
    artifact = write_tiny_artifact(tmp_path / "tiny.onnx", max_batch=38)
    found = _measure(artifact, crops, (1, 5, 100), artifact)
    assert found.images == 32
    assert found.batches == (1, 2, 5, 38)
    assert [one.batch for one in found.by_batch] == [1, 2, 5, 38]
    assert min(found.min_cosine, *(one.min_cosine for one in found.by_batch)) > 1 - 1e-6
    assert all(one.min_cosine <= one.p01_cosine <= one.mean_cosine for one in found.by_batch)
    assert _measure(artifact, crops).by_batch == ()


def test_no_batch_is_larger_than_the_data_set(tmp_path: Path, crops: ScoredCrops) -> None:
    few = ScoredCrops(crops.query.select(np.arange(2)), crops.gallery.select(np.arange(1)))
    found = _measure(write_tiny_artifact(tmp_path / "tiny.onnx", max_batch=16), few, (4, 8))
    assert (found.images, found.batches) == (3, (2, 3))


@pytest.mark.parametrize("right_up_to", [4, 35])
def test_a_fault_of_the_largest_batch_alone_is_seen(tmp_path: Path, crops: ScoredCrops, right_up_to: int) -> None:
    def repeat_a_row(model: onnx.ModelProto) -> None:
        variants.repeat_fourth_row(model)
        last = next(item for item in model.graph.initializer if item.name == "three")
        last.CopyFrom(onnx.numpy_helper.from_array(np.array([right_up_to - 1]), "three"))

    good = write_tiny_artifact(tmp_path / "tiny.onnx", max_batch=40)
    bad = variants.write_variant(good, tmp_path / "bad.onnx", repeat_a_row)
    found = _measure(bad, crops, (2, 4), good)
    assert (found.batches, found.worst_batch) == ((2, 4, 40), 40)
    assert found.min_cosine < 0.9
    *small, largest = found.by_batch
    assert min(one.min_cosine for one in small) > 1 - 1e-6
    assert largest.min_cosine < 0.9
    assert largest.worst_crop in {crops.name(row) for row in range(len(crops))}


def test_what_is_not_a_number_is_no_sign_of_mixed_rows(tmp_path: Path, crops: ScoredCrops) -> None:
    good = write_tiny_artifact(tmp_path / "tiny.onnx")
    bad = variants.write_variant(good, tmp_path / "bad.onnx", variants.overflow)
    found = _measure(bad, crops, reference=good)
    assert found.min_cosine > 1 - 1e-6
    assert all(one.min_cosine == 0 for one in found.by_batch)


def test_an_engine_is_tried_at_the_size_it_is_tuned_for(tmp_path: Path, crops: ScoredCrops, one_gpu: Machine) -> None:
    crops_form = write_tiny_artifact(tmp_path / "crops.onnx", max_batch=20)
    frame_form = write_tiny_frame_artifact(tmp_path / "frame.onnx", max_batch=20)
    for path in (crops_form, frame_form):
        found = _measure(write_engine(path), crops, (3,), crops_form)
        assert [one.batch for one in found.by_batch] == [1, 2, 3, 8, 20]
        assert min(one.min_cosine for one in found.by_batch) > 1 - 1e-6


def test_a_graph_that_resizes_another_way_is_seen(tmp_path: Path, crops: ScoredCrops) -> None:
    good = write_tiny_frame_artifact(tmp_path / "frame.onnx")
    bad = variants.write_variant(good, tmp_path / "bad.onnx", resize_by_nearest)
    right, wrong = (_measure(path, crops, (4,), tmp_path / "crops" / "frame.onnx").by_batch for path in (good, bad))
    assert min(one.min_cosine for one in right) > 1 - 1e-6
    assert max(one.mean_cosine for one in wrong) < 1 - 1e-5
