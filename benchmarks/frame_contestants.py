"""The two forms of one model, and the ways from a frame and its boxes to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import Backend, cuda_index
from hamr_edge.cuda_device import CudaDevice
from hamr_edge.embedder import Embedder
from hamr_edge.errors import GateError, InputError
from hamr_edge.onnx_backend import fuses_quantised
from hamr_edge.onnx_session import import_onnxruntime, open_session
from hamr_edge.preprocess import crop_boxes, pixel_windows, resize_crop
from hamr_edge.sidecar import Sidecar, load_sidecar

KINDS = ("onnx", "engine")
BARE = "bare network, crops ready"
LOOP = "crop loop, one inference a crop"
BATCH = "crops with OpenCV, one batch"
FRAME = "frame form, one call"
PLAIN_FEEDS = "bare network, plain feeds"
CROPS_ON_GPU = "bare network, crops on the GPU"
FRAME_ON_GPU = "frame form, frame on the GPU"


@dataclass(frozen=True, slots=True)
class FormPair:
    """The crops form and the frame form of one model, of one kind of file."""

    kind: str
    """One of ``KINDS``."""
    crops: Path
    frame: Path


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to the embeddings."""

    kind: str
    name: str
    backend: str
    run: Callable[[], NDArray[np.float32]]
    """Gives (N, D) float32 in host memory, in the boxes' order, when all work is done."""


def find_pairs(build: Path, precision: str | None, kinds: tuple[str, ...] = KINDS) -> list[FormPair]:
    """Look for both forms of one model in a folder, by the names that export gives them.

    Args:
        build: Folder of ``model.<precision>.onnx``, ``model.<precision>.frame.onnx`` and the like.
        precision: Which, where there are several.
        kinds: Which of ``KINDS`` to look for.

    Raises:
        InputError: There is no such folder or artifact, one form of a kind is missing, or there are several precisions
            and none was named.
    """
    if not build.is_dir():
        raise InputError(f"{build} is no folder; name the one that 'hamr-edge export CHECKPOINT -o BUILD' wrote")
    files = sorted(file for kind in kinds for file in build.glob(f"model.*.{kind}"))
    found = sorted({file.name.split(".")[1] for file in files})
    if precision is None and len(found) > 1:
        raise InputError(f"{build} holds the precisions {', '.join(found)}; choose one with --precision")
    chosen = precision or (found[0] if found else "")
    if chosen not in found:
        there = f"; it holds {', '.join(found)}" if found else ""
        wanted = f"model.{precision or '<precision>'}.{' or .'.join(kinds)}"
        raise InputError(f"{build} holds no {wanted}{there}; 'hamr-edge export CHECKPOINT -o {build}' writes one")
    pairs = []
    for kind in kinds:
        pair = FormPair(kind, build / f"model.{chosen}.{kind}", build / f"model.{chosen}.frame.{kind}")
        if not pair.crops.is_file() and not pair.frame.is_file():
            continue
        for held, missing in ((pair.crops, pair.frame), (pair.frame, pair.crops)):
            if not missing.is_file():
                raise InputError(
                    f"{build} holds {held.name} but no {missing.name}; both forms are timed: {_way(pair, missing)}"
                )
        pairs.append(pair)
    return pairs


def _way(pair: FormPair, missing: Path) -> str:
    if pair.kind == "engine":
        return (
            f"'hamr-edge export {missing.with_suffix('.onnx')} -o {missing.parent} --format engine' builds it, and "
            "--format onnx times the .onnx files alone"
        )
    precision = missing.name.split(".")[1]
    return f"'hamr-edge export CHECKPOINT -o {missing.parent} --precision {precision} --form crops,frame' writes them"


def check_pair(pair: FormPair, crops: Sidecar, frame: Sidecar, boxes: int) -> None:
    """Raise InputError unless two artifacts are the two forms of one model and take so many boxes at once."""
    for path, sidecar, form in ((pair.crops, crops, "crops"), (pair.frame, frame, "frame")):
        if sidecar.form != form:
            raise InputError(f"{path} is in the {sidecar.form} form, expected the {form} form; export it again")
        if boxes > sidecar.max_batch:
            raise InputError(
                f"{path} takes at most {sidecar.max_batch} boxes at once, got --boxes {boxes}; take --boxes "
                f"{sidecar.max_batch}, or export with a larger --batch"
            )
    for what, of_crops, of_frame in (
        ("precision", crops.precision, frame.precision),
        ("input size", crops.input_size_hw, frame.input_size_hw),
        ("embedding width", crops.embedding_dim, frame.embedding_dim),
    ):
        if of_crops != of_frame:
            raise InputError(
                f"{pair.crops} and {pair.frame} are not of one model: {what} {of_crops} and {of_frame}; export both "
                "forms in one call with --form crops,frame"
            )
    sources = [_checkpoint_of(path, sidecar) for path, sidecar in ((pair.crops, crops), (pair.frame, frame))]
    if None not in sources and sources[0] != sources[1]:
        raise InputError(
            f"{pair.crops} and {pair.frame} are made of two checkpoints: {str(sources[0])[:12]}... and "
            f"{str(sources[1])[:12]}...; export both forms of one checkpoint in one call with --form crops,frame"
        )


def _checkpoint_of(path: Path, sidecar: Sidecar) -> str | None:
    """Hash of the checkpoint; None of an engine that does not say, and whose .onnx is not beside it."""
    if path.suffix != ".engine":
        return sidecar.source_sha256
    if sidecar.engine is not None and sidecar.engine.checkpoint_sha256:
        return sidecar.engine.checkpoint_sha256
    onnx = path.with_suffix(".onnx")
    if not onnx.is_file():
        return None
    source = load_sidecar(onnx)
    if source.artifact_sha256 != sidecar.source_sha256:
        raise InputError(
            f"{path} was not built from the {onnx.name} beside it; build it again with 'hamr-edge export {onnx} -o "
            f"{path.parent} --format engine'"
        )
    return source.source_sha256


def host_contestants(
    kind: str, crops: Backend, frame_form: Backend, frame: NDArray[np.uint8], boxes: NDArray[np.float32]
) -> list[Contestant]:
    """The four ways from a frame in host memory; both backends are open.

    Args:
        kind: One of ``KINDS``.
        crops: Of the artifact in the crops form.
        frame_form: Of the artifact in the frame form.
        frame: (H, W, 3) uint8 BGR.
        boxes: (N, 4) xyxy pixels, no more than a batch may have.
    """
    size_hw = crops.sidecar.input_size_hw
    ready = crop_boxes(frame, boxes, size_hw)
    one_batch, one_call = Embedder(crops), Embedder(frame_form)

    def loop() -> NDArray[np.float32]:
        windows = pixel_windows(boxes, (frame.shape[0], frame.shape[1])).tolist()
        return np.concatenate(
            [crops.infer(resize_crop(frame[y1:y2, x1:x2], size_hw)[None]) for x1, y1, x2, y2 in windows]
        )

    return [
        Contestant(kind, BARE, crops.name, lambda: crops.infer(ready)),
        Contestant(kind, LOOP, crops.name, loop),
        Contestant(kind, BATCH, crops.name, lambda: one_batch.embed(frame, boxes)),
        Contestant(kind, FRAME, frame_form.name, lambda: one_call.embed(frame, boxes)),
    ]


def gpu_contestants(
    pair: FormPair,
    crops: Backend,
    frame_form: Backend,
    frame: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    stack: ExitStack,
) -> list[Contestant]:
    """The ways that start on the GPU, and ONNX Runtime's plain feeds; arguments as :func:`host_contestants`.

    Args:
        pair: The artifacts' files.
        crops: See there.
        frame_form: See there.
        frame: See there.
        boxes: See there.
        stack: Gives the memory back at its end.
    """
    ready = crop_boxes(frame, boxes, crops.sidecar.input_size_hw)
    if pair.kind == "engine":
        gpu = CudaDevice(cuda_index(crops.device))
        crops_copy, frame_copy = (stack.enter_context(DeviceCopy(gpu, array)) for array in (ready, frame))
        return [
            Contestant(pair.kind, CROPS_ON_GPU, crops.name, lambda: crops.infer(crops_copy.array)),
            Contestant(
                pair.kind, FRAME_ON_GPU, frame_form.name, lambda: frame_form.infer_frame(frame_copy.array, boxes)
            ),
        ]
    device, fuse = crops.device, fuses_quantised(crops.sidecar)
    crops_session, _ = open_session(pair.crops, device, fuse_quantised=fuse)
    frame_session, _ = open_session(pair.frame, device, fuse_quantised=fuse)
    feeds: dict[str, NDArray[Any]] = {"frame": frame, "boxes": boxes}
    return [
        Contestant(pair.kind, PLAIN_FEEDS, crops.name, lambda: _plain_run(crops_session, {"images": ready})),
        Contestant(pair.kind, CROPS_ON_GPU, crops.name, bind_inputs(crops_session, device, {"images": ready})),
        Contestant(pair.kind, FRAME_ON_GPU, frame_form.name, bind_inputs(frame_session, device, feeds)),
    ]


def check_agreement(contestants: Sequence[Contestant], least: float) -> list[NDArray[np.float64]]:
    """Hold each contestant's embeddings against the crop loop's of its kind.

    Args:
        contestants: With the crop loop of each kind.
        least: Cosine that every box must have.

    Returns:
        (N,) cosines of each.

    Raises:
        GateError: A cosine is lower, or no number: times of ways that disagree say nothing.
    """
    found = {(way.kind, way.name): way.run().astype(np.float64) for way in contestants}
    cosines = []
    for way in contestants:
        own, expected = found[way.kind, way.name], found[way.kind, LOOP]
        cosine = np.sum(own * expected, axis=1) / (np.linalg.norm(own, axis=1) * np.linalg.norm(expected, axis=1))
        if not cosine.min() >= least:
            raise GateError(
                f"{way.kind}: box {int(np.argmin(cosine))} has cosine {cosine.min():.6f} between '{way.name}' and "
                f"'{LOOP}', expected {least:g} or more (--min-cosine); nothing was "
                "timed: export both forms in one call, or find out with 'hamr-edge bench' which of them is wrong"
            )
        cosines.append(cosine)
    return cosines


def bind_inputs(session: Any, device: str, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], NDArray[np.float32]]:
    """Put inputs on a device once; what comes back runs an ONNX Runtime session on them, embeddings to the host."""
    value_type = import_onnxruntime().OrtValue
    name, _, index = device.partition(":")
    binding = session.io_binding()
    for feed, array in feeds.items():
        binding.bind_ortvalue_input(feed, value_type.ortvalue_from_numpy(array, name, int(index or 0)))
    binding.bind_output("embeddings", "cpu")

    def run() -> NDArray[np.float32]:
        session.run_with_iobinding(binding)
        embeddings: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        return embeddings

    return run


def _plain_run(session: Any, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    embeddings: NDArray[np.float32] = session.run(["embeddings"], feeds)[0]
    return embeddings


class DeviceCopy:
    """A copy of a host array in a GPU's memory; ``array`` offers it by the CUDA array interface, version 3."""

    def __init__(self, gpu: CudaDevice, source: NDArray[np.uint8]) -> None:
        self._gpu, self._source = gpu, np.ascontiguousarray(source)
        self._memory: Any = None

    def __enter__(self) -> DeviceCopy:
        with self._gpu:
            self._memory = self._gpu.driver.mem_alloc(self._source.nbytes)
            self._gpu.driver.memcpy_htod(self._memory, self._source)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._gpu:
            self._memory.free()

    @property
    def array(self) -> Any:
        """What an engine takes."""
        return _Shared(self._source.shape, int(self._memory))


class _Shared:
    def __init__(self, shape: tuple[int, ...], pointer: int) -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": "|u1", "data": (pointer, False), "version": 3}
