from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.node_assignment import (
    SHAPE_OPERATORS,
    AssignedNode,
    assigned_nodes,
    can_record,
    name_nodes,
    record_assignment,
    stray_nodes,
)
from hamr_edge.onnx_session import check_assignment, cuda_options, import_onnxruntime, open_session, rehearse
from tests.artifacts import pixel_model, write_tiny_frame_artifact

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
KEPT_ON_CPU = {
    "crop/Cast/frame_rows",
    "crop/Sub/frame_last_top",
    "crop/Cast/frame_columns",
    "crop/Sub/frame_last_left",
    "crop/Cast/frame_columns_int",
}
"""What ONNX Runtime 1.31.1 recorded for the frame form with its CUDA provider, whatever the precision."""

needs_recording = pytest.mark.skipif(
    not can_record(import_onnxruntime()), reason="ONNX Runtime before 1.24 cannot say which provider runs a node"
)


@pytest.fixture(scope="module")
def frame_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_frame_artifact(tmp_path_factory.mktemp("frame") / "tiny.frame.onnx")


def _recorded(model: Path | bytes) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    record_assignment(options)
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=[CPU])


@needs_recording
def test_every_node_is_recorded_with_its_name(frame_artifact: Path) -> None:
    nodes = assigned_nodes(_recorded(frame_artifact))
    assert AssignedNode(CPU, "Split", "crop/Split/left_asked") in nodes
    assert {node.name for node in nodes} >= KEPT_ON_CPU
    assert stray_nodes(nodes, CPU) == []
    assert stray_nodes(nodes, CUDA) == nodes


@needs_recording
def test_nodes_elsewhere_are_an_error_that_names_them(tiny_artifact: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        check_assignment(_recorded(tiny_artifact), "cuda:0 cannot run all of tiny.onnx", CUDA, allow_cpu_nodes=False)
    message = str(caught.value)
    assert message.startswith("cuda:0 cannot run all of tiny.onnx: ")
    assert "nodes run on the CPU (Transpose" in message or "nodes run on the CPU (AveragePool" in message
    assert "more); take another precision, such as fp16, an engine or the CPU" in message
    assert "allow_cpu_nodes=True" in message


@needs_recording
def test_nodes_elsewhere_can_be_allowed(tiny_artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = _recorded(tiny_artifact)
    with caplog.at_level(logging.WARNING):
        check_assignment(session, "cuda:0 cannot run all", CUDA, allow_cpu_nodes=True)
    assert "nodes run on the CPU" in caplog.text
    caplog.clear()
    check_assignment(session, "the CPU cannot run all", CPU, allow_cpu_nodes=False)
    assert not caplog.text


def test_the_frame_form_keeps_only_arithmetic_on_its_size_on_the_cpu(frame_artifact: Path) -> None:
    graph = onnx.load(frame_artifact).graph
    on_cpu = _fed_by_sizes_alone(graph)
    assert {node.name for node in on_cpu} == KEPT_ON_CPU
    providers = {node.name: CPU for node in on_cpu}
    nodes = [AssignedNode(providers.get(node.name, CUDA), node.op_type, node.name) for node in graph.node]
    assert stray_nodes(nodes, CUDA) == []
    working = AssignedNode(CPU, "DequantizeLinear", "bias")
    assert len(stray_nodes([*nodes, working], CUDA)) == len(KEPT_ON_CPU) + 1


def _fed_by_sizes_alone(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that ``GetCpuPreferredNodes`` of ONNX Runtime keeps on the CPU: a Shape's result lies there."""
    constants = {item.name for item in graph.initializer}
    sizes: set[str] = set()
    kept = []
    for node in graph.node:
        if node.op_type == "Shape":
            sizes.update(node.output)
        elif sizes.intersection(node.input) and set(node.input) <= sizes | constants:
            kept.append(node)
            sizes.update(node.output)
    return kept


@pytest.mark.parametrize("operator", ["Conv", "MatMul", "GridSample", "QuantizeLinear", "MemcpyToHost", "LSTM"])
def test_what_works_on_data_is_never_let_pass(operator: str) -> None:
    assert operator not in SHAPE_OPERATORS
    assert stray_nodes([AssignedNode(CPU, operator, "a")], CUDA)


def test_working_nodes_are_named_first() -> None:
    nodes = [AssignedNode(CPU, "Add", "size"), AssignedNode(CPU, "Conv", ""), AssignedNode(CPU, "Gemm", "last")]
    assert name_nodes(nodes) == "Conv without a name, Gemm last, Add size"
    assert name_nodes(nodes[:1] * 5) == "Add size, Add size, Add size and 2 more"


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available")
def test_a_provider_that_does_not_load_is_an_error(
    tiny_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where its CUDA libraries are missing: ONNX Runtime warns and runs everything on the CPU."""
    onnxruntime = import_onnxruntime()
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("no libcudart"), raising=False)
    monkeypatch.setattr("hamr_edge.onnx_session.resolve_device", lambda _: "cuda:0")
    for allow_cpu_nodes in (False, True):
        with pytest.raises(UnavailableError, match=r"cuda:0 (was asked for|cannot run)"):
            open_session(tiny_artifact, "cuda:0", allow_cpu_nodes=allow_cpu_nodes)
    session, device = open_session(tiny_artifact, "auto", threads=1)
    assert device == "cpu"
    assert "using the CPU" in caplog.text
    assert not capsys.readouterr().out, "stdout is for results"
    rehearse(session)


def test_a_rehearsal_feeds_every_input(frame_artifact: Path) -> None:
    rehearse(open_session(frame_artifact, "cpu", threads=1)[0])
    counted = pixel_model((4, 4))
    counted.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    session, _ = open_session(counted.SerializeToString(), "cpu", threads=1)
    with pytest.raises(InputError, match=r"images is a tensor\(int64\); expected one of tensor\(uint8\)"):
        rehearse(session)


def test_cuda_computes_in_the_precision_of_the_artifact() -> None:
    assert cuda_options("cuda:3") == {"device_id": "3", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
