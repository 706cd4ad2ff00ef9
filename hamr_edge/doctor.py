"""What is installed and what works, found by trying: a library that imports may still not run."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

import numpy as np

from hamr_edge.engine_record import TENSORRT, TENSORRT_RTX
from hamr_edge.tensorrt_library import MODULES, collecting_logger

_IDENTITY_ONNX = base64.b64decode(
    "CAgSADo3ChAKAXgSAXkiCElkZW50aXR5EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="
)
"""An ONNX model of one Identity node, float32 (1,) ``x`` to ``y``: the least that a session can run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one probe."""

    name: str
    needed_for: str
    status: str
    """``works``, ``missing`` (not installed, or no such device) or ``broken`` (there, but fails)."""
    version: str
    """Empty where it is not known."""
    detail: str
    """What was tried, or the first line of the error."""
    remedy: str
    """What to do; empty where it works."""


class _MissingError(Exception):
    """A probe found that something is not there, which is no fault."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to try.

    Attributes:
        name: What is tried.
        needed_for: What in hamr-edge needs it.
        attempt: Tries it; gives (version, detail), raises what it likes.
        remedy: What to do when it does not work.
    """

    name: str
    needed_for: str
    attempt: Callable[[], tuple[str, str]]
    remedy: str


def examine(probe: Probe) -> Finding:
    """Run a probe; never raises, whatever the library does."""
    try:
        version, detail = probe.attempt()
    except _MissingError as error:
        return Finding(probe.name, probe.needed_for, "missing", "", str(error), probe.remedy)
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines()
        detail = f"{type(error).__name__}: {lines[0] if lines else ''}"
        return Finding(probe.name, probe.needed_for, "broken", "", detail, probe.remedy)
    return Finding(probe.name, probe.needed_for, "works", version, detail, "")


def examine_all() -> list[Finding]:
    """Run every probe, the runtime's own needs first."""
    return [examine(probe) for probe in PROBES]


def can_embed(findings: list[Finding]) -> bool:
    """Does what the runtime needs work, and at least one backend?"""
    works = {finding.name for finding in findings if finding.status == "works"}
    return works.issuperset(REQUIRED) and any(works.issuperset(needs) for needs in BACKENDS)


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # Itself or a package it lies in; anything else is what it needs and lacks.
        if not f"{name}.".startswith(f"{error.name}."):
            raise
        raise _MissingError("not installed") from error


def _version(module: Any, distribution: str = "") -> str:
    try:
        return metadata.version(distribution or module.__name__)
    except metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", ""))


def _library(name: str) -> Callable[[], tuple[str, str]]:
    def attempt() -> tuple[str, str]:
        return _version(_import(name)), "imports"

    return attempt


def _numpy() -> tuple[str, str]:
    return np.__version__, "imports"


def _opencv() -> tuple[str, str]:
    cv2 = _import("cv2")
    image = np.zeros((8, 8, 3), np.uint8)
    encoded, data = cv2.imencode(".jpg", cv2.resize(image, (4, 4)))
    if not encoded or cv2.imdecode(data, cv2.IMREAD_COLOR) is None:
        raise RuntimeError("a JPEG was not encoded and decoded")
    return str(cv2.__version__), "resizes, encodes and decodes JPEG"


def _opencv_video() -> tuple[str, str]:
    cv2 = _import("cv2")
    registry = cv2.videoio_registry
    names = sorted(registry.getBackendName(backend) for backend in registry.getStreamBackends())
    if not registry.hasBackend(cv2.CAP_FFMPEG):
        raise _MissingError(f"OpenCV was built without FFmpeg; it has {', '.join(names) or 'nothing'}")
    return str(cv2.__version__), f"video through {', '.join(names)}"


def _onnxruntime(provider: str) -> Callable[[], tuple[str, str]]:
    def attempt() -> tuple[str, str]:
        ort = _import("onnxruntime")
        available = ort.get_available_providers()
        if provider not in available:
            raise _MissingError(f"this onnxruntime has only {', '.join(available)}")
        ort.set_default_logger_severity(4)
        options = ort.SessionOptions()
        if provider != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = ort.InferenceSession(_IDENTITY_ONNX, options, providers=[provider])
        if session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} did not load; the session fell back to {session.get_providers()[0]}")
        value = np.ones(1, np.float32)
        if session.run(None, {"x": value})[0] != value:
            raise RuntimeError("a session gave a wrong result")
        return str(ort.__version__), f"ran a session on {provider}"

    return attempt


def _torch(device: str) -> Callable[[], tuple[str, str]]:
    def attempt() -> tuple[str, str]:
        torch = _import("torch")
        if device == "cuda" and not torch.cuda.is_available():
            built = torch.version.cuda
            raise _MissingError(
                f"torch {torch.__version__} " + (f"for CUDA {built} sees no GPU" if built else "is a CPU build")
            )
        if float(torch.ones(2, 2, device=device).sum()) != 4.0:
            raise RuntimeError("a sum gave a wrong result")
        name = torch.cuda.get_device_name(0) if device == "cuda" else f"{torch.get_num_threads()} threads"
        return str(torch.__version__), f"computed on {device} ({name})"

    return attempt


def _tensorrt(*names: str) -> Callable[[], tuple[str, str]]:
    """Try the first of the modules that is installed."""

    def attempt() -> tuple[str, str]:
        trt = _import(next((name for name in names if find_spec(name)), names[0]))
        builder = trt.Builder(collecting_logger(trt))
        if builder is None:
            raise RuntimeError("the builder cannot be made; is there a GPU and a driver?")
        return str(trt.__version__), "made a builder"

    return attempt


def _pycuda() -> tuple[str, str]:
    driver = _import("pycuda") and import_module("pycuda.driver")
    driver.init()
    if driver.Device.count() == 0:
        raise _MissingError("the CUDA driver sees no GPU")
    return _version(_import("pycuda")), f"the driver sees {driver.Device.count()} GPUs, {driver.Device(0).name()}"


def _cuda_bindings() -> tuple[str, str]:
    cudart = _import("cuda.bindings.runtime")
    error, count = cudart.cudaGetDeviceCount()
    if error in (cudart.cudaError_t.cudaErrorNoDevice, cudart.cudaError_t.cudaErrorInsufficientDriver):
        raise _MissingError(f"no GPU, or no driver for CUDA: {error.name}")
    if error != cudart.cudaError_t.cudaSuccess:
        raise RuntimeError(f"CUDA counts no GPUs: {error.name}")
    return _version(cudart, "cuda-bindings"), f"CUDA sees {count} GPUs"


_GPU_ORT = (
    "pip uninstall onnxruntime, then pip install 'hamr-edge[gpu]'; needs an NVIDIA GPU, its driver, CUDA and cuDNN"
)
_TENSORRT = (
    "on a Jetson use JetPack's own; elsewhere pip install 'hamr-edge[tensorrt]'; needs an NVIDIA GPU and its driver"
)
_PYCUDA = (
    "pip install 'hamr-edge[tensorrt]', on a Jetson 'hamr-edge[jetson]'; it is compiled on the spot with the CUDA "
    "toolkit's nvcc, and needs an NVIDIA GPU and its driver"
)
_GRAPHS = "pip install cuda-bindings; engines run without it too, but each run costs the CPU more"
_RTX = "pip install 'hamr-edge[rtx]'; needs no GPU, but Linux or Windows on x86-64"
_TRAIN = "pip install 'hamr-edge[train]'"
_ONNX = "pip install 'hamr-edge[onnx]'"
_CPU_SESSION = "onnxruntime on cpu"
_ENGINES = ".engine artifacts"
REQUIRED = ("numpy", "opencv")
BACKENDS = (
    (_CPU_SESSION,),
    ("onnxruntime on cuda",),
    ("tensorrt", "pycuda"),
    ("tensorrt for rtx", "pycuda"),
    ("torch on cpu",),
    ("torch on cuda",),
)
"""Each embeds where all it names works."""
PROBES = (
    Probe("numpy", "everything", _numpy, "pip install numpy"),
    Probe("opencv", "everything", _opencv, "pip install opencv-python"),
    Probe("opencv video", "video files", _opencv_video, "pip install opencv-python, which brings FFmpeg"),
    Probe(_CPU_SESSION, ".onnx artifacts", _onnxruntime("CPUExecutionProvider"), _ONNX),
    Probe("onnxruntime on cuda", ".onnx artifacts on a GPU", _onnxruntime("CUDAExecutionProvider"), _GPU_ORT),
    Probe("tensorrt", _ENGINES, _tensorrt(*MODULES[TENSORRT]), _TENSORRT),
    Probe("tensorrt for rtx", f"{_ENGINES}, checks by NVIDIA's builder", _tensorrt(*MODULES[TENSORRT_RTX]), _RTX),
    Probe("pycuda", _ENGINES, _pycuda, _PYCUDA),
    Probe("cuda-bindings", f"CUDA graphs of {_ENGINES}", _cuda_bindings, _GRAPHS),
    Probe("torch on cpu", "training, checkpoints", _torch("cpu"), _TRAIN),
    Probe("torch on cuda", "training on a GPU", _torch("cuda"), "install a CUDA build of torch and the GPU's driver"),
    Probe("safetensors", "training, checkpoints", _library("safetensors"), _TRAIN),
    Probe("onnx", "export", _library("onnx"), _ONNX),
    Probe("onnxscript", "export", _library("onnxscript"), _ONNX),
    Probe("pyarrow", "Parquet output of embed", _library("pyarrow"), "pip install 'hamr-edge[parquet]'"),
    Probe("matplotlib", "figures", _library("matplotlib"), "pip install 'hamr-edge[figures]'"),
    Probe("tensorboard", "train --tensorboard", _library("tensorboard"), "pip install 'hamr-edge[tensorboard]'"),
)
"""What is tried, the runtime's own needs first."""
