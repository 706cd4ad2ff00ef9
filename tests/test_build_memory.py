from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from hamr_edge.errors import UnavailableError
from hamr_edge.export import engine_builder
from hamr_edge.export.build_memory import MemoryNeed, available_host_bytes, check_need, measure_need
from hamr_edge.export.engine_build import choose_profile, parse_network
from hamr_edge.export.engine_builder import build_engine, inspect_build
from hamr_edge.export.engine_options import EngineOptions
from hamr_edge.sidecar import external_data_path
from tests.artifacts import write_tiny_frame_artifact
from tests.nvidia_builder import nvidia_builder

MIB = 1 << 20


@dataclass
class _Gpu(AbstractContextManager["_Gpu"]):
    """As much of a CudaDevice as a build asks for."""

    free: int
    integrated: bool = False
    name: str = "GPU"
    compute_capability: str = "8.7"

    def free_bytes(self) -> int:
        return self.free

    def __exit__(self, *error: object) -> None:
        pass


def _need(model: Path, gpu: Any = None, workspace: int | None = None, max_batch: int = 8) -> MemoryNeed:
    parsed = parse_network(nvidia_builder(), model)
    return measure_need(parsed.network, model, choose_profile(parsed, max_batch), workspace, gpu, 1 << 33)


def test_the_need_grows_with_batch_and_workspace(tiny_artifact: Path) -> None:
    gpu = _Gpu(1 << 33)
    small, large = _need(tiny_artifact, gpu, max_batch=1), _need(tiny_artifact, gpu, max_batch=1024)
    # The three largest activations are the crops in float32.
    assert large.device_wanted - small.device_wanted == 3 * 1023 * 32 * 16 * 3 * 4
    assert _need(tiny_artifact, gpu, workspace=5 * MIB, max_batch=1).device_wanted == small.device_wanted + 5 * MIB
    assert small.host_wanted == large.host_wanted > 256 * MIB


def test_weights_are_no_activations_and_may_lie_beside_the_file(tiny_artifact: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_artifact)
    wide = numpy_helper.from_array(np.zeros((96, 1 << 16), np.float32), "weight")
    (place,) = (place for place, weight in enumerate(model.graph.initializer) if weight.name == "weight")
    model.graph.initializer[place].CopyFrom(wide)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1 << 16
    whole, split = tmp_path / "whole.onnx", tmp_path / "split.onnx"
    onnx.save(model, whole)
    onnx.save(model, split, save_as_external_data=True, location=external_data_path(split).name)
    weights = 96 * (1 << 16) * 4
    needs = [_need(path, _Gpu(1 << 33), max_batch=1) for path in (whole, split)]
    for need in needs:
        assert need.host_wanted >= 256 * MIB + 3 * weights
        # The three largest activations, of 65,536 values each, are small beside the weights.
        assert need.device_wanted - 512 * MIB - 2 * weights < MIB
    assert abs(needs[0].host_wanted - needs[1].host_wanted) < MIB


def test_a_frame_is_not_multiplied_by_the_boxes(tmp_path: Path) -> None:
    path = write_tiny_frame_artifact(tmp_path / "frame.onnx")
    few, many = (_need(path, _Gpu(1 << 33), max_batch=batch).device_wanted for batch in (1, 8))
    frame_bytes = 2160 * 3840 * 3 * 4
    assert few > frame_bytes
    assert many - few < frame_bytes


def test_without_a_gpu_only_the_host_counts(tiny_artifact: Path) -> None:
    need = _need(tiny_artifact)
    assert (need.device_wanted, need.device_free, need.shared, need.spare_device_bytes) == (0, None, False, None)


@pytest.mark.parametrize(
    ("need", "message"),
    [
        (MemoryNeed(5 * MIB, 0, 3 * MIB, None, False), "about 5 MiB of host memory are wanted, 3 MiB are free"),
        (MemoryNeed(MIB, 2048 * MIB, 9 * MIB, 9 * MIB, False), "about 2,048 MiB of GPU memory are wanted, 9 MiB"),
        (
            MemoryNeed(2 * MIB, 2 * MIB, 3 * MIB, 3 * MIB, True),
            r"about 4 MiB of memory \(shared by CPU and GPU\) are wanted, 3 MiB are free",
        ),
    ],
)
def test_what_is_missing_is_told_before_the_build(need: MemoryNeed, message: str) -> None:
    with pytest.raises(UnavailableError, match=rf"model\.onnx needs more than there is: {message}") as caught:
        check_need(need, Path("model.onnx"))
    for way_out in ("smaller --batch", "--workspace", "add swap", "--no-memory-check"):
        assert way_out in str(caught.value)


@given(*[st.integers(0, 1 << 40) for _ in range(4)], st.booleans())
def test_enough_is_enough(host: int, device: int, host_free: int, device_free: int, shared: bool) -> None:
    need = MemoryNeed(host, device, host_free, device_free, shared)
    fits = host + device <= host_free if shared else host <= host_free and device <= device_free
    assert (need.missing == "") == fits
    spare = need.spare_device_bytes
    assert spare is not None
    assert spare >= 0


def test_what_cannot_be_known_is_no_objection() -> None:
    assert MemoryNeed(1 << 50, 1 << 50, None, None, False).missing == ""
    assert MemoryNeed(1 << 50, 1 << 50, None, None, True).missing == ""


def test_free_memory_is_read(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16 kB\nMemAvailable:    7 kB\n")
    assert available_host_bytes(meminfo) == 7 * 1024
    meminfo.write_text("MemTotal:       16 kB\n")
    assert available_host_bytes(meminfo) is None
    assert available_host_bytes(tmp_path / "none") is None
    if sys.platform.startswith("linux"):
        assert available_host_bytes() > 0  # type: ignore[operator]


def test_a_build_that_would_die_does_not_begin(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = nvidia_builder()
    monkeypatch.setattr(engine_builder, "available_host_bytes", lambda: 100 * MIB)
    with pytest.raises(UnavailableError, match="100 MiB are free"):
        build_engine(trt, tiny_artifact, 8)
    assert build_engine(trt, tiny_artifact, 8, memory_check=False).plan
    shared = inspect_build(trt, tiny_artifact, 8, device=_Gpu(1 << 33, integrated=True)).need  # type: ignore[arg-type]
    assert shared.missing.endswith("of memory (shared by CPU and GPU) are wanted, 100 MiB are free")
    assert "100 MiB are free" in inspect_build(trt, tiny_artifact, 8).need.missing


def test_what_parsing_takes_is_not_counted_twice(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing a file of 278 MB took 531 MB, which are part of the need."""
    free = [900 * MIB]
    parse = engine_builder.parse_network

    def parse_and_take(*args: Any) -> Any:
        free[0] -= 600 * MIB
        return parse(*args)

    monkeypatch.setattr(engine_builder, "available_host_bytes", lambda: free[0])
    monkeypatch.setattr(engine_builder, "parse_network", parse_and_take)
    assert inspect_build(nvidia_builder(), tiny_artifact, 8).need.host_free == 900 * MIB


def test_the_workspace_is_half_of_what_is_spare(tiny_artifact: Path) -> None:
    trt = nvidia_builder()
    plan = inspect_build(trt, tiny_artifact, 8, device=_Gpu(1 << 33))  # type: ignore[arg-type]
    assert plan.workspace_mib == (plan.need.device_free - plan.need.device_wanted) // 2 // MIB  # type: ignore[operator]
    asked = inspect_build(trt, tiny_artifact, 8, EngineOptions(workspace_mib=7), _Gpu(1 << 33))  # type: ignore[arg-type]
    assert asked.workspace_mib == 7
    short = inspect_build(trt, tiny_artifact, 8, device=_Gpu(1 << 20))  # type: ignore[arg-type]
    assert short.need.missing
    assert short.workspace_mib == 64, "built all the same, with room for the layers"
    assert inspect_build(trt, tiny_artifact, 8).workspace_mib is None
