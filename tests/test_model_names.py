from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hamr_edge.benchmarks.model_names import short_names


def test_a_file_is_named_by_as_many_folders_as_it_takes() -> None:
    assert short_names(["runs/mini", "build/model.fp32.onnx"]) == ["mini", "model.fp32.onnx"]
    assert short_names(["a/m.onnx", "b/m.onnx", "b/n.onnx"]) == ["a/m.onnx", "b/m.onnx", "n.onnx"]
    assert short_names(["x/a/m.onnx", "y/a/m.onnx", "m.onnx"]) == ["x/a/m.onnx", "y/a/m.onnx", "m.onnx"]
    assert short_names(["/a/m.onnx", "/a/m.onnx", "/m.onnx"]) == ["a/m.onnx", "a/m.onnx (2)", "/m.onnx"]
    assert short_names(["m.onnx", "m.onnx", "./m.onnx"]) == ["m.onnx", "m.onnx (2)", "m.onnx (3)"]


@given(st.lists(st.sampled_from(["a", "b", "a (2)", "x/a", "y/a", "x/a (2)", "./a", "/a"]), max_size=6))
def test_every_model_has_a_name_of_its_own(models: list[str]) -> None:
    names = short_names(models)
    assert len(names) == len(models)
    assert len(set(names)) == len(names)
