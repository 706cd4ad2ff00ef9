"""One GPU through PyCUDA, on its primary context: the one that PyTorch and ONNX Runtime use too."""

from __future__ import annotations

import atexit
import threading
from importlib import import_module
from types import TracebackType
from typing import Any

from hamr_edge.errors import UnavailableError

_contexts: dict[int, Any] = {}
"""The primary contexts that this process holds, by device. Held until it ends, as NVIDIA's own runtime holds them:
PyCUDA lets a context go only in the thread that took it."""
_lock = threading.Lock()


@atexit.register
def _release_contexts() -> None:
    """Let them go by hand: PyCUDA's destructor would release a primary context as if it were an ordinary one."""
    while _contexts:
        _contexts.popitem()[1].detach()


class CudaDevice:
    """A GPU whose primary context is current inside a ``with`` statement, in any thread, nested or not.

    Whatever PyCUDA makes (memory, streams, events) must be made, used and freed inside: outside of it, or in a thread
    where the context is not current, PyCUDA leaks what it should free.

    Attributes:
        driver: ``pycuda.driver``.
        index: The number behind ``cuda:``.
        name: As NVIDIA calls it.
        compute_capability: ``8.7``.
        integrated: True where the GPU shares the host's memory, as on a Jetson.

    Raises:
        UnavailableError: PyCUDA, a driver or the device is not there.
    """

    def __init__(self, index: int = 0) -> None:
        self.driver = import_pycuda()
        self.index = index
        try:
            self.driver.init()
            count = self.driver.Device.count()
        except Exception as error:  # PyCUDA's own types, which live in the module
            raise UnavailableError(
                f"cuda:{index} was asked for, but CUDA does not start: {error}; check the driver with nvidia-smi"
            ) from error
        if index >= count:
            raise UnavailableError(f"cuda:{index} was asked for, but the driver sees {count} GPUs, counted from 0")
        device = self.driver.Device(index)
        self.name = str(device.name())
        self.compute_capability = ".".join(map(str, device.compute_capability()))
        self.integrated = bool(device.get_attribute(self.driver.device_attribute.INTEGRATED))
        with _lock:
            if index not in _contexts:
                _contexts[index] = device.retain_primary_context()
            self._context = _contexts[index]

    def __enter__(self) -> CudaDevice:
        self._context.push()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.driver.Context.pop()

    def free_bytes(self) -> int:
        """Memory that the driver would still give out."""
        with self:
            return int(self.driver.mem_get_info()[0])


def import_pycuda() -> Any:
    """``pycuda.driver``, which makes no context when it is imported.

    Raises:
        UnavailableError: It is not installed or does not load.
    """
    try:
        return import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "PyCUDA is not installed; pip install 'hamr-edge[tensorrt]' (it is compiled on the spot and needs the "
            f"CUDA toolkit with nvcc): {error}"
        ) from error
    except (ImportError, OSError) as error:
        raise UnavailableError(f"PyCUDA is installed but does not load: {error}") from error
