"""The contract that every backend keeps, and the one place that chooses a backend for an artifact."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hamr_edge.boxes import check_boxes
from hamr_edge.crop_canvas import canvas_capacity, lay_out_crops
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.openable import Openable
from hamr_edge.preprocess import check_image, device_array_hint
from hamr_edge.sidecar import Sidecar, sidecar_path
from hamr_edge.stage_times import StageTimes, time_compute

if TYPE_CHECKING:
    from hamr_edge.device_embeddings import DeviceEmbeddings


class _Dlpack(Protocol):
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


class _CudaArray(Protocol):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


OnDevice: TypeAlias = _Dlpack | _CudaArray
"""An array on a GPU, of PyTorch, CuPy, Numba or another library that shares arrays."""


class Backend(Openable):
    """Runs one artifact on one device. A context manager: building it is cheap, device memory is taken on entry.

    Attributes:
        sidecar: What is known about the artifact.
        name: Library and device, as reports show them: ``onnxruntime-cpu``.
        device: The device in use, ``cpu`` or ``cuda:0``.
    """

    sidecar: Sidecar
    name: str
    device: str

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """True between :meth:`open` and :meth:`close`."""

    def _infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a checked, contiguous batch of 1 to ``max_batch`` crops; only called in the ``crops`` form."""
        raise NotImplementedError(f"{self.name} has no crops form")

    def _infer_frame(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed 1 to ``max_batch`` checked boxes of a contiguous frame; only called in the ``frame`` form."""
        raise NotImplementedError(f"{self.name} has no frame form")

    def _crop_stages(self, batch: NDArray[np.uint8]) -> StageTimes:
        """Time :meth:`_infer`; a backend that sends data to a device tells the ways from the work."""
        return time_compute(lambda: self._infer(batch))

    def _frame_stages(self, frame: NDArray[np.uint8], boxes: NDArray[np.float32]) -> StageTimes:
        """Time :meth:`_infer_frame`, as :meth:`_crop_stages`."""
        return time_compute(lambda: self._infer_frame(frame, boxes))

    def infer(self, batch: NDArray[np.uint8] | OnDevice) -> NDArray[np.float32]:
        """Embed crops.

        An artifact in the ``frame`` form gets them side by side in one frame, where it reads each pixel as it is.

        Args:
            batch: (N, H, W, 3) uint8 BGR crops of the sidecar's ``input_size_hw``. Any N: none gives (0, D), more than
                the maximum batch is split.

        Returns:
            (N, D) float32, rows of unit L2 norm; the caller owns it.

        Raises:
            InputError: Wrong type, dtype or shape.
            HamrEdgeError: The backend is not open.
        """
        self._check_open()
        checked = self.check_batch(batch)
        limit = self.sidecar.max_batch
        if self.sidecar.form == "frame":
            limit = min(limit, canvas_capacity(self.sidecar.input_size_hw))
            return self._split(checked, limit, lambda part: self._infer_frame(*lay_out_crops(part)))
        return self._split(np.ascontiguousarray(checked), limit, self._infer)

    def infer_frame(self, frame: NDArray[np.uint8] | OnDevice, boxes: ArrayLike) -> NDArray[np.float32]:
        """Embed boxes of a frame, cropped and resized by the artifact itself; it must be in the ``frame`` form.

        Args:
            frame: (H, W, 3) uint8 BGR.
            boxes: (N, 4) xyxy pixels; partly outside the frame is clipped. Any N, as :meth:`infer`.

        Returns:
            (N, D) float32, rows of unit L2 norm in the boxes' order; the caller owns it.

        Raises:
            InputError: The artifact is in the ``crops`` form, or the frame or a box is not as expected; the message
                names the row.
            HamrEdgeError: The backend is not open.
        """
        self._check_open()
        self.check_frame_form()
        whole = np.ascontiguousarray(check_image(frame))
        checked = check_boxes(boxes, (whole.shape[0], whole.shape[1]))
        return self._split(checked, self.sidecar.max_batch, lambda part: self._infer_frame(whole, part))

    def infer_stages(self, batch: NDArray[np.uint8]) -> StageTimes:
        """Time the parts of one inference of ready crops.

        The result is thrown away. Each part is waited for before the next begins, so their sum is somewhat more than
        :meth:`infer` takes. Times of the first calls are those of a warm-up.

        Args:
            batch: As :meth:`infer`, 1 to ``max_batch`` crops, in host memory.

        Raises:
            InputError: Wrong type, dtype or shape, or no crop, or more than run at once.
            HamrEdgeError: The backend is not open.
        """
        self._check_open()
        checked = np.ascontiguousarray(self.check_batch(batch))
        limit = self.sidecar.max_batch
        if self.sidecar.form == "frame":
            self._check_one_run(len(checked), min(limit, canvas_capacity(self.sidecar.input_size_hw)))
            return self._frame_stages(*lay_out_crops(checked))
        self._check_one_run(len(checked), limit)
        return self._crop_stages(checked)

    def infer_frame_stages(self, frame: NDArray[np.uint8], boxes: ArrayLike) -> StageTimes:
        """Time the parts of one inference of a frame's boxes, as :meth:`infer_stages`.

        Args:
            frame: As :meth:`infer_frame`, in host memory.
            boxes: 1 to ``max_batch``.

        Raises:
            InputError: As :meth:`infer_frame`, or no box, or more than run at once.
            HamrEdgeError: The backend is not open.
        """
        self._check_open()
        self.check_frame_form()
        whole = np.ascontiguousarray(check_image(frame))
        checked = check_boxes(boxes, (whole.shape[0], whole.shape[1]))
        self._check_one_run(len(checked), self.sidecar.max_batch)
        return self._frame_stages(whole, checked)

    def infer_to_device(self, batch: NDArray[np.uint8] | OnDevice) -> DeviceEmbeddings:  # noqa: ARG002
        """As :meth:`infer`, but the embeddings stay on the GPU; engines alone can do that.

        Raises:
            InputError: This backend gives embeddings on the host.
        """
        raise self._keeps_on_host()

    def infer_frame_to_device(
        self,
        frame: NDArray[np.uint8] | OnDevice,  # noqa: ARG002
        boxes: ArrayLike,  # noqa: ARG002
    ) -> DeviceEmbeddings:
        """As :meth:`infer_frame`, but the embeddings stay on the GPU; engines alone can do that.

        Raises:
            InputError: This backend gives embeddings on the host.
        """
        raise self._keeps_on_host()

    def check_batch(self, batch: object) -> NDArray[np.uint8]:
        """Raise InputError unless ``batch`` is (N, H, W, 3) uint8 crops of the sidecar's ``input_size_hw``."""
        height, width = self.sidecar.input_size_hw
        expected = f"batch must be uint8 (N, {height}, {width}, 3) BGR"
        if not isinstance(batch, np.ndarray):
            raise InputError(f"{expected}, got {type(batch).__name__}{device_array_hint(batch)}")
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (height, width, 3):
            hint = "; a single crop is crop[None]" if batch.shape == (height, width, 3) else ""
            raise InputError(f"{expected}, got {batch.dtype} {batch.shape}{hint}")
        return batch

    def check_frame_form(self) -> None:
        """Raise InputError unless the artifact crops and resizes itself."""
        if self.sidecar.form != "frame":
            raise InputError(
                f"infer_frame needs an artifact in the frame form, this one is in the {self.sidecar.form} form; use "
                "Embedder.embed(frame, boxes), which crops for it, or an artifact of 'hamr-edge export --form frame'"
            )

    def _check_one_run(self, count: int, limit: int) -> None:
        if not 1 <= count <= limit:
            raise InputError(f"the stages of one run are timed, of 1 to {limit} crops; got {count}")

    def _keeps_on_host(self) -> InputError:
        return InputError(f"embeddings stay on the GPU with .engine artifacts only; this one runs on {self.name}")

    def _check_open(self) -> None:
        if not self.is_open:
            raise HamrEdgeError(f"{self.name} backend is not open; use 'with open_backend(...) as backend:' or .open()")

    def _split(
        self, items: NDArray[Any], limit: int, embed: Callable[[NDArray[Any]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Embed crops or boxes, at most ``limit`` at once."""
        if 0 < len(items) <= limit:
            return embed(items)
        embeddings = np.empty((len(items), self.sidecar.embedding_dim), np.float32)
        for start in range(0, len(items), limit):
            embeddings[start : start + limit] = embed(items[start : start + limit])
        return embeddings


def check_device(device: str) -> None:
    """Raise InputError unless ``device`` is ``auto``, ``cpu`` or ``cuda:N``."""
    if device not in ("auto", "cpu") and not (device.startswith("cuda:") and device[5:].isdecimal()):
        raise InputError(f"device must be auto, cpu or cuda:N, got {device!r}")


def cuda_index(device: str) -> int:
    """The number of the GPU that a checked ``auto`` or ``cuda:N`` names; ``auto`` is the first."""
    return 0 if device == "auto" else int(device.removeprefix("cuda:"))


_TENSORRT = "hamr_edge.tensorrt_backend:TensorrtBackend"
_ONNX = "hamr_edge.onnx_backend:OnnxBackend"
_FOREIGN_ONNX = "hamr_edge.foreign_onnx:ForeignOnnxBackend"
_PYTORCH = "hamr_edge.trainer.torch_backend:TorchBackend"


def open_backend(
    artifact: str | Path,
    device: str = "auto",
    threads: int | None = None,
    *,
    mode: str | None = None,
    input_description: str | None = None,
) -> Backend:
    """Choose the backend for an artifact. The libraries it needs are imported here, not before.

    Args:
        artifact: ``.onnx`` file (ONNX Runtime), ``.engine`` file (TensorRT), or checkpoint folder (PyTorch, the
            reference).
        device: ``cpu``, ``cuda:0`` or ``auto`` (a GPU where one works, else the CPU; ``backend.device`` says which).
        threads: CPU threads of one inference; the library's default when None.
        mode: How PyTorch runs a checkpoint: ``bf16``, ``fp16``, ``compile`` or some joined by ``+``; plainly when None.
        input_description: What an ``.onnx`` file of others takes, such as ``rgb-float-imagenet``: see
            :func:`hamr_edge.input_description.parse_input_description`. One with a sidecar goes by that.

    Returns:
        A backend that is not open yet: use it in a ``with`` statement.

    Raises:
        InputError: The artifact is of no known kind, ``device`` is not a device, or an option is for another kind.
        ArtifactError: The artifact's sidecar is missing or wrong, or a model of others is not as described.
        UnavailableError: A library or the device asked for is not there.
    """
    path = Path(artifact)
    check_device(device)
    if path.is_dir():
        target = _PYTORCH
    elif path.suffix == ".onnx":
        target = _ONNX if input_description is None or sidecar_path(path).is_file() else _FOREIGN_ONNX
    elif path.suffix == ".engine":
        target = _TENSORRT
    elif not path.exists():
        raise InputError(f"model {path} is not there; expected an .onnx or .engine file or a checkpoint folder")
    else:
        raise InputError(f"model {path} is of no known kind; expected an .onnx or .engine file or a checkpoint folder")
    options: dict[str, Any] = {}
    if mode is not None:
        if target != _PYTORCH:
            raise InputError(f"mode {mode!r} is for checkpoint folders, which PyTorch runs; {path} is none")
        options["mode"] = mode
    if input_description is not None:
        if path.suffix != ".onnx" or target == _PYTORCH:
            raise InputError(f"the input {input_description!r} can be described of .onnx files only; {path} is none")
        if target == _FOREIGN_ONNX:
            options["description"] = input_description
    module_name, class_name = target.split(":")
    factory: Any = getattr(import_module(module_name), class_name)
    backend: Backend = factory(path, device=device, threads=threads, **options)
    return backend
