"""A published ONNX file to a TensorRT engine, held against that ONNX before it gets its name.

Needs neither PyTorch nor the onnx package, so that it runs on a Jetson.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hamr_edge import __version__
from hamr_edge.backend import check_device, cuda_index, open_backend
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.dataset import ReidDataset
from hamr_edge.engine_preflight import describe_build
from hamr_edge.engine_record import TENSORRT_RTX
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.export.check_source import CheckSource, make_source
from hamr_edge.export.config import check_max_batch, check_min_cosine
from hamr_edge.export.engine_builder import BuildPlan, build_engine, inspect_build
from hamr_edge.export.engine_options import EngineOptions, runs_on
from hamr_edge.export.publish import publish, publish_unchecked
from hamr_edge.sidecar import Sidecar, load_sidecar
from hamr_edge.tensorrt_library import flavour_of, import_tensorrt

_MIN_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.98}
"""Of an engine's embeddings with those of its ONNX on the CPU: the same precision, other orders of sums."""
_TF32_COSINE = 0.999
ENGINE_PRECISIONS = tuple(_MIN_COSINE)
"""What TensorRT is given; ``int8-cpu`` is not for it."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How engines are built and checked."""

    options: EngineOptions = field(default_factory=EngineOptions)
    max_batch: int | None = None
    """Largest batch of the engine; that of the ONNX when None."""
    device: str = "auto"
    """GPU to build for and to check on."""
    timing_cache: Path | None = None
    """Folder of what earlier builds measured; none is kept when None."""
    memory_check: bool = True
    unchecked: bool = False
    """Publish what cannot be run here; the sidecar says so."""
    min_cosine: float | None = None
    """Least agreement of any crop with the ONNX; as well as the precision allows when None."""
    seed: int = 0
    """Chooses the crops of the check."""

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.device == "cpu":
            raise InputError("engines run on NVIDIA GPUs: --device must be auto or cuda:N, got cpu")
        if self.max_batch is not None:
            check_max_batch(self.max_batch)
        check_min_cosine(self.min_cosine)

    def least_cosine(self, precision: str) -> float:
        """How well every row of an engine must agree with its ONNX on the CPU."""
        if self.min_cosine is not None:
            return self.min_cosine
        return _TF32_COSINE if self.options.tf32 else _MIN_COSINE[precision]


def export_engine(
    model: Path, output: Path, config: EngineConfig, dataset: ReidDataset | None = None, quiet: bool = True
) -> tuple[Path, Sidecar]:
    """Build the engine of an ONNX artifact, check every row against it, publish.

    Args:
        model: An ``.onnx`` file with its sidecar, in either form.
        output: Folder for ``<name>.engine`` and its sidecar.
        config: How.
        dataset: Crops for the check; drawn figures without one.
        quiet: No progress.

    Returns:
        The engine and its sidecar.

    Raises:
        InputError: The file is no artifact for TensorRT, or the library refuses it or an option; with its words.
        UnavailableError: TensorRT, the GPU, ONNX Runtime or memory is not there.
        GateError: The engine disagrees with its ONNX; nothing was published.
    """
    sidecar = _load_model(model)
    trt = import_tensorrt()
    gpu = _find_gpu(trt, config)
    max_batch = config.max_batch or sidecar.max_batch
    source = None if config.unchecked else _embed_source(model, replace(sidecar, max_batch=max_batch), config, dataset)
    built = build_engine(
        trt,
        model,
        max_batch,
        config.options,
        device=gpu,
        timing_cache=config.timing_cache,
        memory_check=config.memory_check,
        quiet=quiet,
    )
    capability = None if gpu is None else gpu.compute_capability
    record = describe_build(
        trt,
        source=model.name,
        profile=built.profile,
        compute_capability=runs_on(trt, config.options, capability),
        device_name="" if gpu is None else gpu.name,
        version_compatible=config.options.version_compatible,
        options=("--batch", str(max_batch), *config.options.words()),
        details=built.details,
    )
    made = replace(
        sidecar,
        max_batch=max_batch,
        source_sha256=sidecar.artifact_sha256,
        external_data_sha256="",
        engine=replace(record, checkpoint_sha256=sidecar.source_sha256),
        made_by=f"hamr-edge {__version__}, {record.flavour} {record.version}",
    )
    path = output / model.with_suffix(".engine").name

    def write(part: Path) -> None:
        part.write_bytes(built.plan)

    if source is None:
        reason = "there is no GPU here" if gpu is None else "as was asked for by --unchecked"
        return path, publish_unchecked(path, made, write, reason)
    device = "auto" if gpu is None else f"cuda:{gpu.index}"
    return path, publish(
        path, made, write, source.of_form(sidecar.form), config.least_cosine(sidecar.precision), device=device
    )


def inspect_engine(model: Path, config: EngineConfig) -> BuildPlan:
    """Do all that comes before a build, and build nothing; the errors are those of :func:`export_engine`."""
    sidecar = _load_model(model)
    trt = import_tensorrt()
    try:
        gpu: CudaDevice | None = CudaDevice(cuda_index(config.device))
    except UnavailableError:
        gpu = None
    return inspect_build(trt, model, config.max_batch or sidecar.max_batch, config.options, gpu)


def check_precisions(precisions: Sequence[str]) -> None:
    """Raise InputError where engines can be built from none of the precisions."""
    if not set(precisions) & set(ENGINE_PRECISIONS):
        raise InputError(
            f"engines are built from {', '.join(ENGINE_PRECISIONS)}, got {', '.join(precisions)}, which is made for "
            "ONNX Runtime on CPUs"
        )


def _load_model(model: Path) -> Sidecar:
    """The sidecar of an ONNX artifact that an engine can be built from."""
    if model.suffix != ".onnx":
        raise InputError(f"an engine is built from an .onnx file of 'hamr-edge export', got {model}")
    sidecar = load_sidecar(model)
    check_precisions([sidecar.precision])
    if sidecar.form == "nchw":
        raise InputError(
            f"{model} is for a tool that builds its own engine, such as DeepStream from its onnxFile; our own "
            "engines are built from the crops or frame form"
        )
    return sidecar


def _find_gpu(trt: Any, config: EngineConfig) -> CudaDevice | None:
    """The GPU to build for; None where TensorRT for RTX may build without one."""
    try:
        return CudaDevice(cuda_index(config.device))
    except UnavailableError as error:
        rtx = flavour_of(trt) == TENSORRT_RTX
        if config.unchecked and rtx and config.device == "auto":
            return None
        way_out = "; TensorRT for RTX also builds without one: add --unchecked to publish it unchecked" if rtx else ""
        raise UnavailableError(
            f"{error}. An engine is built and checked on the kind of GPU that will run it; copy the .onnx and its "
            f"sidecar there and run the same command{way_out}"
        ) from error


def _embed_source(model: Path, sidecar: Sidecar, config: EngineConfig, dataset: ReidDataset | None) -> CheckSource:
    """Crops and what the ONNX makes of them on the CPU, before the minutes of a build."""
    try:
        backend = open_backend(model, "cpu")
    except UnavailableError as error:
        raise UnavailableError(
            f"an engine is checked against its .onnx on the CPU: {error} (on a Jetson, pip install onnxruntime is "
            "enough); or add --unchecked to publish it unchecked"
        ) from error
    with backend:
        return make_source(dataset, backend.infer, sidecar, (sidecar.form,), config.seed, of="the .onnx")
