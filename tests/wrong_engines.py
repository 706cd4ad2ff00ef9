"""Good engines made wrong by one change each, and what is then said."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from hamr_edge.sidecar import hash_file, load_sidecar, sidecar_path, write_sidecar
from tests.engine_files import engine_profile
from tests.tensorrt_double import double_plan

SYSTEM, MACHINE = platform.system().lower(), platform.machine().lower()
_OTHER_MACHINE = "x86_64" if MACHINE in ("arm64", "aarch64") else "aarch64"
_AGAIN = "build it again on this machine: {command}"


def edit_sidecar(engine: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = sidecar_path(engine)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def change_record(**entries: Any) -> Callable[[Path], object]:
    return lambda engine: edit_sidecar(engine, lambda values: values["engine"].update(entries))


def change_sidecar(**entries: Any) -> Callable[[Path], object]:
    return lambda engine: edit_sidecar(engine, lambda values: values.update(entries))


def change_profile(**shapes: list[tuple[int, ...]]) -> Callable[[Path], object]:
    return lambda engine: edit_sidecar(engine, lambda values: values["engine"]["profile"].update(shapes))


def _append_a_byte(engine: Path) -> None:
    with engine.open("ab") as file:
        file.write(b"\0")


def _build_half(engine: Path) -> None:
    """Give the embeddings in float16."""
    cast = helper.make_node("Cast", ["inner"], ["embeddings"], to=TensorProto.FLOAT16)
    _build_with(engine, cast, helper.make_tensor_value_info("embeddings", TensorProto.FLOAT16, ["batch", 12]))


def _build_parts(engine: Path) -> None:
    """Give each embedding in three parts."""
    axes = helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 3, 4])
    constant = helper.make_node("Constant", [], ["shape"], value=axes)
    reshape = helper.make_node("Reshape", ["inner", "shape"], ["embeddings"])
    _build_with(
        engine, constant, reshape, helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", 3, 4])
    )


def _build_with(engine: Path, *nodes_and_output: Any) -> None:
    """Put the plan of a network with more nodes and another output behind the same sidecar, which vouches for it."""
    model = onnx.load(engine.with_suffix(".onnx"))
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.extend(nodes_and_output[:-1])
    model.graph.output[0].CopyFrom(nodes_and_output[-1])
    changed = engine.with_name("changed.onnx")
    onnx.save(model, changed)
    sidecar = load_sidecar(engine)
    engine.write_bytes(double_plan(changed, engine_profile(sidecar)))
    write_sidecar(replace(sidecar, artifact_sha256=hash_file(engine)), sidecar_path(engine))


def _nothing(engine: Path) -> None:
    """The machine differs, and the files are good."""


@dataclass(frozen=True)
class WrongEngine:
    """One change that makes a good engine a wrong one."""

    name: str
    change: Callable[[Path], object]
    message: str
    """With {engine}, {command} and what else the test fills in."""
    machine: dict[str, Any]
    form: str = "crops"


def _case(
    name: str, change: Callable[[Path], object], message: str, form: str = "crops", **machine: Any
) -> WrongEngine:
    return WrongEngine(name, change, message, machine, form)


WRONG_ENGINES = [
    _case(
        "missing sidecar",
        lambda engine: sidecar_path(engine).unlink(),
        "{engine} has no sidecar crops.engine.json; a TensorRT plan is code, and is not loaded unless its sidecar "
        "vouches for it; copy both files together, or build it again on this machine: {plain_command}",
    ),
    _case(
        "hash",
        _append_a_byte,
        "sidecar crops.engine.json is not of this crops.engine: it vouches for SHA-256 {vouched}..., the file has "
        "{hash}...; a TensorRT plan is code, and is not loaded unless its sidecar vouches for it; copy all files "
        f"again, or {_AGAIN}",
    ),
    _case(
        "version",
        _nothing,
        "{engine} was built by TensorRT 10.3.0 and runs on that version alone, and TensorRT 10.7.0 is here; " + _AGAIN,
        tensorrt_version="10.7.0",
    ),
    _case(
        "later version",
        change_record(version_compatible=True, version="10.7.0"),
        "{engine} was built by TensorRT 10.7.0 and runs on that version and later ones, and TensorRT 10.3.0 is here; "
        + _AGAIN,
    ),
    _case(
        "compute capability",
        _nothing,
        "{engine} is for GPUs of compute capability 8.7 (it was built on Double of a GPU), and this GPU has 8.9; "
        + _AGAIN,
        compute_capability=(8, 9),
    ),
    _case(
        "compute capability and later",
        change_record(compute_capability="9.0+", device_name=""),
        "{engine} is for GPUs of compute capability 9.0 and later, and this GPU has 8.7; " + _AGAIN,
    ),
    _case(
        "system",
        change_record(system="qnx"),
        f"{{engine}} is for qnx on {MACHINE}, and this machine is {SYSTEM} on {{machine}}; a plan does not move "
        "from one to the other; " + _AGAIN,
    ),
    _case(
        "architecture",
        change_record(machine=_OTHER_MACHINE),
        f"{{engine}} is for {SYSTEM} on {_OTHER_MACHINE}, and this machine is {SYSTEM} on {{machine}}; a plan does "
        "not move from one to the other; " + _AGAIN,
    ),
    _case(
        "profile: batch",
        change_sidecar(max_batch=16),
        "{engine} has the profile (1, 32, 16, 3), (8, 32, 16, 3), (8, 32, 16, 3) for images, and its sidecar promises "
        "every shape from (1, 32, 16, 3) to (16, 32, 16, 3); " + _AGAIN,
    ),
    _case(
        "profile: input size",
        change_sidecar(input_size_hw=[64, 16]),
        "{engine} has the profile (1, 32, 16, 3), (8, 32, 16, 3), (8, 32, 16, 3) for images, and its sidecar promises "
        "every shape from (1, 64, 16, 3) to (8, 64, 16, 3); " + _AGAIN,
    ),
    _case(
        "profile: frame size",
        change_profile(frame=[(480, 640, 3), (720, 1280, 3), (1080, 1920, 3)]),
        "{engine} has the profile (480, 640, 3), (720, 1280, 3), (1080, 1920, 3) for frame, and its sidecar promises "
        "every shape from (480, 640, 3) to (2160, 3840, 3); " + _AGAIN,
        form="frame",
    ),
    _case(
        "profile: inputs",
        change_sidecar(form="crops"),
        "{engine} has a profile for frame and boxes, and the crops form that its sidecar names takes images; " + _AGAIN,
        form="frame",
    ),
    _case(
        "dtype",
        _build_half,
        "{engine} has embeddings in HALF, and FLOAT is expected; " + _AGAIN,
    ),
    _case(
        "dims",
        change_sidecar(embedding_dim=13),
        "{engine} has embeddings of the shape (-1, 12), and its sidecar says (-1, 13), where -1 is any size; " + _AGAIN,
    ),
    _case(
        "rank",
        _build_parts,
        "{engine} has embeddings of the shape (-1, 3, 4), and its sidecar says (-1, 12), where -1 is any size; "
        + _AGAIN,
    ),
    _case(
        "no record",
        lambda engine: edit_sidecar(engine, lambda values: values.pop("engine")),
        "the sidecar of {engine} must say which TensorRT built it and for which GPU, and says nothing of an engine: "
        "it was written for another kind of artifact; build it again on this machine: {plain_command}",
    ),
    _case(
        "no engine",
        lambda engine: engine.unlink(),
        "artifact {engine} is not there; build it again on this machine: {plain_command}",
    ),
    _case(
        "unreadable record",
        change_record(flavour="other"),
        "sidecar {engine}.json cannot be read: engine.flavour must be tensorrt or tensorrt-rtx, got 'other'; build it "
        "again on this machine: {plain_command}",
    ),
]
