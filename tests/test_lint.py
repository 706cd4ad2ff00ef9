from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hamr_edge.cli import hamr_edge
from hamr_edge.errors import GateError, InputError
from hamr_edge.export.lint import RULES, lint
from hamr_edge.export.lint_graph import ALL_TARGETS, ERROR, ONNXRUNTIME, TENSORRT_RTX, Finding
from hamr_edge.tensorrt_library import collecting_logger
from tests.lint_graph_cases import GRAPH_CASES
from tests.lint_models import F32, INT8, Case, model, quantised, unary, versioned
from tests.lint_quantise_cases import QUANTISE_CASES
from tests.lint_type_cases import TYPE_CASES
from tests.real_parts import TAKES, ask_onnxruntime, ask_rtx

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SWIG, in NVIDIA's bindings

CASES = (*GRAPH_CASES, *QUANTISE_CASES, *TYPE_CASES)
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{case.fault}")


def _errors(model: onnx.ModelProto | str | Path, target: str | None = None) -> list[Finding]:
    return [item for item in lint(model, [target] if target else ALL_TARGETS) if item.severity == ERROR]


def test_every_rule_has_a_failing_example() -> None:
    assert {case.rule for case in CASES} == {rule.__name__ for rule in RULES}


@each_case
def test_a_rule_finds_its_fault_and_nothing_in_the_mended_model(case: Case) -> None:
    found = [item for item in lint(case.wrong) if item.rule == case.rule]
    assert found
    assert not [item for item in lint(case.right) if item.rule == case.rule]
    assert not _errors(case.right)
    for item in found:
        assert ";" in item.message  # what is wrong; what to do
        assert item.name


@each_case
def test_tensorrt_for_rtx_refuses_or_misreads_what_is_called_an_error(case: Case) -> None:
    assert bool(_errors(case.wrong, TENSORRT_RTX)) == (ask_rtx(case.wrong) != TAKES)
    assert ask_rtx(case.right) == TAKES


@each_case
def test_onnx_runtime_refuses_or_misreads_what_is_called_an_error(case: Case) -> None:
    assert bool(_errors(case.wrong, ONNXRUNTIME)) == (ask_onnxruntime(case.wrong) != TAKES)
    assert ask_onnxruntime(case.right) == TAKES


@pytest.mark.parametrize("source", ["tiny_artifact", "exported"])
def test_nothing_is_found_in_what_is_exported(source: str, request: pytest.FixtureRequest) -> None:
    assert lint(request.getfixturevalue(source)) == []


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real network's ONNX form."""
    from hamr_edge.export.onnx_export import export_onnx
    from hamr_edge.trainer.checkpoint import load_checkpoint

    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    network, *_ = load_checkpoint(checkpoint)
    export_onnx(network, path, 4)
    return path


def test_the_list_of_operators_is_that_of_tensorrt_for_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    schemas = [schema for schema in onnx.defs.get_all_schemas() if not schema.domain and schema.since_version <= 26]
    for name in sorted({schema.name for schema in schemas} - {"RoiAlign", "NonZero"}):  # rules of their own
        rules = {item.rule for item in _errors(unary(f"{name}(x)", opset=26), TENSORRT_RTX)}
        listed = bool(rules & {"operator_not_imported", "integer_operator"})
        assert listed == (not parser.supports_operator(name)), name


def test_targets_are_those_asked_for() -> None:
    model = versioned(22)
    assert [item.targets for item in lint(model)] == [("tensorrt-10",), ("onnxruntime",)]
    assert [item.targets for item in lint(model, ["onnxruntime"])] == [("onnxruntime",)]
    assert lint(model, ["tensorrt-11"]) == []
    for targets in (["tensorrt-9"], []):
        with pytest.raises(InputError, match="targets must be of tensorrt-10, tensorrt-11, tensorrt-rtx, onnxruntime"):
            lint(model, targets)


def test_errors_come_first() -> None:
    severities = [item.severity for item in lint(quantised(F32(0), INT8))]
    assert severities == sorted(severities)
    assert len(set(severities)) == 2


def test_nested_graphs_and_local_functions_are_read() -> None:
    branches = "then_branch = t () => (float[3] a) {{ a = {} }}, else_branch = e () => (float[3] b) {{ b = Abs(x) }}"
    text = "(bool c, float[3] x) => (float[3] y) {{ y = If(c) <" + branches + "> }}"
    assert not _errors(model(text.format("Relu(x)")))
    assert {item.rule for item in _errors(model(text.format("NoSuchOperator(x)")))} == {"unknown_operator"}
    function = onnx.parser.parse_function('<opset_import: ["" : 20], domain: "own"> twice (x) => (y) { y = Add(x, x) }')
    made = unary("own.twice(x)", "N,3", "N,3", imports=', "own" : 1')
    assert {item.rule for item in _errors(made)} == {"foreign_domain"}
    made.functions.append(function)
    assert not _errors(made)


def test_external_data_must_be_there_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    made = model("(float[N,300] x) => (float[N,300] y) { y = Add(x, b) }", b=np.ones(300, F32))
    onnx.save(made, path, save_as_external_data=True, location="model.data", size_threshold=0)
    assert lint(path) == []
    data = tmp_path / "model.data"
    data.write_bytes(data.read_bytes()[:-4])
    assert "ends before its data do" in _errors(path)[0].message
    data.unlink()
    assert {item.rule for item in _errors(path)} == {"missing_data"}
    assert "model.data beside the model, which is not there" in _errors(path)[0].message


def test_the_model_is_not_changed() -> None:
    made = quantised(F32(0.1), INT8)
    before = made.SerializeToString()
    lint(made)
    assert made.SerializeToString() == before


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(CASES), st.data())
def test_a_damaged_file_is_an_input_error_or_is_read(tmp_path: Path, case: Case, data: st.DataObject) -> None:
    content = bytearray(case.wrong.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):
        lint(path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x0a"])
def test_a_file_that_is_no_model_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is no ONNX file"):
        lint(path)
    assert isinstance(_command(path).exception, InputError)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name an ONNX file"):
        lint(tmp_path / "none.onnx")


def _command(*arguments: object) -> Result:
    return CliRunner().invoke(hamr_edge, ["lint", *map(str, arguments)])


def test_the_command_fails_on_errors_alone(tmp_path: Path) -> None:
    good, warned, wrong = (tmp_path / name for name in ("good.onnx", "warned.onnx", "wrong.onnx"))
    onnx.save(versioned(20), good)
    onnx.save(versioned(22), warned)
    onnx.save(quantised(F32(0.1), np.uint8(0), "uint8"), wrong)
    passed = _command(good, warned)
    assert passed.exit_code == 0
    assert f"{good}: 0 errors, 0 warnings\nwarning: opset at g (tensorrt-10): the file says opset 22" in passed.stdout
    assert "warning: opset" not in _command(warned, "--quiet").stdout
    failed = _command(good, wrong, "--target", "tensorrt-10", "--target", "tensorrt-11")
    assert isinstance(failed.exception, GateError)
    assert "wrong.onnx" in str(failed.exception)
    assert "good.onnx" not in str(failed.exception)
    assert "error: unsigned_zero_point at q (tensorrt-10, tensorrt-11): QuantizeLinear is of UINT8" in failed.stdout
    assert _command(wrong, "--target", "onnxruntime").exit_code == 0


def test_the_command_writes_json(tmp_path: Path) -> None:
    path = tmp_path / "wrong.onnx"
    onnx.save(quantised(F32(0.1), None, "uint8"), path)
    report = json.loads(_command(path, "--json", "-").stdout)
    assert report["schema"] == 1
    assert report["targets"] == list(ALL_TARGETS)
    assert report["models"][0]["model"] == str(path)
    found = report["models"][0]["findings"][0]
    assert set(found) == {"rule", "severity", "name", "targets", "message"}
    assert (found["rule"], found["severity"]) == ("missing_zero_point", ERROR)


def test_many_findings_of_one_rule_are_counted(tmp_path: Path) -> None:
    nodes = " ".join(f"q{i} = QuantizeLinear(x, s, z) y{i} = DequantizeLinear(q{i}, s, z)" for i in range(4))
    outputs = ", ".join(f"float[N,3] y{i}" for i in range(4))
    onnx.save(model(f"(float[N,3] x) => ({outputs}) {{ {nodes} }}", s=F32(0.1), z=np.uint8(0)), tmp_path / "many.onnx")
    lines = _command(tmp_path / "many.onnx").stdout.splitlines()
    assert len([line for line in lines if line.startswith("error: unsigned_zero_point at")]) == 5
    assert "error: unsigned_zero_point: 3 more; --json has them all" in lines
