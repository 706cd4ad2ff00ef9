from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge import engine_record
from hamr_edge.engine_record import FLAVOURS, EngineRecord, rebuild_command, rebuild_hint, record_from_json

RECORD = EngineRecord(
    flavour="tensorrt",
    version="10.3.0",
    compute_capability="8.7",
    system="linux",
    machine="aarch64",
    profile={"images": ((1, 32, 16, 3), (4, 32, 16, 3), (8, 32, 16, 3))},
    source="model.fp16.onnx",
    options=("--batch", "8", "--tf32"),
)
_SIDES = st.lists(st.integers(1, 4096), max_size=4).map(tuple)
_RECORDS = st.builds(
    EngineRecord,
    flavour=st.sampled_from(FLAVOURS),
    version=st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,3}){1,3}", fullmatch=True),
    compute_capability=st.from_regex(r"[0-9]{1,2}\.[0-9]\+?", fullmatch=True),
    system=st.sampled_from(["linux", "windows", "any"]),
    machine=st.sampled_from(["x86_64", "aarch64"]),
    profile=st.dictionaries(st.text(max_size=5), st.tuples(_SIDES, _SIDES, _SIDES), max_size=3),
    source=st.from_regex(r"[a-z.0-9]{1,9}\.onnx", fullmatch=True),
    device_name=st.text(max_size=5),
    checkpoint_sha256=st.text(max_size=5),
    version_compatible=st.booleans(),
    options=st.lists(st.text(max_size=5), max_size=4).map(tuple),
    details=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)


@given(_RECORDS)
def test_what_is_written_is_read(record: EngineRecord) -> None:
    assert record_from_json(json.loads(json.dumps(asdict(record)))) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flavour": "tensorrt-lite"}, r"engine\.flavour must be tensorrt or tensorrt-rtx, got 'tensorrt-lite'"),
        ({"version": "ten"}, r"engine\.version must be like 10\.3\.0, got 'ten'"),
        ({"version": 10.3}, r"engine\.version must be text, got 10\.3"),
        ({"compute_capability": "87"}, r"engine\.compute_capability must be like 8\.7 or 8\.0\+, got '87'"),
        ({"compute_capability": "8."}, r"must be like 8\.7 or 8\.0\+, got '8\.'"),
        ({"compute_capability": "8.7++"}, r"must be like 8\.7 or 8\.0\+, got '8\.7\+\+'"),
        ({"compute_capability": "\u0668.7"}, r"must be like 8\.7 or 8\.0\+"),
        ({"system": None}, r"engine\.system must be text, got None"),
        ({"machine": 64}, r"engine\.machine must be text, got 64"),
        ({"device_name": 1}, r"engine\.device_name must be text, got 1"),
        ({"source": "../model.onnx"}, r"engine\.source must be the name of a file, got '\.\./model\.onnx'"),
        ({"source": "C:\\model.onnx"}, r"engine\.source must be the name of a file"),
        ({"source": ""}, r"engine\.source must be the name of a file, got ''"),
        ({"source": ".."}, r"engine\.source must be the name of a file"),
        ({"options": "--tf32"}, r"engine\.options must be a list of words, got '--tf32'"),
        ({"options": ["--batch", 8]}, r"engine\.options must be a list of words"),
        ({"options": ["--tf32", "--dla-core"]}, "invalid literal"),
        ({"options": ["--dla-core", "-1"]}, r"engine\.options must name a core from 0 on after --dla-core, got -1"),
        ({"version_compatible": "no"}, r"engine\.version_compatible must be true or false, got 'no'"),
        ({"profile": {"images": [[1], [2]]}}, r"engine\.profile must have three shapes an input"),
        ({"profile": {"images": [["one"], [2], [3]]}}, "invalid literal"),
    ],
)
def test_a_wrong_entry_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record_from_json({**asdict(RECORD), **change})


@pytest.mark.parametrize("change", [lambda values: values.pop("version"), lambda values: values.update(speed=1)])
def test_an_entry_too_few_or_too_many_is_an_error(change: Callable[[dict[str, Any]], object]) -> None:
    values = asdict(RECORD)
    change(values)
    with pytest.raises(TypeError, match=r"version|speed"):
        record_from_json(values)


@pytest.mark.parametrize(
    ("options", "core"),
    [((), None), (("--batch", "8"), None), (("--dla-core", "1", "--tf32"), 1), (("--tf32", "--dla-core", "0"), 0)],
)
def test_the_accelerator_is_read_from_the_options(options: tuple[str, ...], core: int | None) -> None:
    assert replace(RECORD, options=options).dla_core == core


def test_the_command_builds_from_the_onnx_beside_the_engine() -> None:
    engine = Path("build") / "model.fp16.engine"
    assert rebuild_command(engine) == (f"hamr-edge export {Path('build') / 'model.fp16.onnx'} -o build --format engine")
    assert rebuild_command("other.engine", RECORD) == (
        "hamr-edge export model.fp16.onnx -o . --format engine --batch 8 --tf32"
    )


@pytest.mark.parametrize("system", ["posix", "nt"])
def test_a_shell_reads_the_command_as_it_was_meant(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_record, "os", SimpleNamespace(name=system))  # pathlib looks at os.name itself
    record = replace(RECORD, source="my model.onnx")
    command = rebuild_command("a folder/my model.engine", record)
    assert command.count('"' if system == "nt" else "'") == 4
    assert shlex.split(command)[:5] == ["hamr-edge", "export", "a folder/my model.onnx", "-o", "a folder"]


def test_what_the_command_needs_first_is_said(tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    onnx, sidecar = tmp_path / "model.fp16.onnx", tmp_path / "model.fp16.onnx.json"
    command = f"hamr-edge export {onnx} -o {tmp_path} --format engine --batch 8 --tf32"
    onnx.touch()
    sidecar.touch()
    assert rebuild_hint(engine, RECORD) == f"build it again on this machine: {command}"
    sidecar.unlink()
    assert rebuild_hint(engine, RECORD) == (
        "build it again on this machine; model.fp16.onnx.json is not beside it: copy it there from where "
        f"model.fp16.onnx was exported, then: {command}"
    )
    onnx.unlink()
    assert rebuild_hint(engine, RECORD) == (
        "build it again on this machine; model.fp16.onnx and model.fp16.onnx.json are not beside it: copy them there "
        f"from where model.fp16.onnx was exported, then: {command}"
    )
