"""Artifacts for the tools of others: the input that each of them feeds, checked and described as any artifact is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hamr_edge.backend import open_backend
from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import InputError
from hamr_edge.export.check_source import choose_check_crops
from hamr_edge.export.input_head import write_float_form
from hamr_edge.export.publish import SourceEmbeddings, publish
from hamr_edge.onnx_session import open_session
from hamr_edge.preprocess import stack_crops
from hamr_edge.sidecar import Sidecar, load_sidecar

_SAME_RESIZE_COSINE = 0.9999
_OTHER_RESIZE_COSINE = 0.995
"""Of the graph's own resize with OpenCV's: it does not round to whole pixels in between."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What a tool feeds: float32 (N, 3, H, W) RGB."""

    pixels: str
    """``255`` or ``unit``: the word of :func:`hamr_edge.input_description.parse_input_description`."""
    scale: float
    precisions: tuple[str, ...]
    resized_by: str
    """Whose resizing the measured difference is of."""
    is_square: bool = False


FLOAT_PRESETS = {
    "deepstream": Preset("255", 1.0, ("fp32", "fp16"), "a stand-in for DeepStream's own resizing: bilinear, unrounded"),
    "ultralytics": Preset("unit", 255.0, ("fp32", "fp16", "int8-cpu"), "as ultralytics resizes: bilinear, unrounded"),
    "ultralytics-square": Preset(
        "unit", 255.0, ("fp32", "fp16", "int8-cpu"), "as ultralytics resizes: bilinear, unrounded, to a square", True
    ),
}


@dataclass(frozen=True, slots=True)
class ResizeDifference:
    """Cosines of crops' embeddings between a preset, fed as its tool resizes, and the plain artifact."""

    crops: int
    mean: float
    p01: float
    lowest: float


def export_preset(
    artifact: Path, output: Path, preset: str, dataset: ReidDataset | None = None, seed: int = 0
) -> tuple[Path, Sidecar, ResizeDifference]:
    """Give a plain artifact the input of a preset, hold every row against it, publish.

    Args:
        artifact: ``.onnx`` in the crops form, with its sidecar.
        output: Folder for ``<name>.<preset>.onnx`` and its sidecar.
        preset: Of :data:`FLOAT_PRESETS`.
        dataset: Crops for the check; drawn figures without one.
        seed: Chooses the crops.

    Returns:
        The artifact, its sidecar, and how far the tool's own resizing of whole crops leads away from ours.

    Raises:
        InputError: The artifact is of another form, or of a precision that the tool cannot run.
        GateError: A row disagrees with the plain artifact; nothing was published.
    """
    artifact = Path(artifact)
    sidecar, wanted = load_sidecar(artifact), FLOAT_PRESETS[preset]
    check_preset(artifact, sidecar, preset)
    own_hw = sidecar.input_size_hw
    size_hw = (own_hw[0], own_hw[0]) if wanted.is_square else own_hw
    images, names = choose_check_crops(dataset, sidecar.max_batch, seed)
    crops = stack_crops(images, size_hw)
    with open_backend(artifact, "cpu") as plain:
        embeddings = plain.infer(crops if size_hw == own_hw else stack_crops(list(crops), own_hw))
        whole = plain.infer(stack_crops(images, own_hw))
    path = preset_path(artifact, output, preset)
    measured: list[ResizeDifference] = []

    def write(target: Path) -> None:
        write_float_form(artifact, target, wanted.scale, size_hw)
        measured[:] = [_measure_resize(target, images, whole, size_hw, wanted)]

    published = publish(
        path,
        replace(
            sidecar,
            form="nchw",
            input=f"rgb-float-{wanted.pixels}",
            input_size_hw=size_hw,
        ),
        write,
        SourceEmbeddings(crops, names, embeddings, artifact.name),
        _SAME_RESIZE_COSINE if size_hw == own_hw else _OTHER_RESIZE_COSINE,
        lambda _: {"preset": preset, "resize": asdict(measured[0])},
    )
    return path, published, measured[0]


def preset_path(artifact: Path, output: Path, preset: str) -> Path:
    """Where the file of a preset is published."""
    return output / f"{artifact.stem}.{preset}.onnx"


def check_preset(artifact: Path, sidecar: Sidecar, preset: str) -> None:
    """Raise InputError unless an artifact can be given a preset's input."""
    allowed = FLOAT_PRESETS[preset].precisions
    if sidecar.form != "crops" or artifact.suffix != ".onnx":
        found = f"in the {sidecar.form} form" if artifact.suffix == ".onnx" else "an engine"
        raise InputError(f"--preset {preset} takes an .onnx artifact in the crops form; {artifact} is {found}")
    if sidecar.precision not in allowed:
        raise InputError(f"--preset {preset} is for {', '.join(allowed)}; {artifact} is {sidecar.precision}")


def describe_difference(difference: ResizeDifference, preset: str) -> str:
    """The difference in words."""
    return (
        f"{FLOAT_PRESETS[preset].resized_by} ({difference.crops} crops): cosine with the plain artifact mean "
        f"{difference.mean:.5f}, 1st percentile {difference.p01:.5f}, lowest {difference.lowest:.5f}"
    )


def _measure_resize(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    whole: NDArray[np.float32],
    size_hw: tuple[int, int],
    preset: Preset,
) -> ResizeDifference:
    """Feed crops as these tools do: resized in float, without rounding to whole pixels, and in the preset's size."""
    session, _ = open_session(path, "cpu", None)
    divisor = 255.0 if preset.pixels == "unit" else 1.0
    rows = []
    for image in images:
        resized = cv2.resize(image.astype(np.float32), size_hw[::-1], interpolation=cv2.INTER_LINEAR) / divisor
        batch = np.ascontiguousarray(resized[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32)
        rows.append(np.asarray(session.run(["embeddings"], {"images": batch})[0][0]))
    cosines = np.einsum("nd,nd->n", np.stack(rows), whole, dtype=np.float64)
    return ResizeDifference(len(images), float(cosines.mean()), float(np.percentile(cosines, 1)), float(cosines.min()))
