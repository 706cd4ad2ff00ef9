"""Embeddings that stay on the GPU, and how other libraries get at them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hamr_edge.dlpack import CUDA, make_capsule
from hamr_edge.errors import HamrEdgeError


class _Memory:
    """Device memory, given back once: when the last that refers to it goes."""

    def __init__(self, pointer: int, free: Callable[[], None], to_host: Callable[[], NDArray[np.float32]]) -> None:
        self.pointer = pointer
        self.to_host = to_host
        # Not while the interpreter ends: another library may still read then, and the driver takes all back anyway.
        weakref.finalize(self, free).atexit = False


class DeviceEmbeddings:
    """Embeddings in the memory of a GPU: (N, D) float32, rows of unit L2 norm, complete and in C order.

    ``torch.from_dlpack(embeddings)``, or that of another library, uses the memory without a copy and keeps it; it is
    given back when the last of them, and this object, is gone. What reads through ``__cuda_array_interface__`` must
    not do so after :meth:`release`.

    Args:
        pointer: Address in device memory.
        shape: (N, D).
        device_index: The number behind ``cuda:``.
        free: Gives the memory back; called once, in any thread.
        to_host: Copies it into a new (N, D) float32 array.
        device_kind: As DLPack counts them.
    """

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, int],
        device_index: int,
        free: Callable[[], None],
        to_host: Callable[[], NDArray[np.float32]],
        device_kind: int = CUDA,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.float32)
        self._device = (device_kind, device_index)
        self._memory: _Memory | None = _Memory(pointer, free, to_host)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        released = ", released" if self._memory is None else ""
        return f"DeviceEmbeddings(shape={self.shape}, device='cuda:{self._device[1]}'{released})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; no stream, as the embeddings are complete."""
        pointer = self._held().pointer
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (0 if 0 in self.shape else pointer, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device."""
        return self._device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule that shares the memory and keeps it.

        Args:
            stream: Has nothing to wait for: the embeddings are complete.
            max_version: The newest DLPack that the caller reads.
            dl_device: Where the caller wants it; only where it is.
            copy: True is refused.

        Raises:
            BufferError: Another device or a copy is asked for.
            HamrEdgeError: They were released.
        """
        memory = self._held()
        if copy or (dl_device is not None and tuple(map(int, dl_device)) != self._device):
            raise BufferError(
                f"embeddings on cuda:{self._device[1]} are shared as they are, without a copy; numpy() copies them to "
                "the host"
            )
        versioned = max_version is not None and max_version[0] >= 1
        return make_capsule(memory.pointer, self.shape, memory, self._device, versioned)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        """Refused: numpy would copy unasked.

        Raises:
            HamrEdgeError: Always.
        """
        raise HamrEdgeError(f"embeddings on cuda:{self._device[1]} are no numpy array; numpy() copies them to the host")

    def __reduce__(self) -> NoReturn:
        """Refused: a copy or a pickle would hold the address, but not the memory.

        Raises:
            HamrEdgeError: Always.
        """
        raise HamrEdgeError("embeddings on a GPU are neither copied nor pickled; numpy() copies them to the host")

    def numpy(self) -> NDArray[np.float32]:
        """A copy on the host: (N, D) float32; the caller owns it.

        Raises:
            HamrEdgeError: They were released.
        """
        return self._held().to_host()

    def to_host(self) -> NDArray[np.float32]:
        """As :meth:`numpy`."""
        return self.numpy()

    def release(self) -> None:
        """Let go of the memory now; a second call does nothing. Arrays made by DLPack stay valid."""
        self._memory = None

    def _held(self) -> _Memory:
        memory = self._memory
        if memory is None:
            raise HamrEdgeError("these embeddings were released; use them before release(), or embed again")
        return memory
