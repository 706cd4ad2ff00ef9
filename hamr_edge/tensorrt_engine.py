"""A plan into an engine, held against its sidecar."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hamr_edge.engine_record import DLA_CORE, FLAVOUR_NAMES, EngineRecord, rebuild_hint
from hamr_edge.errors import ArtifactError, UnavailableError
from hamr_edge.sidecar import Sidecar, require_record
from hamr_edge.tensorrt_library import collecting_logger, flavour_of, words_of

_OF_THE_PLAN = {
    "magicTag": "it is no plan of this library",
    "MALFORMED_ENGINE": "it is no plan of this library",
    "expecting library version": "another version of the library built it",
    "Version tag does not match": "another version of the library built it",
    "VERSION_MISMATCH": "another version of the library built it",
    "incompatible device": "it was built for another GPU",
    "UNSUPPORTED_CC": "it was built for another GPU",
}
_OF_THE_MACHINE = {
    "CUDA driver version is insufficient": "the GPU's driver is missing, or too old for this library: update it",
    "OLD_CUDA_DRIVER": "the GPU's driver is too old for this library: update it",
    "CUDA initialization failure": "CUDA does not start: check the driver with nvidia-smi",
    "no CUDA-capable device": "there is no GPU",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for this library: update it",
    "out of memory": "the GPU has no memory left for it: close other programs",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has no memory left for it: close other programs",
    "CUDA_ERROR": "CUDA does not start: check the driver with nvidia-smi",
}
"""Signs in the library's words, and what they mean. The first that is found counts; those of the plan come first."""


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine, and what must live as long as it does."""

    logger: Any
    """Its ``errors`` holds the words of the library."""
    runtime: Any
    cuda_engine: Any


def load_engine(trt: Any, artifact: Path, sidecar: Sidecar) -> LoadedEngine:
    """Deserialise a plan on the GPU whose context is current, and hold it against its sidecar.

    Args:
        trt: The bindings.
        artifact: The ``.engine`` file.
        sidecar: Vouches for the file; :func:`hamr_edge.engine_preflight.check_engine` held it against this machine.

    Raises:
        ArtifactError: The file changed since it was checked, the library refuses the plan, or the engine's tensors are
            not what the sidecar says.
        UnavailableError: The library, the driver or the GPU's memory does not do.
    """
    record = require_record(artifact, sidecar)
    plan = artifact.read_bytes()
    # The hash was checked when the sidecar was read; what is run is what is read now.
    if hashlib.sha256(plan).hexdigest() != sidecar.artifact_sha256:
        raise ArtifactError(
            f"{artifact} was replaced since its sidecar was read, which does not vouch for it as it is now; open it "
            f"again, or {rebuild_hint(artifact, record)}"
        )
    logger = collecting_logger(trt)
    logger.errors.clear()
    runtime = _make_runtime(trt, logger, artifact, record)
    cuda_engine = runtime.deserialize_cuda_engine(plan)
    if cuda_engine is None:
        raise _refusal(trt, runtime, words_of(logger), plan, artifact, record)
    problem = _find_problem(trt, cuda_engine, sidecar, record)
    if problem:
        raise ArtifactError(f"{artifact} {problem}; {rebuild_hint(artifact, record)}")
    return LoadedEngine(logger, runtime, cuda_engine)


def _make_runtime(trt: Any, logger: Any, artifact: Path, record: EngineRecord) -> Any:
    try:
        runtime = trt.Runtime(logger)
    except (TypeError, RuntimeError) as error:
        raise UnavailableError(f"{_library(trt)} makes no runtime: {words_of(logger, str(error))}") from error
    if record.version_compatible:
        # Such a plan brings a part of TensorRT along, which runs on the host. It is no more trusted for that: no plan
        # gets here whose hash its sidecar does not vouch for, and every plan is code for the GPU.
        runtime.engine_host_code_allowed = True
    core = record.dla_core
    if core is not None:
        if core >= runtime.num_DLA_cores:
            at = record.options.index(DLA_CORE)
            without = replace(record, options=(*record.options[:at], *record.options[at + 2 :]))
            raise UnavailableError(
                f"{artifact} was built for DLA core {core}, and {_library(trt)} sees {runtime.num_DLA_cores} DLA cores "
                f"here; without one, {rebuild_hint(artifact, without)}"
            )
        runtime.DLA_core = core
    return runtime


def _refusal(
    trt: Any, runtime: Any, words: str, plan: bytes, artifact: Path, record: EngineRecord
) -> ArtifactError | UnavailableError:
    """The error for a plan that the library does not load: its own words, and what they mean where that is known."""
    # TensorRT for RTX has names for what is wrong. It is asked only here: it knows what is likely, the load knows.
    if hasattr(runtime, "get_engine_validity") and hasattr(trt, "EngineInvalidityDiagnostics"):
        _, found = runtime.get_engine_validity(plan)
        flags = trt.EngineInvalidityDiagnostics.__members__
        names = [name for name, flag in flags.items() if found & int(flag)]
        words = "; ".join([words, *names])
    told = f"{_library(trt)} does not load {artifact}"
    for sign, meaning in _OF_THE_PLAN.items():
        if sign in words:
            return ArtifactError(f"{told}: {meaning} ({words}); {rebuild_hint(artifact, record)}")
    for sign, meaning in _OF_THE_MACHINE.items():
        if sign in words:
            return UnavailableError(f"{told}: {meaning} ({words})")
    return ArtifactError(f"{told}: {words}; {rebuild_hint(artifact, record)}")


def _find_problem(trt: Any, cuda_engine: Any, sidecar: Sidecar, record: EngineRecord) -> str:
    """What of an engine's tensors is not as its sidecar says, in words; empty where everything is."""
    height, width = sidecar.input_size_hw
    inputs: dict[str, tuple[Any, tuple[int, ...]]] = {"images": (trt.DataType.UINT8, (-1, height, width, 3))}
    if sidecar.form == "frame":
        inputs = {"frame": (trt.DataType.UINT8, (-1, -1, 3)), "boxes": (trt.DataType.FLOAT, (-1, 4))}
    expected = {**inputs, "embeddings": (trt.DataType.FLOAT, (-1, sidecar.embedding_dim))}
    found = [cuda_engine.get_tensor_name(index) for index in range(cuda_engine.num_io_tensors)]
    taken = [name for name in found if cuda_engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    given = [name for name in found if name not in taken]
    if sorted(taken) != sorted(inputs) or given != ["embeddings"]:
        return (
            f"takes {_list(taken)} and gives {_list(given)}, and the {sidecar.form} form that its sidecar names takes "
            f"{_list(list(inputs))} and gives embeddings"
        )
    for name, (dtype, _) in expected.items():
        if cuda_engine.get_tensor_dtype(name) != dtype:
            return f"has {name} in {cuda_engine.get_tensor_dtype(name).name}, and {dtype.name} is expected"
    for name, (_, shape) in expected.items():
        dims = tuple(cuda_engine.get_tensor_shape(name))
        if not _fits(dims, shape):
            return f"has {name} of the shape {dims}, and its sidecar says {shape}, where -1 is any size"
    for name in inputs:
        profile = tuple(tuple(sides) for sides in cuda_engine.get_tensor_profile_shape(name, 0))
        if profile != record.profile[name]:
            return f"was built with the profile {profile} for {name}, and its sidecar says {record.profile[name]}"
    return ""


def _fits(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Equal; but an engine for one batch alone may name that batch where any is expected."""
    return len(dims) == len(shape) and all(wanted in (-1, here) for here, wanted in zip(dims, shape, strict=True))


def _list(names: list[str]) -> str:
    return " and ".join(names) or "nothing"


def _library(trt: Any) -> str:
    return f"{FLAVOUR_NAMES[flavour_of(trt)]} {trt.__version__}"
