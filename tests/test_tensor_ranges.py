from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from hamr_edge.backend import open_backend
from hamr_edge.benchmarks.inner_tensors import open_inner_tensors, read_model
from hamr_edge.benchmarks.scale_table import quantized_tensors, weight_scales_before
from hamr_edge.benchmarks.tensor_ranges import RangeFindings, inspect_ranges
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import load_sidecar
from tests.diagnosis_network import SIZE_HW, crops, write_network
from tests.planted_faults import overflow_inside, scale_constant
from tests.variants import write_variant


def _inspect(artifact: Path) -> RangeFindings:
    return inspect_ranges(artifact, load_sidecar(artifact), crops(6))


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_nothing_is_found_in_a_good_artifact(precision: str, frame: bool, tmp_path: Path) -> None:
    found = _inspect(write_network(tmp_path / "good.onnx", precision, frame=frame))
    assert (found.overflows, found.near, found.scales, found.contradictions) == ((), (), (), ())
    assert found.half_tensors > 5
    assert found.quantized_tensors == (3 if precision == "int8" else 0)
    assert not list(found.failures())
    assert not list(found.notes())


def test_a_float32_artifact_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert _inspect(write_network(tmp_path / "wide.onnx")) == RangeFindings()


def test_an_overflow_that_the_embeddings_hide_is_found(tmp_path: Path) -> None:
    good = write_network(tmp_path / "good.onnx", "fp16")
    bad = write_variant(good, tmp_path / "bad.onnx", lambda model: assert_named(overflow_inside(model)))

    def embed(artifact: Path) -> np.ndarray:
        with open_backend(artifact, "cpu", 1) as backend:
            return backend.infer(stack_crops(crops(6), SIZE_HW))

    # A CPU without float16 kernels computes in float32; one with them gives NaN or wrong rows, which is no less found.
    assert np.isfinite(embed(good)).all()
    found = _inspect(bad)
    assert found.overflows[0].tensor == "conv1"
    assert found.overflows[0].crops == 6
    (sentence,) = found.failures()
    assert "float16 overflows: conv1 (Conv" in sentence
    assert "65504" in sentence
    assert not found.near or not list(found.notes())


def assert_named(tensor: str) -> None:
    assert tensor == "conv1"


def test_a_tensor_near_the_end_is_a_note(tmp_path: Path) -> None:
    good = write_network(tmp_path / "good.onnx", "fp16")
    largest = _largest(good, "conv1")
    factor = 2.0 ** np.floor(np.log2(60000 / largest))
    near = write_variant(good, tmp_path / "near.onnx", lambda model: assert_named(overflow_inside(model, 0, factor)))
    found = _inspect(near)
    assert not found.overflows
    assert found.near[0].tensor == "conv1"
    assert "others may overflow" in " ".join(found.notes())


def _largest(artifact: Path, tensor: str) -> float:
    with open_inner_tensors(artifact, read_model(artifact), [tensor]) as session:
        return float(np.abs(session.run(stack_crops(crops(6), SIZE_HW), [tensor])[0]).max())


@pytest.mark.parametrize(("factor", "saturated"), [(1 / 8, True), (0.01, True), (8, False), (100, False)])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_wrong_scale_of_an_activation_is_the_first_that_is_named(
    factor: float, saturated: bool, layer: int, tmp_path: Path
) -> None:
    good = write_network(tmp_path / "good.onnx", "int8")
    change = partial(scale_constant, name=f"inner{layer}_scale", factor=factor)
    first = _inspect(write_variant(good, tmp_path / "bad.onnx", change)).scales[0]
    assert (first.tensor, first.scale, first.node) == (f"inner{layer}", f"inner{layer}_scale", f"inner{layer}_node")
    assert (first.reach > 1) == saturated
    assert (first.clipped > 0) == saturated


def test_a_wrong_scale_of_a_weight_shows_in_the_next_activation(tmp_path: Path) -> None:
    good = write_network(tmp_path / "good.onnx", "int8")
    bad = write_variant(good, tmp_path / "bad.onnx", partial(scale_constant, name="weight1_scale", factor=8))
    assert _inspect(bad).scales[0].tensor == "inner1"
    model = read_model(bad)
    assert weight_scales_before(model, "inner1", bad) == ["weight1_scale"]
    assert [tensor.name for tensor in quantized_tensors(model, bad)] == ["inner0", "inner1", "inner2"]


def test_a_rounding_and_a_restoring_scale_that_differ_contradict_each_other(tmp_path: Path) -> None:
    def split(model: onnx.ModelProto) -> None:
        (scale,) = (item for item in model.graph.initializer if item.name == "inner1_scale")
        model.graph.initializer.append(scale)
        model.graph.initializer[-1].name = "other_scale"
        scale_constant(model, "other_scale", 8)
        next(node for node in model.graph.node if node.output[0] == "inner1_back").input[1] = "other_scale"

    good = write_network(tmp_path / "good.onnx", "int8")
    (sentence,) = _inspect(write_variant(good, tmp_path / "bad.onnx", split)).contradictions
    assert "inner1_scale" in sentence
    assert "other_scale" in sentence
    assert "8 times" in sentence


def test_weights_in_a_file_of_their_own_are_used(tmp_path: Path) -> None:
    good = write_network(tmp_path / "good.onnx", "fp16")
    expected = _inspect(good)
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "model.onnx"
    onnx.save(onnx.load(good), apart, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    found = inspect_ranges(apart, load_sidecar(good), crops(6))
    assert (found.half_tensors, found.crops) == (expected.half_tensors, 6)
    assert not found.not_looked_at
    assert _largest(apart, "conv2") == _largest(good, "conv2")


def test_without_onnx_it_says_what_was_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = write_network(tmp_path / "good.onnx", "fp16")
    monkeypatch.setitem(sys.modules, "onnx", None)
    found = _inspect(artifact)
    assert not found.overflows
    assert "onnx is not installed" in " ".join(found.notes())


def test_a_checkpoint_has_no_ranges_and_an_engine_says_so(tmp_path: Path) -> None:
    sidecar = load_sidecar(write_network(tmp_path / "good.onnx"))
    assert inspect_ranges(tmp_path, sidecar, crops(2)) == RangeFindings()
    engine = tmp_path / "model.engine"
    assert inspect_ranges(engine, sidecar, crops(2)) == RangeFindings()
    assert "engine" in " ".join(inspect_ranges(engine, replace(sidecar, precision="fp16"), crops(2)).notes())
