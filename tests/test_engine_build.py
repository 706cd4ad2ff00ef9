from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.export import engine_build
from hamr_edge.export.config import FORMS, PRECISIONS
from hamr_edge.export.engine_build import (
    ParsedNetwork,
    Profile,
    build_network,
    choose_profile,
    configure,
    parse_network,
)
from hamr_edge.export.engine_builder import build_engine, inspect_build
from hamr_edge.export.engine_options import EngineOptions
from hamr_edge.export.exporting import Exported
from hamr_edge.export.frame_graph import write_frame_form
from hamr_edge.sidecar import external_data_path
from hamr_edge.tensorrt_library import import_tensorrt
from tests.enterprise_bindings import STRICT
from tests.gpu_install import gpu_doubles
from tests.nvidia_builder import build_with_nvidia, nvidia_builder, skip_unless_strict

_NOT_FOR_TENSORRT = ("int8-cpu",)
_CAST = helper.make_node("Cast", ["images"], ["float"], name="cast", to=TensorProto.FLOAT)
_FLATTEN = helper.make_node("Flatten", ["last"], ["embeddings"], name="flatten")


def _write(path: Path, nodes: list[NodeProto], external: bool = False) -> Path:
    """A network of images (batch, 4, 2, 3) uint8 whose nodes, after a Cast to ``float``, make ``last``."""
    weight = numpy_helper.from_array(np.ones((3, 8), np.float32), "weight")
    graph = helper.make_graph(
        [_CAST, *nodes, _FLATTEN],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 2, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", None])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    location = external_data_path(path).name
    onnx.save(model, path, save_as_external_data=external, location=location, size_threshold=0)
    return path


def _product(name: str = "product") -> NodeProto:
    return helper.make_node("MatMul", ["float", "weight"], ["last"], name=name)


def _build(trt: Any, parsed: ParsedNetwork, profile: Profile) -> bytes:
    return build_network(trt, parsed, profile, configure(trt, parsed, profile))


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("small") / "small.onnx", [_product()])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name not in _NOT_FOR_TENSORRT])
def test_nvidia_builds_what_is_exported(precision: str, form: str, exported: Exported) -> None:
    (path,) = (path for path, made in exported.artifacts.items() if (made.precision, made.form) == (precision, form))
    assert len(build_with_nvidia(path, exported.artifacts[path].max_batch)) > 10_000


def test_a_batch_profile_reaches_from_one_to_the_maximum(small_model: Path) -> None:
    parsed = parse_network(nvidia_builder(), small_model)
    assert choose_profile(parsed, 32) == {"images": [(1, 4, 2, 3), (8, 4, 2, 3), (32, 4, 2, 3)]}
    assert choose_profile(parsed, 4) == {"images": [(1, 4, 2, 3), (4, 4, 2, 3), (4, 4, 2, 3)]}
    assert choose_profile(parsed, 32, 1) == {"images": [(1, 4, 2, 3), (1, 4, 2, 3), (32, 4, 2, 3)]}


def test_a_frame_profile_reaches_from_480p_to_2160p(small_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.frame.onnx"
    write_frame_form(small_model, path)
    assert choose_profile(parse_network(nvidia_builder(), path), 16, 2) == {
        "frame": [(480, 640, 3), (1080, 1920, 3), (2160, 3840, 3)],
        "boxes": [(1, 4), (2, 4), (16, 4)],
    }


@pytest.mark.parametrize(("max_batch", "opt_batch"), [(0, None), (-1, None), (4, 0), (4, 5)])
def test_a_batch_out_of_range_is_refused(max_batch: int, opt_batch: int | None, small_model: Path) -> None:
    with pytest.raises(InputError, match="1 <= opt_batch <= max_batch"):
        choose_profile(parse_network(nvidia_builder(), small_model), max_batch, opt_batch)


@pytest.mark.parametrize(
    "inputs", [{"images": (-1, -1, 2, 3)}, {"images": (7, 4, 2, 3)}, {"frame": (-1, -1, 3)}, {"other": (-1, 4, 2, 3)}]
)
def test_a_network_of_another_form_is_refused(inputs: dict[str, tuple[int, ...]]) -> None:
    tensors = [SimpleNamespace(name=name, shape=shape) for name, shape in inputs.items()]
    network = SimpleNamespace(num_inputs=len(tensors), get_input=tensors.__getitem__)
    with pytest.raises(InputError, match=r"got .*\(.*\); export the network"):
        choose_profile(ParsedNetwork(None, None, network, None), 8)


def test_weights_beside_the_file_are_found(tmp_path: Path) -> None:
    path = _write(tmp_path / "split.onnx", [_product()], external=True)
    assert build_with_nvidia(path)
    external_data_path(path).unlink()
    with pytest.raises(InputError, match=r"weight.*Failed to open file: .*split\.onnx\.data"):
        build_with_nvidia(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a file"),
        (b"", "holds no network"),
        (b"xx", "holds no network"),
        (np.random.default_rng(0).bytes(5000), "rejects .*Failed to parse the ONNX model"),
    ],
)
def test_what_is_no_onnx_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        build_with_nvidia(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [
                helper.make_node("Cast", ["images"], ["half"], to=TensorProto.FLOAT16),
                helper.make_node("Add", ["float", "half"], ["last"], name="mixed"),
            ],
            r"node 'mixed' \(Add\): .*must have same input types.*Float and Half",
        ),
        (
            [helper.make_node("Mystery", ["float"], ["last"], name="odd", domain="nobody")],
            r"node 'odd' \(Mystery\): .*Plugin not found",
        ),
        (
            [helper.make_node("Transpose", ["images"], ["last"], name="early", perm=[0, 3, 1, 2])],
            r"node 'early' \(Transpose\): .*first input has type UInt8",
        ),
    ],
)
def test_a_rejected_graph_is_told_by_node_and_in_the_parsers_words(
    nodes: list[NodeProto], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_with_nvidia(_write(tmp_path / "model.onnx", nodes))
    words = str(caught.value)
    assert "CUDA driver" not in words
    assert words.count("Error Code") <= 1


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"images": [(4, 4, 2, 3), (2, 4, 2, 3), (1, 4, 2, 3)]}, "refuses the profile .*MIN<=OPT<=MAX"),
        ({"image": [(1, 4, 2, 3)] * 3}, "builds no engine .*images is missing dimensions"),
        ({"images": [(1, 5, 2, 3)] * 3}, "builds no engine .*profile has min=5.*tensor has 4"),
        ({"images": [(1, 4, 2)] * 3}, "builds no engine .*has 4 dimensions but profile 0 has 3"),
        ({}, "builds no engine .*missing dimensions"),
    ],
)
def test_a_wrong_profile_is_told_in_the_builders_words(
    profile: dict[str, list[tuple[int, ...]]], message: str, small_model: Path
) -> None:
    trt = nvidia_builder()
    parsed = parse_network(trt, small_model)
    with pytest.raises(InputError, match=message):
        _build(trt, parsed, profile)
    # What was logged before is no part of a later error, and the network is still good.
    with pytest.raises(InputError, match="MIN<=OPT<=MAX") as caught:
        _build(trt, parsed, {"images": [(3, 4, 2, 3), (2, 4, 2, 3), (1, 4, 2, 3)]})
    assert "missing dimensions" not in str(caught.value)
    assert _build(trt, parsed, choose_profile(parsed, 4))


def test_the_workspace_is_held(small_model: Path) -> None:
    trt = nvidia_builder()
    assert build_engine(trt, small_model, 4, EngineOptions(workspace_mib=256)).plan
    parsed = parse_network(trt, small_model)
    profile = choose_profile(parsed, 4)
    builder_config = configure(trt, parsed, profile)
    builder_config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 10)
    with pytest.raises(InputError, match=r"builds no engine .*within workspace limit"):
        build_network(trt, parsed, profile, builder_config)


def test_a_library_that_cannot_build_a_version_compatible_plan_says_why(small_model: Path) -> None:
    with pytest.raises(InputError, match=r"builds no engine .*libnvinfer_lean"):
        build_engine(nvidia_builder(), small_model, 4, EngineOptions(version_compatible=True))


@pytest.mark.parametrize("run", [build_engine, inspect_build])
def test_the_builder_is_made_on_the_gpu_it_builds_for(
    run: Any, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library chooses its GPU when the builder is made, before a build begins in a thread of its own."""
    trt = nvidia_builder()
    current: list[list[int]] = []

    class Bindings:
        def __getattr__(self, name: str) -> Any:
            return getattr(trt, name)

        def Builder(self, logger: Any) -> Any:  # noqa: N802  # TensorRT's name
            current.append(list(machine.stack))
            return trt.Builder(logger)

    build_watched = engine_build.build_watched

    def watch(library: Any, config: Any, build: Any, *rest: Any) -> Any:
        def tell_and_build() -> Any:
            current.append(list(machine.stack))
            return build()

        return build_watched(library, config, tell_and_build, *rest)

    monkeypatch.setattr(engine_build, "build_watched", watch)
    with gpu_doubles(monkeypatch, gpus=2, memory_bytes=1 << 33) as machine:
        run(Bindings(), small_model, 4, device=CudaDevice(1))
        assert machine.stack == [], "left as it was"
    assert current == [[1]] * (2 if run is build_engine else 1)


def test_a_library_that_makes_no_configuration_is_told() -> None:
    builder = SimpleNamespace(create_builder_config=lambda: None, create_optimization_profile=lambda: None)
    parsed = ParsedNetwork(SimpleNamespace(errors=["no driver"]), builder, None, None)
    with pytest.raises(UnavailableError, match="makes no configuration or profile"):
        configure(SimpleNamespace(__version__="0"), parsed, {})


def test_without_tensorrt_the_extras_are_named() -> None:
    with pytest.raises(UnavailableError, match=r"tried no_such_trt.*hamr-edge\[tensorrt\].*hamr-edge\[rtx\]"):
        import_tensorrt(("no_such_trt",))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_library", "broken_trt lacks no_such_library"),
        ("raise OSError('libnvinfer.so.10: cannot open')", r"does not load: libnvinfer\.so\.10"),
        ("raise ImportError('libnvinfer.so.10: cannot open')", r"does not load: libnvinfer\.so\.10"),
    ],
)
def test_a_broken_tensorrt_is_not_passed_over(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_trt.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnavailableError, match=message):
        import_tensorrt(("broken_trt", "json"))
    assert import_tensorrt(("no_such_trt", "json")).__name__ == "json"
    assert "broken_trt" not in sys.modules


def test_in_ci_nothing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STRICT, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no wheel"):
        skip_unless_strict("no wheel")
    monkeypatch.setenv(STRICT, "1")
    with pytest.raises(pytest.fail.Exception, match="no wheel"):
        skip_unless_strict("no wheel")
