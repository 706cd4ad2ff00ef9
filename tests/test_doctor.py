from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hamr_edge import doctor, doctor_command
from hamr_edge.cli import main
from hamr_edge.doctor import Finding, Probe, can_embed, examine
from tests.nvidia_builder import nvidia_builder

_NAMES = [probe.name for probe in doctor.PROBES]


def _probe(attempt: Callable[[], tuple[str, str]]) -> Probe:
    return Probe("thing", "things", attempt, "pip install thing")


def _raise(error: BaseException) -> Callable[[], tuple[str, str]]:
    def attempt() -> tuple[str, str]:
        raise error

    return attempt


def _finding(name: str, status: str = "works") -> Finding:
    return Finding(name, "all", status, "1.0", "tried [it]", "" if status == "works" else f"repair {name}")


def test_the_doctor_tries_what_is_here_in_a_fresh_process(tmp_path: Path) -> None:
    file = tmp_path / "doctor.json"
    code = f"from hamr_edge.cli import main; main(['doctor', '--json', {str(file)!r}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    report = json.loads(file.read_text())
    assert report["can_embed"] is True
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert list(findings) == _NAMES
    for name in ("numpy", "opencv", "onnxruntime on cpu"):
        assert findings[name]["status"] == "works"
        assert findings[name]["version"]
    for finding in findings.values():
        assert finding["status"] in ("works", "missing", "broken")
        assert finding["detail"]
        assert bool(finding["remedy"]) == (finding["status"] != "works")
        assert finding["name"] in run.stdout


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (ImportError("libcudart.so: cannot open\nsecond line"), "ImportError: libcudart.so: cannot open"),
        (RuntimeError(""), "RuntimeError: "),
        (OSError("no device"), "OSError: no device"),
        (SystemExit(3), "SystemExit: 3"),
        (AttributeError("half a module"), "AttributeError: half a module"),
    ],
)
def test_a_broken_library_is_shown_by_its_first_line(error: BaseException, detail: str) -> None:
    finding = examine(_probe(_raise(error)))
    assert (finding.status, finding.detail, finding.remedy) == ("broken", detail, "pip install thing")


def test_a_missing_library_is_not_broken() -> None:
    finding = examine(_probe(doctor._library("no_such_library")))
    assert (finding.status, finding.detail) == ("missing", "not installed")


def test_a_library_that_lacks_its_own_needs_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(name: str) -> object:
        raise ModuleNotFoundError(f"{name} needs other", name="other")

    monkeypatch.setattr(doctor, "import_module", lacking)
    assert examine(_probe(doctor._library("library"))).status == "broken"


def test_the_first_tensorrt_that_is_installed_is_tried() -> None:
    assert examine(_probe(doctor._tensorrt("no_such_trt", "nor_this"))).status == "missing"
    trt = nvidia_builder()
    finding = examine(_probe(doctor._tensorrt("no_such_trt", trt.__name__)))
    assert (finding.status, finding.version, finding.detail) == ("works", trt.__version__, "made a builder")


_CUDA_ERRORS = ("cudaSuccess", "cudaErrorInsufficientDriver", "cudaErrorNoDevice", "cudaErrorSystemDriverMismatch")


@pytest.mark.parametrize(
    ("error", "count", "status", "detail"),
    [
        ("cudaSuccess", 2, "works", "CUDA sees 2 GPUs"),
        ("cudaErrorNoDevice", None, "missing", "no GPU, or no driver for CUDA: cudaErrorNoDevice"),
        ("cudaErrorInsufficientDriver", None, "missing", "no GPU, or no driver for CUDA: cudaErrorInsuff"),
        ("cudaErrorSystemDriverMismatch", None, "broken", "CUDA counts no GPUs: cudaErrorSystemDriverMis"),
    ],
)
def test_cuda_bindings_are_tried_by_counting_gpus(
    error: str, count: int | None, status: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {name: SimpleNamespace(name=name) for name in _CUDA_ERRORS}
    cudart = SimpleNamespace(
        cudaGetDeviceCount=lambda: (errors[error], count), cudaError_t=SimpleNamespace(**errors), __version__="13.5.0"
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cudart)  # type: ignore[arg-type]
    for package in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    finding = examine(_probe(doctor._cuda_bindings))
    assert finding.status == status
    assert detail in finding.detail
    assert bool(finding.version) == (status == "works")


@pytest.mark.parametrize(
    ("lacking", "status"),
    [("cuda", "missing"), ("cuda.bindings", "missing"), ("cuda.bindings.runtime", "missing"), ("numpy", "broken")],
)
def test_a_package_without_the_module_is_missing(lacking: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {lacking!r}", name=lacking)

    monkeypatch.setattr(doctor, "import_module", without)
    assert examine(_probe(doctor._cuda_bindings)).status == status


def test_engines_are_what_the_probes_of_tensorrt_are_for() -> None:
    names = {probe.name for probe in doctor.PROBES if ".engine artifacts" in probe.needed_for}
    assert names == {"tensorrt", "tensorrt for rtx", "pycuda", "cuda-bindings"}
    assert {name for names in doctor.BACKENDS for name in names} <= set(_NAMES)


def test_what_works_needs_no_remedy() -> None:
    finding = examine(_probe(lambda: ("1.2", "did it")))
    assert (finding.status, finding.version, finding.detail, finding.remedy) == ("works", "1.2", "did it", "")


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        (["numpy", "opencv", "onnxruntime on cpu"], True),
        (["numpy", "opencv", "torch on cpu"], True),
        (["numpy", "opencv", "tensorrt", "pycuda"], True),
        (["numpy", "opencv", "tensorrt for rtx", "pycuda"], True),
        (["numpy", "opencv", "tensorrt", "cuda-bindings"], False),
        (["numpy", "opencv", "tensorrt for rtx", "tensorrt"], False),
        (["numpy", "opencv", "pycuda", "cuda-bindings"], False),
        (["numpy", "opencv"], False),
        (["numpy", "onnxruntime on cpu"], False),
    ],
)
def test_embedding_needs_a_backend(working: list[str], expected: bool) -> None:
    assert can_embed([_finding(name, "works" if name in working else "missing") for name in _NAMES]) is expected


def test_without_a_backend_the_doctor_ends_with_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_command, "examine_all", lambda: [_finding("numpy"), _finding("torch on cpu", "broken")])
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--quiet"])
    assert caught.value.code == 4
    captured = capsys.readouterr()
    assert "torch on cpu: repair torch on cpu" in captured.out
    assert "tried [it]" in captured.out
    assert "numpy" not in captured.out
    assert "no backend can run a model here" in captured.err


def test_json_alone_goes_to_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor_command, "examine_all", lambda: [_finding(name) for name in _NAMES])
    main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["machine"]["python"] == sys.version.split()[0]
    assert len(report["findings"]) == len(_NAMES)


def test_the_embedded_model_is_what_it_says() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(doctor._IDENTITY_ONNX)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]
