"""Runs an ONNX Runtime session on buffers that stay on its device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.onnx_session import import_onnxruntime, input_dtype
from hamr_edge.stage_times import StageTimes, time_steps

_OUTPUT = "embeddings"


class BoundSession:
    """A session with a buffer on its device for each input and for its output, taken once, for the largest batch.

    The buffer of a frame has the size of the largest frame seen so far. Threads take turns, as the buffers are shared.

    Args:
        session: Gives ``embeddings``, float32 (N, D). Inputs whose rows are of fixed size have N rows.
        device: ``cpu`` or ``cuda:N``, where the session runs.
        max_batch: Largest N.
        embedding_dim: D.
    """

    def __init__(self, session: Any, device: str, max_batch: int, embedding_dim: int) -> None:
        kind, _, index = device.partition(":")
        self._place = (kind, int(index or 0))
        self._session = session
        self._binding = session.io_binding()
        self._viewer = session.io_binding()
        self._embedding_dim = embedding_dim
        self._output = _DeviceBuffer(*self._place)
        self._output.at_least(max_batch * embedding_dim * 4)
        self._inputs = {value.name: _DeviceBuffer(*self._place) for value in session.get_inputs()}
        for value in session.get_inputs():
            row = value.shape[1:]
            if all(isinstance(size, int) for size in row):
                self._inputs[value.name].at_least(max_batch * int(np.prod(row)) * input_dtype(value).itemsize)
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.float32]:
        """Embed.

        Args:
            feeds: A contiguous array in host memory for each input, of the input's dtype.
            rows: How many embeddings that gives, at most the maximum batch.

        Returns:
            (rows, D) float32 in host memory; the caller owns it.
        """
        with self._lock:
            self._bind(feeds, rows)
            self._compute()
            return self._download()

    def run_stages(self, feeds: Mapping[str, NDArray[Any]], rows: int) -> StageTimes:
        """Time the parts of :meth:`run`."""

        def upload() -> None:
            self._bind(feeds, rows)
            self._binding.synchronize_inputs()

        with self._lock:
            return time_steps(upload, self._compute, self._download)

    def _bind(self, feeds: Mapping[str, NDArray[Any]], rows: int) -> None:
        """Send the inputs, and say where the output goes."""
        for name, array in feeds.items():
            self._binding.bind_ortvalue_input(name, self._upload(name, array))
        shape = (rows, self._embedding_dim)
        address = self._output.at_least(rows * self._embedding_dim * 4)
        self._binding.bind_output(_OUTPUT, *self._place, np.float32, shape, address)

    def _compute(self) -> None:
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def _download(self) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = self._binding.copy_outputs_to_cpu()[0]
        return embeddings

    def _upload(self, name: str, array: NDArray[Any]) -> Any:
        """Copy an array to the front of its buffer, and nothing behind it: an ``OrtValue`` of the array's shape.

        ONNX Runtime copies arrays into an ``OrtValue`` of the same size only, and makes none of a part of another. But
        a binding makes one of any address and shape, and gives it back before it has run.
        """
        address = self._inputs[name].at_least(array.nbytes)
        self._viewer.bind_output(_OUTPUT, *self._place, array.dtype.type, array.shape, address)
        view = self._viewer.get_outputs()[0]
        view.update_inplace(array)
        return view


class _DeviceBuffer:
    """Memory on a device that grows to what is asked for and does not shrink."""

    def __init__(self, kind: str, index: int) -> None:
        self._place = (kind, index)
        self._memory: Any = None
        self._bytes = 0

    def at_least(self, size_bytes: int) -> int:
        """The address of at least so many bytes; what was in them is lost if the buffer grows."""
        if self._memory is None or size_bytes > self._bytes:
            self._memory = None  # given back before more is taken
            make = import_onnxruntime().OrtValue.ortvalue_from_shape_and_type
            self._memory = make((size_bytes,), np.uint8, *self._place)
            self._bytes = size_bytes
        return int(self._memory.data_ptr())
