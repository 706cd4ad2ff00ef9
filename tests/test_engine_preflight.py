"""A wrong engine says what it wants, what is here and how it is built again, on the way that the backend goes."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hamr_edge import ArtifactError, engine_preflight
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.engine_preflight import (
    check_engine,
    describe_build,
    import_engine_library,
    runs_on_capability,
    runs_on_version,
)
from hamr_edge.engine_record import TENSORRT, TENSORRT_RTX
from hamr_edge.errors import HamrEdgeError, UnavailableError
from hamr_edge.sidecar import hash_file, load_sidecar, sidecar_path, write_sidecar
from hamr_edge.tensorrt_engine import LoadedEngine, load_engine
from hamr_edge.tensorrt_library import import_tensorrt
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact
from tests.engine_files import engine_profile, write_engine
from tests.gpu_install import gpu_doubles
from tests.nvidia_builder import nvidia_builder
from tests.wrong_engines import (
    MACHINE,
    SYSTEM,
    WRONG_ENGINES,
    WrongEngine,
    change_profile,
    change_record,
    change_sidecar,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``crops.engine`` and ``frame.engine``, each beside its .onnx. Not to be changed."""
    root = tmp_path_factory.mktemp("engines")
    write_engine(write_tiny_artifact(root / "crops.onnx"))
    write_engine(write_tiny_frame_artifact(root / "frame.onnx"))
    return root


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "build"))


def _open(engine: Path, trt: Any = None) -> LoadedEngine:
    """What the backend does until it has an engine."""
    sidecar = load_sidecar(engine)
    trt = trt or import_engine_library(engine, sidecar)
    device = CudaDevice()
    check_engine(engine, sidecar, trt, device.compute_capability)
    with device:
        return load_engine(trt, engine, sidecar)


@pytest.mark.parametrize("form", ["crops", "frame"])
def test_a_good_engine_is_opened(form: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_doubles(monkeypatch):
        loaded = _open(folder / f"{form}.engine")
        assert loaded.cuda_engine.num_io_tensors == {"crops": 2, "frame": 3}[form]
        with CudaDevice():
            del loaded


@pytest.mark.parametrize("case", WRONG_ENGINES, ids=lambda case: case.name)
def test_one_change_is_told_in_full(case: WrongEngine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = folder / f"{case.form}.engine"
    vouched = hash_file(engine)
    case.change(engine)
    command = f"hamr-edge export {engine.with_suffix('.onnx')} -o {folder} --format engine"
    with gpu_doubles(monkeypatch, check=False, **case.machine), pytest.raises(ArtifactError) as caught:
        _open(engine)
    assert str(caught.value) == case.message.format(
        engine=engine,
        command=f"{command} --batch 8",
        plain_command=command,
        machine={"amd64": "x86_64", "arm64": "aarch64"}.get(MACHINE, MACHINE),
        vouched=vouched[:12],
        hash=hash_file(engine)[:12] if engine.is_file() else "",
    )


def test_no_two_changes_are_told_alike() -> None:
    beginnings = {case.message.partition("; ")[0] for case in WRONG_ENGINES}
    assert len(beginnings) == len(WRONG_ENGINES)


def test_what_the_command_needs_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = folder / "crops.engine"
    engine.with_suffix(".onnx").unlink()
    with (
        gpu_doubles(monkeypatch, tensorrt_version="10.7.0"),
        pytest.raises(ArtifactError, match=r"crops\.onnx is not beside it: copy it there .*, then: hamr-edge export "),
    ):
        _open(engine)


def test_another_flavour_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = folder / "crops.engine"
    told = "was built by TensorRT 10.3.0, and TensorRT for RTX 1.7.1 is here; neither loads plans of the other"
    with gpu_doubles(monkeypatch, flavour=TENSORRT_RTX, tensorrt_version="1.7.1"):
        with pytest.raises(ArtifactError) as caught:
            _open(engine, import_tensorrt())
        again = f"build it again on this machine: hamr-edge export {engine.with_suffix('.onnx')} -o {folder}"
        assert str(caught.value) == f"{engine} {told}; {again} --format engine --batch 8"
        with pytest.raises(UnavailableError) as missing:
            _open(engine)
    assert str(missing.value).startswith(f"{engine} {told}: TensorRT is not installed (tried tensorrt); ")
    assert str(missing.value).endswith(f"Or {again} --format engine --batch 8")


def test_no_tensorrt_at_all_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_doubles(monkeypatch), monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(UnavailableError, match=r"built by TensorRT 10\.3\.0, and no TensorRT is here: .*pip inst"):
            _open(folder / "crops.engine")


@pytest.mark.parametrize("wrong", [change_record(machine="sparc"), change_sidecar(max_batch=99)])
def test_no_library_is_asked_for_in_vain(
    wrong: Callable[[Path], object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = folder / "crops.engine"
    wrong(engine)
    monkeypatch.setattr(engine_preflight, "import_tensorrt", None)
    with pytest.raises(ArtifactError, match="build it again"):
        import_engine_library(engine, load_sidecar(engine))


@pytest.mark.parametrize(
    ("wanted", "system", "machine", "good"),
    [
        (("linux", "x86_64"), "Linux", "x86_64", True),
        (("windows", "x86_64"), "Windows", "AMD64", True),
        (("linux", "aarch64"), "Linux", "arm64", True),
        (("any", "x86_64"), "Linux", "x86_64", True),
        (("any", "x86_64"), "Windows", "AMD64", True),
        (("any", "x86_64"), "Linux", "aarch64", False),
        (("linux", "aarch64"), "Linux", "x86_64", False),
        (("linux", "x86_64"), "Windows", "AMD64", False),
    ],
)
def test_systems_and_architectures_go_by_many_names(
    wanted: tuple[str, str], system: str, machine: str, good: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = folder / "crops.engine"
    change_record(system=wanted[0], machine=wanted[1])(engine)
    sidecar = load_sidecar(engine)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with gpu_doubles(monkeypatch):
        trt = import_tensorrt()
        if good:
            check_engine(engine, sidecar, trt, "8.7")
            return
        with pytest.raises(ArtifactError, match="a plan does not move from one to the other"):
            check_engine(engine, sidecar, trt, "8.7")


@pytest.mark.parametrize(
    ("shapes", "good"),
    [
        ([(1, 4), (8, 4), (8, 4)], True),
        ([(1, 4), (1, 4), (9, 4)], True),
        ([(2, 4), (8, 4), (8, 4)], False),
        ([(1, 4), (8, 4), (7, 4)], False),
        ([(1, 4), (9, 4), (8, 4)], False),
        ([(1, 4), (8, 5), (8, 4)], False),
        ([(1,), (8,), (8,)], False),
        ([(1, 4, 1), (8, 4, 1), (8, 4, 1)], False),
        ([(), (), ()], False),
    ],
)
def test_a_profile_must_cover_what_is_promised(
    shapes: list[tuple[int, ...]], good: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = folder / "frame.engine"
    change_profile(boxes=shapes)(engine)
    sidecar = load_sidecar(engine)
    with gpu_doubles(monkeypatch):
        trt = import_tensorrt()
        for check in (import_engine_library, lambda *given: check_engine(*given, trt, "8.7")):
            if good:
                check(engine, sidecar)
                continue
            with pytest.raises(ArtifactError, match=r"for boxes, and its sidecar promises every shape from \(1, 4\) "):
                check(engine, sidecar)


_VERSIONS = st.tuples(st.integers(8, 12), st.integers(0, 20), st.integers(0, 9), st.integers(0, 99))


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


@given(_VERSIONS, _VERSIONS)
def test_a_plan_is_for_its_version_or_for_later_ones_too(built: tuple[int, ...], here: tuple[int, ...]) -> None:
    assert runs_on_version(_dotted(built), _dotted(here), False) == (built == here)
    assert runs_on_version(_dotted(built), _dotted(here), True) == (here >= built)
    assert runs_on_version(_dotted(built), _dotted(built), False)


@pytest.mark.parametrize(
    ("built", "here", "good"),
    [
        ("10.3.0", "10.13.3.9", True),
        ("10.3.0", "11.4.0.106", True),
        ("10.3.0", "10.3", True),
        ("10.3", "10.3.0", True),
        ("10.13.3.9", "10.3.0", False),
        ("10.3.0.1", "10.3.0", False),
        ("11.4.0", "10.16.2", False),
    ],
)
def test_versions_are_compared_as_numbers(built: str, here: str, good: bool) -> None:
    assert runs_on_version(built, here, True) is good
    assert not runs_on_version(built, here, False)


_CAPABILITIES = st.tuples(st.integers(5, 12), st.integers(0, 9))


@given(_CAPABILITIES, _CAPABILITIES)
def test_a_plan_is_for_its_gpu_or_for_later_ones_too(wanted: tuple[int, int], here: tuple[int, int]) -> None:
    assert runs_on_capability(_dotted(wanted), _dotted(here)) == (wanted == here)
    assert runs_on_capability(f"{_dotted(wanted)}+", _dotted(here)) == (here >= wanted)


@pytest.mark.parametrize(("flavour", "system"), [(TENSORRT, SYSTEM), (TENSORRT_RTX, "any")])
def test_what_is_described_passes_where_it_was_built(
    flavour: str, system: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = folder / "crops.engine"
    sidecar = load_sidecar(engine)
    with gpu_doubles(monkeypatch, flavour=flavour, tensorrt_version="10.9.1"):
        trt = import_tensorrt()
        record = describe_build(
            trt,
            source="crops.onnx",
            profile={name: [list(shape) for shape in shapes] for name, shapes in engine_profile(sidecar).items()},
            compute_capability="8.0+",
            options=["--batch", "8"],
            details={"seconds": 1.5},
        )
        write_sidecar(replace(sidecar, engine=record), sidecar_path(engine))
        assert load_sidecar(engine).engine == record
        check_engine(engine, load_sidecar(engine), trt, "12.0")
    assert (record.flavour, record.version, record.system) == (flavour, "10.9.1", system)
    assert record.details == {"seconds": 1.5}


def test_nvidias_own_bindings_are_described_and_imported(folder: Path) -> None:
    trt = nvidia_builder()
    engine = folder / "crops.engine"
    sidecar = load_sidecar(engine)
    record = describe_build(
        trt, source="crops.onnx", profile=engine_profile(sidecar), compute_capability="8.0+", options=("--tf32",)
    )
    made = replace(sidecar, engine=record)
    assert import_engine_library(engine, made) is trt
    check_engine(engine, made, trt, "8.9")
    with pytest.raises(HamrEdgeError, match=r"capability 8\.0 and later, and this GPU has 7\.5; .* --tf32"):
        check_engine(engine, made, trt, "7.5")
