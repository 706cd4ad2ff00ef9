"""The bindings of TensorRT: which are there, which flavour they are, and what the library says when it says no.

They are handed on as ``trt``. TensorRT 10.3 or later, 11, and TensorRT for RTX have the same classes; what one may lack
is asked for with ``hasattr``, and no enum is written as a number, since TensorRT 11 counts them anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hamr_edge.engine_record import TENSORRT, TENSORRT_RTX
from hamr_edge.errors import UnavailableError

MODULES = {TENSORRT: ("tensorrt",), TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Modules of each flavour, the one wanted most first; the last is what the wheels of the extra ``rtx`` bring."""
EVERY_MODULE = tuple(name for names in MODULES.values() for name in names)
_loggers: dict[Any, Any] = {}
_NO_GPU = ("CUDA driver version is insufficient", "no CUDA-capable device")
"""In complaints that follow every other one where there is no GPU."""


def import_tensorrt(names: Sequence[str] = EVERY_MODULE) -> Any:
    """Import the first of the modules that is installed.

    Args:
        names: Modules to try, in this order. One that is there but does not load is an error, not passed over.

    Raises:
        UnavailableError: None is installed, or one does not load.
    """
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise UnavailableError(f"{name} lacks {error.name}; reinstall it: {error}") from error
        except (ImportError, OSError) as error:
            raise UnavailableError(f"{name} is installed but does not load: {error}") from error
    raise UnavailableError(
        f"TensorRT is not installed (tried {', '.join(names)}); pip install 'hamr-edge[tensorrt]' to build for this "
        "machine's GPU, or 'hamr-edge[rtx]' for TensorRT for RTX, which also builds without a GPU"
    )


def flavour_of(trt: Any) -> str:
    """``tensorrt`` or ``tensorrt-rtx``."""
    return TENSORRT_RTX if "rtx" in trt.__name__ else TENSORRT


def collecting_logger(trt: Any) -> Any:
    """The logger of these bindings, which keeps errors in ``errors``, for the message of an exception.

    One for the whole process, and never given back: the library writes to the first logger it was ever given, also for
    builders and runtimes that were given another, and ends the process where that one is gone.
    """
    if trt.ILogger in _loggers:
        return _loggers[trt.ILogger]

    class CollectingLogger(trt.ILogger):  # type: ignore[misc]  # the module is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message.strip())

    return _loggers.setdefault(trt.ILogger, CollectingLogger())


def words_of(logger: Any, otherwise: str = "it gives no reason") -> str:
    """What the library logged since ``logger.errors`` was cleared, each once."""
    return "; ".join(relevant(logger.errors)) or otherwise


def relevant(errors: Sequence[str]) -> list[str]:
    """Each error once; that there is no GPU only where it is the only one."""
    once = list(dict.fromkeys(errors))
    return [words for words in once if not any(lack in words for lack in _NO_GPU)] or once
