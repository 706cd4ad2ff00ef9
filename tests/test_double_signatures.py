"""The doubles fake nothing that the real libraries do not have: every name, every parameter, in its place."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from hamr_edge import cuda_device
from hamr_edge.cuda_device import CudaDevice
from tests import faked_names
from tests.cuda_bindings_double import RUNTIME
from tests.cuda_memory_double import DRIVER
from tests.enterprise_bindings import WHEELS, bindings_folder, run_with_bindings
from tests.faked_names import Entry, describe, describe_bindings, problems
from tests.gpu_install import gpu_doubles
from tests.nvidia_builder import nvidia_builder, skip_unless_strict
from tests.pycuda_source import CUDA_BINDINGS, CUDA_FOLDER, RELEASES, archive_path, definitions, read_driver
from tests.tensorrt_context_double import Dims
from tests.tensorrt_double import TENSORRT
from tests.test_enterprise_bindings import libraries as libraries  # a fixture

_RELEASES = pytest.mark.parametrize("release", RELEASES)
_VERSIONS = pytest.mark.parametrize("version", WHEELS)


def _driver_of(release: str) -> dict[str, Entry]:
    if not archive_path(release).is_file():
        skip_unless_strict(f"the source of pycuda {release} is not here; make bindings")
    return read_driver(release)


def _problems_in_cuda(faked: dict[str, Entry]) -> list[str]:
    if not CUDA_FOLDER.is_dir():
        skip_unless_strict(f"{CUDA_BINDINGS[0]} is not here; make bindings")
    run = subprocess.run(
        [sys.executable, faked_names.__file__, "cuda.bindings.runtime"],
        input=json.dumps(faked),
        env={**os.environ, "PYTHONPATH": str(CUDA_FOLDER)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: list[str] = json.loads(run.stdout)
    return found


def _problems_in_tensorrt(version: str, libraries: dict[str, Path], faked: dict[str, Entry]) -> list[str]:
    if not bindings_folder(version).is_dir():
        skip_unless_strict(f"the bindings of TensorRT {version} are not here; make bindings")
    arguments = [faked_names.__file__, "tensorrt_bindings"]
    words = run_with_bindings(version, libraries[version.split(".")[0]], arguments, json.dumps(faked))
    found: list[str] = json.loads(words)
    return found


@_RELEASES
def test_pycuda_has_what_is_faked(release: str) -> None:
    assert problems(describe(DRIVER), _driver_of(release)) == []


def test_cuda_bindings_have_what_is_faked() -> None:
    assert _problems_in_cuda(describe(RUNTIME)) == []


@_VERSIONS
def test_tensorrt_has_what_is_faked(version: str, libraries: dict[str, Path]) -> None:
    assert _problems_in_tensorrt(version, libraries, describe(TENSORRT)) == []


def test_tensorrt_for_rtx_has_what_is_faked() -> None:
    faked = describe(TENSORRT)
    assert problems(faked, describe_bindings(nvidia_builder(), list(faked))) == []


def _used(source: str, owner: str) -> set[str]:
    """Names that a source takes from a variable or field: ``driver.Stream``, ``self._device.driver.Stream``."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and (getattr(node.value, "id", "") or getattr(node.value, "attr", "")).lstrip("_") == owner
    }


def test_what_our_sources_use_is_faked() -> None:
    """So what no test on the doubles runs is held against the real libraries too."""
    folder = Path(cuda_device.__file__).parent
    driver = set[str]().union(*(_used(file.read_text(encoding="utf-8"), "driver") for file in folder.glob("*.py")))
    assert driver - set(DRIVER) == set()
    assert {"Stream", "mem_alloc", "device_attribute"} <= driver
    runtime = _used((folder / "cuda_graphs.py").read_text(encoding="utf-8"), "runtime")
    assert runtime - set(RUNTIME) == set()
    assert {"cudaGraphLaunch", "cudaError_t"} <= runtime


class _Stream:
    """A wrong double of PyCUDA's."""

    def __init__(self, flag: int = 0) -> None: ...

    def synchronise(self) -> None: ...

    def wait_for_event(self, evt: object) -> None: ...

    @property
    def is_done(self) -> bool:
        return True


def _copy(dest: int, size: int, src: int) -> None: ...


def _begin_capture(stream: int, mode: int) -> tuple[int, int]: ...


class _Context:
    """A wrong double of TensorRT's."""

    name = ""

    def set_input_shape(self, shape: tuple[int, ...], name: str) -> bool: ...

    def set_device_memory(self, memory: int) -> None: ...

    def execute_async_v3(self, stream_handle: int, wait: bool = False) -> bool: ...

    def execute_async_v9(self) -> None: ...


@_RELEASES
def test_a_slip_in_the_double_of_pycuda_is_reported(release: str) -> None:
    faked = describe({"Stream": _Stream, "memcpy_dtod_async": _copy, "mem_take": _copy, "Event": _copy})
    assert problems(faked, _driver_of(release)) == [
        "Event is a class, not a method",
        "Stream.__init__ takes (flags=), not (flag=)",
        "Stream.is_done is a method, not a property",
        "Stream.synchronise is not there",
        "Stream.wait_for_event takes (*=), not (evt)",
        "mem_take is not there",
        "memcpy_dtod_async takes (dest, src, size, stream=), not (dest, size, src)",
    ]


def test_a_slip_in_the_double_of_cuda_bindings_is_reported() -> None:
    faked = describe({"cudaStreamBeginCapture": _begin_capture, "cudaStreamEndCapture": _copy, "cudaGraphGo": _copy})
    assert _problems_in_cuda(faked) == [
        "cudaGraphGo is not there",
        "cudaStreamBeginCapture gives 1 values, not 2",
        "cudaStreamEndCapture takes (stream), not (dest, size, src)",
    ]


@_VERSIONS
def test_a_slip_in_the_double_of_tensorrt_is_reported(version: str, libraries: dict[str, Path]) -> None:
    faked = describe({"IExecutionContext": _Context, "DataType": type("DataType", (), {"UINT9": 9})})
    assert [words.partition(" takes ")[0] for words in _problems_in_tensorrt(version, libraries, faked)] == [
        "DataType.UINT9 is not there",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.execute_async_v9 is not there",
        "IExecutionContext.name is a property, not a value",
        "IExecutionContext.set_device_memory",
        "IExecutionContext.set_input_shape",
    ]


def test_every_kind_of_definition_is_read_from_the_source() -> None:
    source = """
    before();
    BOOST_PYTHON_MODULE(_driver)
    {
      py::def("init", init, py::arg("flags")=0); // py::def("commented", out);
      {
        typedef stream cl;
        py::class_<cl, shared_ptr<cl> >
          ("Stream", py::init<unsigned int>(py::arg("flags")=0))
    #if CUDAPP_CUDA_VERSION >= 3020
          .DEF_SIMPLE_METHOD(wait_for_event)
    #endif
          .def("copy", &cl::copy, (py::args("self", "dest"), py::arg("stream")=py::object()))
          .add_property("handle", &cl::handle_int)
          ;
      }
      DEF_SIMPLE_FUNCTION(mem_get_info);
      DECLARE_EXC(LogicError, CudaError.get());
      py::enum_<CUevent_flags>("event_flags").value("DEFAULT", CU_EVENT_DEFAULT);
    }
    """
    assert definitions(source) == {
        "init": {"kind": "method", "signatures": [[["flags", False]]]},
        "Stream": {"kind": "class"},
        "Stream.__init__": {"kind": "method", "signatures": [[["flags", False]]]},
        "Stream.wait_for_event": {"kind": "method", "signatures": [[["*", False]]]},
        "Stream.copy": {"kind": "method", "signatures": [[["dest", True], ["stream", False]]]},
        "Stream.handle": {"kind": "property", "writable": False},
        "mem_get_info": {"kind": "method", "signatures": [[["*", False]]]},
        "LogicError": {"kind": "class"},
        "event_flags": {"kind": "class"},
        "event_flags.DEFAULT": {"kind": "value"},
    }


def test_shapes_behave_as_those_of_tensorrt() -> None:
    for dims in (Dims((2, 3)), nvidia_builder().Dims([2, 3])):
        assert len(dims) == 2
        assert (tuple(dims), list(dims), dims[1]) == ((2, 3), [2, 3], 3)
        assert [dims == (2, 3), dims == [2, 3], dims == (2, 4)] == [True, True, False]
        with pytest.raises(TypeError, match="incompatible function arguments"):
            assert dims == dims.__class__((2, 3))


def _habits(bindings: Any) -> list[str]:
    """What bindings answer to wrong calls, and to bytes that are no plan."""

    class Logger(bindings.ILogger):  # type: ignore[misc]  # known at run time only
        def __init__(self, ready: bool = True) -> None:
            if ready:
                bindings.ILogger.__init__(self)
            self.words: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity == bindings.ILogger.Severity.ERROR:
                self.words.append(msg)

    logger = Logger()
    runtime = bindings.Runtime(logger)
    wrong = (
        lambda: bindings.Runtime(Logger(ready=False)),
        lambda: bindings.ICudaEngine(),
        lambda: bindings.IExecutionContext(),
        lambda: setattr(runtime, "host_code_allowed", True),
        lambda: runtime.deserialize_cuda_engine(None),
    )
    habits = []
    for call in wrong:
        with pytest.raises((TypeError, AttributeError)) as caught:
            call()
        habits.append(caught.type.__name__)
    habits.append(str(runtime.deserialize_cuda_engine(b"no plan" * 99)))
    assert "Error Code 1: Serialization (Serialization assertion " in logger.words[0]
    assert "magicTag" in logger.words[0]
    logger.words.clear()
    habits.append(str(runtime.deserialize_cuda_engine(b"")))
    habits.append(logger.words[0][:94])
    return habits


def test_the_double_answers_as_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _habits(nvidia_builder())
    with gpu_doubles(monkeypatch), CudaDevice():
        assert _habits(import_module("tensorrt")) == expected
