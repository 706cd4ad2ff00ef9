"""Runs a TensorRT engine on an NVIDIA GPU, Jetson or desktop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.backend import Backend, OnDevice, check_device, cuda_index
from hamr_edge.batch_buckets import batch_buckets
from hamr_edge.boxes import check_boxes
from hamr_edge.crop_canvas import canvas_capacity, lay_out_crops
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.cuda_graphs import CudaGraphs
from hamr_edge.device_array import DeviceArray, is_device_array, read_device_array
from hamr_edge.device_embeddings import DeviceEmbeddings
from hamr_edge.engine_parts import Lane, Part, crop_parts, frame_parts
from hamr_edge.engine_preflight import check_engine, import_engine_library
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.execution_lane import ExecutionLane
from hamr_edge.lane_pool import LanePool
from hamr_edge.preprocess import check_image, crop_boxes
from hamr_edge.sidecar import load_sidecar, require_record
from hamr_edge.stage_times import StageTimes
from hamr_edge.tensorrt_engine import load_engine

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Run: TypeAlias = Callable[[LanePool, Sequence[ExecutionLane], Sequence[Part]], _T]
"""Runs parts on lanes and gives their embeddings, on the host or on the device."""
_LANES = 2
"""One computes while the input of the other travels."""


class TensorrtBackend(Backend):
    """Runs an ``.engine`` file: ``images`` -> ``embeddings``, or ``frame`` and ``boxes`` -> ``embeddings``.

    Safe to share between threads: each call takes a lane (an execution context with its own stream and buffers), or
    two where its batch must be split; with more callers than lanes the others wait.

    Args:
        artifact: The ``.engine`` file; its sidecar must lie beside it and vouch for it.
        device: ``cuda:N``, or ``auto`` for ``cuda:0``.
        threads: Of no meaning here: the GPU computes.
        lanes: Runs at once, each with memory for the largest batch.

    Raises:
        ArtifactError: The sidecar is missing or does not vouch for the file, or the engine was built for another
            TensorRT, GPU or system; the message holds the command that builds it again.
        InputError: ``device`` is none, or ``cpu``.
        UnavailableError: TensorRT, PyCUDA or the GPU is not there.
    """

    def __init__(
        self, artifact: str | Path, device: str = "auto", threads: int | None = None, lanes: int = _LANES
    ) -> None:
        del threads
        check_device(device)
        if device == "cpu":
            raise InputError(
                f"{artifact} is a TensorRT engine and runs on NVIDIA GPUs only; take the .onnx for the CPU"
            )
        if lanes < 1:
            raise InputError(f"lanes must be at least 1, got {lanes}")
        self._path = Path(artifact)
        self.sidecar = load_sidecar(artifact)
        record = require_record(self._path, self.sidecar)
        self._trt = import_engine_library(self._path, self.sidecar)
        self._gpu = CudaDevice(cuda_index(device))
        check_engine(self._path, self.sidecar, self._trt, self._gpu.compute_capability)
        self.device = f"cuda:{self._gpu.index}"
        self.name = f"{record.flavour}-cuda"
        self._profile = record.profile
        self._buckets = batch_buckets(self.sidecar.max_batch)
        self._lane_count = lanes
        self._pool: LanePool | None = None

    @property
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""
        return self._pool is not None

    def open(self) -> None:
        """Load the engine and take all device memory that runs need; a second call does nothing."""
        if self.is_open:
            return
        if unchecked := self.sidecar.parity.get("unchecked"):
            _log.warning("%s was published unchecked (%s); 'hamr-edge bench' checks it", self._path, unchecked)
        graphs = CudaGraphs.load()
        item_bytes = {"images": 1, "frame": 1, "boxes": 4}
        inputs = {name: int(np.prod(shapes[2])) * item_bytes[name] for name, shapes in self._profile.items()}
        width = self.sidecar.embedding_dim
        with self._gpu:
            loaded = load_engine(self._trt, self._path, self.sidecar)
            output = self.sidecar.max_batch * width * 4
            self._pool = LanePool(
                self._gpu,
                lambda: ExecutionLane(self._gpu, self._trt, loaded, inputs, output, graphs),
                self._lane_count,
                width,
            )

    def close(self) -> None:
        """Wait for calls that run, and give everything back; calls that wait for a lane are refused."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def infer(self, batch: NDArray[np.uint8] | OnDevice) -> NDArray[np.float32]:
        """Embed crops; see :meth:`hamr_edge.backend.Backend.infer`. They may be on this GPU already."""
        return self._infer_crops(batch, LanePool.run)

    def infer_to_device(self, batch: NDArray[np.uint8] | OnDevice) -> DeviceEmbeddings:
        """As :meth:`infer`, but the embeddings stay on the GPU."""
        return self._infer_crops(batch, LanePool.run_to_device)

    def infer_frame(self, frame: NDArray[np.uint8] | OnDevice, boxes: ArrayLike) -> NDArray[np.float32]:
        """Embed boxes of a frame; see :meth:`hamr_edge.backend.Backend.infer_frame`.

        A frame that is on this GPU already must be of a size that the engine was built for; on the host, any will do.
        """
        return self._infer_boxes(frame, boxes, LanePool.run)

    def infer_frame_to_device(self, frame: NDArray[np.uint8] | OnDevice, boxes: ArrayLike) -> DeviceEmbeddings:
        """As :meth:`infer_frame`, but the embeddings stay on the GPU."""
        return self._infer_boxes(frame, boxes, LanePool.run_to_device)

    def _infer_crops(self, batch: NDArray[np.uint8] | OnDevice, run: _Run[_T]) -> _T:
        pool = self._open_pool()
        if not is_device_array(batch):
            checked = self.check_batch(batch)
            if self.sidecar.form == "frame":
                parts = self._canvas_parts(checked)
            else:
                parts = crop_parts(np.ascontiguousarray(checked), self._buckets)
            with pool.borrow(len(parts)) as lanes:
                return run(pool, lanes, parts)
        if self.sidecar.form == "frame":
            raise InputError(
                f"{self._path.name} is in the frame form: pass it a frame and boxes, or crops on the host; crops on "
                "the GPU need an artifact in the crops form"
            )
        height, width = self.sidecar.input_size_hw
        with pool.borrow(self._lane_count) as lanes:
            array = self._read(batch, "batch", lanes)
            if array.dtype != np.uint8 or len(array.shape) != 4 or array.shape[1:] != (height, width, 3):
                raise InputError(
                    f"batch must be uint8 (N, {height}, {width}, 3) BGR, got {array.dtype} {array.shape} on the GPU"
                )
            return run(pool, lanes, crop_parts(array, self._buckets))

    def _infer_boxes(self, frame: NDArray[np.uint8] | OnDevice, boxes: ArrayLike, run: _Run[_T]) -> _T:
        pool = self._open_pool()
        self.check_frame_form()
        smallest, _, largest = (shape[:2] for shape in self._profile["frame"])
        if not is_device_array(frame):
            image = check_image(frame)
            checked = check_boxes(boxes, (image.shape[0], image.shape[1]))
            if image.shape[0] > largest[0] or image.shape[1] > largest[1]:
                return self._infer_crops(crop_boxes(image, checked, self.sidecar.input_size_hw), run)
            parts = frame_parts(image, checked, self._buckets, (smallest[0], smallest[1]))
            with pool.borrow(len(parts)) as lanes:
                return run(pool, lanes, parts)
        with pool.borrow(self._lane_count) as lanes:
            array = self._read(frame, "frame", lanes)
            if array.dtype != np.uint8 or len(array.shape) != 3 or array.shape[2] != 3:
                raise InputError(f"frame must be a (H, W, 3) uint8 BGR array, got {array.dtype} {array.shape}")
            if any(not low <= side <= high for low, side, high in zip(smallest, array.shape, largest, strict=False)):
                raise InputError(
                    f"a frame on the GPU must be from {smallest[1]} x {smallest[0]} to {largest[1]} x {largest[0]} "
                    f"pixels for this engine, got {array.shape[1]} x {array.shape[0]}; on the host, any size will do"
                )
            checked = check_boxes(boxes, (array.shape[0], array.shape[1]))
            return run(pool, lanes, frame_parts(array, checked, self._buckets, (smallest[0], smallest[1])))

    def _crop_stages(self, batch: NDArray[np.uint8]) -> StageTimes:
        return self._time_stages(crop_parts(batch, self._buckets))

    def _frame_stages(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> StageTimes:
        smallest, _, largest = (shape[:2] for shape in self._profile["frame"])
        if frame.shape[0] > largest[0] or frame.shape[1] > largest[1]:
            raise InputError(
                f"the stages of a frame are timed up to {largest[1]} x {largest[0]} pixels, which the engine crops "
                f"itself; got {frame.shape[1]} x {frame.shape[0]}"
            )
        return self._time_stages(frame_parts(frame, boxes, self._buckets, (smallest[0], smallest[1])))

    def _time_stages(self, parts: Sequence[Part]) -> StageTimes:
        pool = self._open_pool()
        with pool.borrow(1) as lanes:
            return pool.time_stages(lanes[0], parts[0])

    def _open_pool(self) -> LanePool:
        self._check_open()
        pool = self._pool
        if pool is None:  # closed by another thread since
            raise HamrEdgeError(f"{self.name} backend was closed while a call began")
        return pool

    def _canvas_parts(self, batch: NDArray[np.uint8]) -> list[Part]:
        """Ready crops for the frame form: side by side in a frame of their own."""
        limit = min(self.sidecar.max_batch, canvas_capacity(self.sidecar.input_size_hw))

        def start(first: int, lane: Lane) -> None:
            frame, boxes = lay_out_crops(batch[first : first + limit])
            smallest = self._profile["frame"][0]
            frame_parts(frame, boxes, self._buckets, (smallest[0], smallest[1]))[0].start(lane)

        return [Part(min(limit, len(batch) - first), partial(start, first)) for first in range(0, len(batch), limit)]

    def _read(self, array: OnDevice, name: str, lanes: Sequence[ExecutionLane]) -> DeviceArray:
        """Take an array that is on this GPU, for all the lanes, when what still writes to it is done."""
        first, *others = lanes
        read = read_device_array(array, name, first.stream_handle, self._gpu.index)
        if read.ready_stream is not None:
            first.wait_for_stream(read.ready_stream)
        for lane in others:
            lane.wait_for_stream(first.stream_handle)
        return read
