"""Loading a plan: what the library says of one it does not take, and the engine held against its sidecar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from hamr_edge.cuda_device import CudaDevice
from hamr_edge.engine_preflight import describe_build
from hamr_edge.errors import ArtifactError, UnavailableError
from hamr_edge.machine import nvidia_gpus
from hamr_edge.sidecar import Sidecar, hash_file, load_sidecar, sidecar_path, write_sidecar
from hamr_edge.tensorrt_engine import load_engine
from hamr_edge.tensorrt_library import import_tensorrt
from tests.artifacts import write_tiny_artifact, write_tiny_frame_artifact
from tests.engine_files import engine_profile, write_engine
from tests.gpu_double import Machine
from tests.gpu_install import gpu_doubles
from tests.nvidia_builder import build_with_nvidia, nvidia_builder
from tests.tensorrt_double import WRONG_VERSION

_NO_DRIVER = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream at cudaResources.cpp:25 "
    "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version))"
)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """``tiny.engine`` beside its .onnx."""
    return write_engine(write_tiny_artifact(tmp_path / "tiny.onnx"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with gpu_doubles(monkeypatch) as machine:
        yield machine


def _load(engine: Path, sidecar: Sidecar, trt: Any = None) -> dict[str, Any]:
    """Load it; gives what is asked of the runtime, and lets everything go while the context is current."""
    with CudaDevice():
        loaded = load_engine(trt or import_tensorrt(), engine, sidecar)
        host_code = loaded.runtime.engine_host_code_allowed
        core = getattr(loaded.runtime, "DLA_core", -1)
        del loaded
    return {"host_code": host_code, "core": core}


@pytest.mark.parametrize(
    ("words", "kind", "meaning"),
    [
        (WRONG_VERSION, ArtifactError, "another version of the library built it"),
        (
            "Error Code 1: Serialization (Serialization assertion stdVersionRead == serializationVersion failed."
            "Version tag does not match. Note: Current Version: 237, Serialized Engine Version: 239)",
            ArtifactError,
            "another version of the library built it",
        ),
        (
            "Error Code 6: The engine plan file is generated on an incompatible device, expecting compute 8.9 got "
            "compute 8.6, please rebuild.",
            ArtifactError,
            "it was built for another GPU",
        ),
        ("Serialization assertion header.magicTag == rt::kPLAN_MAGIC_TAG failed.", ArtifactError, "it is no plan of"),
        (_NO_DRIVER, UnavailableError, "the GPU's driver is missing, or too old for this library: update it"),
        ("CUDA initialization failure with error: 35", UnavailableError, "CUDA does not start"),
        ("Error Code 1: Cuda Runtime (out of memory)", UnavailableError, "the GPU has no memory left for it"),
    ],
)
def test_a_refused_plan_is_told_in_the_librarys_words(
    words: str, kind: type[Exception], meaning: str, engine: Path, gpu: Machine
) -> None:
    gpu.options.plan_error = words
    with pytest.raises((ArtifactError, UnavailableError)) as caught:
        _load(engine, load_sidecar(engine))
    message = str(caught.value)
    assert caught.type is kind
    assert message.startswith(f"TensorRT 10.3.0 does not load {engine}: {meaning}")
    assert f"({words})" in message
    # A plan that is built again runs without a driver or memory no better.
    assert ("build it again" in message) == (kind is ArtifactError)


def test_words_that_nobody_knows_are_told_as_they_are(engine: Path, gpu: Machine) -> None:
    gpu.options.plan_error = "Error Code 99: the moon is full"
    with pytest.raises(ArtifactError) as caught:
        _load(engine, load_sidecar(engine))
    assert str(caught.value) == (
        f"TensorRT 10.3.0 does not load {engine}: Error Code 99: the moon is full; build it again on this machine: "
        f"hamr-edge export {engine.with_suffix('.onnx')} -o {engine.parent} --format engine --batch 8"
    )


def test_a_library_without_a_runtime_is_told(engine: Path, gpu: Machine) -> None:
    def no_runtime(logger: Any) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt = SimpleNamespace(**{**vars(import_tensorrt()), "Runtime": no_runtime})
    with pytest.raises(UnavailableError, match=r"^TensorRT 10\.3\.0 makes no runtime: pybind11::init"):
        _load(engine, load_sidecar(engine), trt)


def test_a_file_that_was_replaced_is_not_run(engine: Path, gpu: Machine) -> None:
    sidecar = load_sidecar(engine)
    with engine.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match=r"replaced since its sidecar was read.*build it again"):
        _load(engine, sidecar)
    assert gpu.counts["deserialize_cuda_engine"] == 0


@pytest.mark.parametrize("version_compatible", [False, True])
def test_host_code_is_allowed_for_plans_that_bring_some(version_compatible: bool, engine: Path, gpu: Machine) -> None:
    sidecar = load_sidecar(engine)
    assert sidecar.engine is not None
    made = replace(sidecar, engine=replace(sidecar.engine, version_compatible=version_compatible))
    assert _load(engine, made)["host_code"] is version_compatible


def test_a_plan_runs_on_the_dla_core_it_was_built_for(engine: Path, gpu: Machine) -> None:
    sidecar = load_sidecar(engine)
    assert sidecar.engine is not None
    trt = import_tensorrt()

    class RuntimeWithDla(trt.Runtime):  # type: ignore[misc]  # the module is known at run time only
        num_DLA_cores = 2  # noqa: N815  # TensorRT's name
        DLA_core = -1

    here = SimpleNamespace(**{**vars(trt), "Runtime": RuntimeWithDla})
    assert _load(engine, sidecar, here)["core"] == -1
    made = [
        replace(sidecar, engine=replace(sidecar.engine, options=("--batch", "8", "--dla-core", str(core))))
        for core in range(3)
    ]
    assert [_load(engine, sidecar, here)["core"] for sidecar in made[:2]] == [0, 1]
    words = r"built for DLA core 2, and TensorRT 10\.3\.0 sees 2 DLA cores here; without one, build it again"
    with pytest.raises(UnavailableError, match=rf"{words} .* --format engine --batch 8$"):
        _load(engine, made[2], here)


def test_an_engine_of_other_tensors_is_refused(tmp_path: Path, gpu: Machine) -> None:
    crops = write_engine(write_tiny_artifact(tmp_path / "crops.onnx"))
    frame = write_engine(write_tiny_frame_artifact(tmp_path / "frame.onnx"))
    of_frame = replace(load_sidecar(frame), artifact_sha256=hash_file(crops))
    with pytest.raises(ArtifactError) as caught:
        _load(crops, of_frame)
    assert str(caught.value).startswith(
        f"{crops} takes images and gives embeddings, and the frame form that its sidecar names takes frame and boxes "
        "and gives embeddings; build it again"
    )
    other_output = onnx.load(tmp_path / "crops.onnx")
    for names in (other_output.graph.node[-1].output, [other_output.graph.output[0]]):
        if isinstance(names, list):
            names[0].name = "features"
        else:
            names[0] = "features"
    onnx.save(other_output, tmp_path / "other.onnx")
    write_sidecar(
        replace(load_sidecar(tmp_path / "crops.onnx"), artifact_sha256=hash_file(tmp_path / "other.onnx")),
        sidecar_path(tmp_path / "other.onnx"),
    )
    other = write_engine(tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="takes images and gives features, and the crops form"):
        _load(other, load_sidecar(other))


def test_an_engine_of_another_profile_is_refused(engine: Path, gpu: Machine) -> None:
    sidecar = load_sidecar(engine)
    assert sidecar.engine is not None
    shapes = ((1, 32, 16, 3), (4, 32, 16, 3), (8, 32, 16, 3))
    made = replace(sidecar, engine=replace(sidecar.engine, profile={"images": shapes}))
    with pytest.raises(ArtifactError) as caught:
        _load(engine, made)
    assert str(caught.value).startswith(
        f"{engine} was built with the profile ((1, 32, 16, 3), (8, 32, 16, 3), (8, 32, 16, 3)) for images, and its "
        f"sidecar says {shapes}; build it again"
    )


@pytest.mark.parametrize(("promised", "good"), [((32, 16), True), ((32, 17), False)])
def test_an_engine_for_one_batch_may_name_it(
    promised: tuple[int, int], good: bool, tmp_path: Path, gpu: Machine
) -> None:
    path = write_tiny_artifact(tmp_path / "one.onnx", max_batch=1)
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    write_sidecar(
        replace(load_sidecar(write_tiny_artifact(tmp_path / "any.onnx", max_batch=1)), artifact_sha256=hash_file(path)),
        sidecar_path(path),
    )
    engine = write_engine(path)
    sidecar = replace(load_sidecar(engine), input_size_hw=promised)
    if good:
        _load(engine, sidecar)
        return
    with pytest.raises(ArtifactError, match=r"has images of the shape \(1, 32, 16, 3\), and its sidecar says \(-1, 32"):
        _load(engine, sidecar)


def _nvidia_engine(folder: Path, plan: bytes | None = None) -> Path:
    """A plan of NVIDIA's own builder, or other bytes, with a sidecar that vouches for it."""
    path = write_tiny_artifact(folder / "tiny.onnx")
    engine = path.with_suffix(".engine")
    engine.write_bytes(build_with_nvidia(path) if plan is None else plan)
    sidecar = load_sidecar(path)
    record = describe_build(
        nvidia_builder(), source=path.name, profile=engine_profile(sidecar), compute_capability="8.0+"
    )
    write_sidecar(replace(sidecar, artifact_sha256=hash_file(engine), engine=record), sidecar_path(engine))
    return engine


def test_without_a_driver_nvidias_library_says_so(tmp_path: Path) -> None:
    if nvidia_gpus():
        pytest.skip("there is a GPU")
    trt = nvidia_builder()
    engine = _nvidia_engine(tmp_path)
    with pytest.raises(UnavailableError) as caught:
        load_engine(trt, engine, load_sidecar(engine))
    message = str(caught.value)
    assert message.startswith(
        f"TensorRT for RTX {trt.__version__} does not load {engine}: the GPU's driver is missing, or too old"
    )
    assert "cudaError 35: CUDA driver version is insufficient for CUDA runtime version" in message


@pytest.mark.parametrize("junk", [b"no plan at all " * 100, b"", b"ab"])
def test_what_is_no_plan_is_told_by_nvidias_library(junk: bytes, tmp_path: Path) -> None:
    trt = nvidia_builder()
    engine = _nvidia_engine(tmp_path, junk)
    with pytest.raises(ArtifactError, match=r"it is no plan of this library .*MALFORMED_ENGINE.*build it again"):
        load_engine(trt, engine, load_sidecar(engine))


@pytest.mark.gpu
def test_a_plan_of_nvidias_builder_is_what_its_sidecar_says(tmp_path: Path) -> None:
    try:
        device = CudaDevice()
    except UnavailableError as error:
        pytest.skip(str(error))
    trt = nvidia_builder()
    engine = _nvidia_engine(tmp_path)
    with device:
        assert load_engine(trt, engine, load_sidecar(engine)).cuda_engine.num_io_tensors == 2
