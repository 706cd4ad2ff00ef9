"""ONNX Runtime sessions on the device asked for, and on no other."""

from __future__ import annotations

import logging
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import check_device, cuda_index
from hamr_edge.errors import InputError, UnavailableError
from hamr_edge.node_assignment import assigned_nodes, can_record, name_nodes, record_assignment, stray_nodes

_log = logging.getLogger(__name__)
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        UnavailableError: It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            "ONNX Runtime is not installed; pip install 'hamr-edge[onnx]', or 'hamr-edge[gpu]' for CUDA"
        ) from error
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


def resolve_device(device: str) -> str:
    """``cpu`` or ``cuda:N``; ``auto`` is ``cuda:0`` where this ONNX Runtime has CUDA.

    Raises:
        InputError: Not the name of a device.
        UnavailableError: ONNX Runtime, or its CUDA provider, is not there.
    """
    check_device(device)
    onnxruntime = import_onnxruntime()
    has_cuda = _CUDA in onnxruntime.get_available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise UnavailableError(
            f"{device} was asked for, but this onnxruntime {onnxruntime.__version__} has no {_CUDA}; "
            "pip uninstall onnxruntime, then pip install 'hamr-edge[gpu]'"
        )
    if device == "auto":
        return "cuda:0" if has_cuda else "cpu"
    return device


def input_dtype(value: Any) -> np.dtype[Any]:
    """The dtype of an input or output of a session.

    Raises:
        InputError: It is none that networks here take: uint8, float32 or float16.
    """
    if value.type not in _DTYPES:
        raise InputError(f"{value.name} is a {value.type}; expected one of {', '.join(_DTYPES)}")
    return np.dtype(_DTYPES[value.type])


def open_session(
    model: Path | bytes,
    device: str,
    threads: int | None = None,
    spin: bool = True,
    fuse_quantised: bool = True,
    allow_cpu_nodes: bool = False,
) -> tuple[Any, str]:
    """Load a model. On a GPU it has run once when it is returned, so that what is missing is known here.

    Args:
        model: ``.onnx`` file, or what such a file holds.
        device: ``cpu``, ``cuda:N`` or ``auto``; only ``auto`` may fall back to the CPU, and says so in the log.
        threads: CPU threads of one inference; ONNX Runtime's default when None.
        spin: Let threads wait in a loop for the next inference: faster alone, slower beside others that compute.
        fuse_quantised: Let ONNX Runtime make integer kernels of Q/DQ. Without it, Q/DQ rounds as it says and products
            are float, as TensorRT's are but for the order of sums.
        allow_cpu_nodes: On a GPU, let the CPU run what the GPU lacks kernels for, and say so in the log. Arithmetic on
            sizes, which ONNX Runtime itself keeps on the CPU, is always let.

    Returns:
        The session, and the device it runs on.

    Raises:
        InputError: The file is not a model that ONNX Runtime can load.
        UnavailableError: ONNX Runtime or the device is not there, or the device cannot run the whole model.
    """
    chosen = resolve_device(device)
    options = _session_options(threads, spin, fuse_quantised)
    if chosen == "cpu":
        return _open_on_cpu(model, options), chosen
    try:
        return _open_on_cuda(model, options, chosen, allow_cpu_nodes), chosen
    except UnavailableError as error:
        if device != "auto":
            raise
        _log.warning("%s; using the CPU", error)
        return _open_on_cpu(model, _session_options(threads, spin, fuse_quantised)), "cpu"


def _session_options(threads: int | None, spin: bool, fuse_quantised: bool) -> Any:
    options = import_onnxruntime().SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not fuse_quantised:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _open_on_cpu(model: Path | bytes, options: Any) -> Any:
    try:
        return import_onnxruntime().InferenceSession(_source(model), options, providers=[_CPU])
    except Exception as error:  # ONNX Runtime raises its own types, and RuntimeError
        raise InputError(f"{_named(model)} cannot be loaded by ONNX Runtime: {error}") from error


def _open_on_cuda(model: Path | bytes, options: Any, device: str, allow_cpu_nodes: bool) -> Any:
    onnxruntime = import_onnxruntime()
    _load_cuda_libraries(onnxruntime)
    recorded = can_record(onnxruntime)
    if recorded:
        record_assignment(options)
    elif not allow_cpu_nodes:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        # Without enable_fallback=0, a device that is not there is a line on stdout, and the CPU is taken.
        session = onnxruntime.InferenceSession(
            _source(model), options, providers=[(_CUDA, cuda_options(device))], enable_fallback=0
        )
    except Exception as error:
        hint = "" if recorded else "; onnxruntime 1.24 and later can say which nodes, and let sizes stay on the CPU"
        raise UnavailableError(f"{device} cannot run {_named(model)}: {error}{hint}") from error
    session.disable_fallback()  # else an error of the provider in an inference makes a session on the CPU
    if session.get_providers()[0] != _CUDA:
        raise UnavailableError(
            f"{device} was asked for, but ONNX Runtime chose {session.get_providers()}; its CUDA libraries did not "
            "load ('hamr-edge doctor' says more)"
        )
    if recorded:
        check_assignment(session, f"{device} cannot run all of {_named(model)}", _CUDA, allow_cpu_nodes)
    try:
        rehearse(session)
    except Exception as error:
        raise UnavailableError(f"{device} cannot run {_named(model)}: {error}") from error
    return session


def cuda_options(device: str) -> dict[str, str]:
    """Options of the CUDA provider; those that are not here have good defaults.

    Args:
        device: ``cuda:N``.
    """
    return {
        "device_id": str(cuda_index(device)),
        # float32 means float32, as in an engine: TensorFloat-32, the default since Ampere, has 10 bits of mantissa.
        "use_tf32": "0",
        # The default tries the algorithms of every convolution out for each new batch size (onnxruntime issues 709 and
        # 19838), and a batch is as large as a frame has people. Since 1.20, both ask cuDNN (22705).
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def check_assignment(session: Any, failed: str, provider: str, allow_cpu_nodes: bool) -> None:
    """Hold where a session's nodes run against where they should run.

    Args:
        session: Its options went through :func:`hamr_edge.node_assignment.record_assignment`.
        failed: What is wrong if nodes run elsewhere; the message begins with it.
        provider: What should run all nodes but arithmetic on sizes.
        allow_cpu_nodes: Let nodes run elsewhere, and say so in the log.

    Raises:
        UnavailableError: Nodes run elsewhere; it names them.
    """
    nodes = assigned_nodes(session)
    strays = stray_nodes(nodes, provider)
    if not strays:
        return
    found = f"{len(strays)} of {len(nodes)} nodes run on the CPU ({name_nodes(strays)})"
    if not allow_cpu_nodes:
        raise UnavailableError(
            f"{failed}: {found}; take another precision, such as fp16, an engine or the CPU (in Python, "
            "OnnxBackend(artifact, allow_cpu_nodes=True) lets them)"
        )
    _log.warning("%s: %s; each frame waits for copies between the two", failed, found)


def rehearse(session: Any) -> None:
    """Run a session once, on zeros, with 1 for each size that is free.

    Libraries that load late, as cuDNN does, load now.
    """
    feeds: dict[str, NDArray[Any]] = {
        value.name: np.zeros([size if isinstance(size, int) else 1 for size in value.shape], input_dtype(value))
        for value in session.get_inputs()
    }
    session.run(None, feeds)


def _load_cuda_libraries(onnxruntime: Any) -> None:
    """Find CUDA and cuDNN where pip installs them, as for PyTorch; the system's are found without."""
    if not hasattr(onnxruntime, "preload_dlls"):  # before 1.21
        return
    said = StringIO()
    with redirect_stdout(said):  # it prints what it does not find, and stdout is for results
        onnxruntime.preload_dlls()
    if said.getvalue():
        _log.debug("%s", said.getvalue().strip())


def _source(model: Path | bytes) -> str | bytes:
    return model if isinstance(model, bytes) else str(model)


def _named(model: Path | bytes) -> str:
    return "the model" if isinstance(model, bytes) else str(model)
