"""ONNX Runtime sessions on the device asked for, and on no other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hamr_edge.backend import check_device
from hamr_edge.errors import InputError, UnavailableError

_log = logging.getLogger(__name__)
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


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


def open_session(
    model: Path | bytes, device: str, threads: int | None = None, spin: bool = True, fuse_quantised: bool = True
) -> tuple[Any, str]:
    """Load a model.

    Args:
        model: ``.onnx`` file, or what such a file holds.
        device: ``cpu``, ``cuda:N`` or ``auto``; only ``auto`` may fall back to the CPU, and says so in the log.
        threads: CPU threads of one inference; ONNX Runtime's default when None.
        spin: Let threads wait in a loop for the next inference: faster alone, slower beside others that compute.
        fuse_quantised: Let ONNX Runtime make integer kernels of Q/DQ. Without it, Q/DQ rounds as it says and products
            are float, as TensorRT's are but for the order of sums.

    Returns:
        The session, and the device it runs on.

    Raises:
        InputError: The file is not a model that ONNX Runtime can load.
        UnavailableError: ONNX Runtime or the device is not there.
    """
    chosen = resolve_device(device)
    try:
        return _create_session(model, chosen, threads, spin, fuse_quantised), chosen
    except UnavailableError as error:
        if device != "auto":
            raise
        _log.warning("%s; using the CPU", error)
        return _create_session(model, "cpu", threads, spin, fuse_quantised), "cpu"


def _create_session(model: Path | bytes, device: str, threads: int | None, spin: bool, fuse_quantised: bool) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not fuse_quantised:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    named, source = ("the model", model) if isinstance(model, bytes) else (model, str(model))
    if device == "cpu":
        try:
            return onnxruntime.InferenceSession(source, options, providers=[_CPU])
        except Exception as error:  # ONNX Runtime raises its own types, and RuntimeError
            raise InputError(f"{named} cannot be loaded by ONNX Runtime: {error}") from error
    # Without this, a CUDA library that does not load is a warning and the whole graph runs on the CPU.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = (_CUDA, {"device_id": device.split(":")[1]})
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[provider])
    except Exception as error:
        raise UnavailableError(f"{device} cannot run {named}: {error}") from error
    if session.get_providers()[0] != _CUDA:
        raise UnavailableError(
            f"{device} was asked for, but ONNX Runtime chose {session.get_providers()}; its CUDA or cuDNN "
            "libraries did not load ('hamr-edge doctor' says more)"
        )
    return session
