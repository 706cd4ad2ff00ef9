"""Holds the inputs and outputs of an ONNX file against the declared format of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hamr_edge.detector_formats import FORMATS, DetectorFormat, OutputForm
from hamr_edge.errors import InputError

INPUT_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}
SIZE_INPUT, MASK_INPUT = "orig_target_sizes", "pixel_mask"
_EXTRA_DIMENSIONS = {SIZE_INPUT: 2, MASK_INPUT: 3}


def image_input(form: DetectorFormat, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
    """The input that takes the picture.

    Args:
        form: As declared.
        inputs: Of a session: each has ``name``, ``type`` and ``shape``.
        outputs: Likewise; for the message.

    Raises:
        InputError: The inputs are not the format's; the message names the formats that they and the outputs would fit.
    """
    if not _fits_inputs(form, inputs):
        raise misfit(form, None, inputs, outputs, f"inputs {_words(inputs)}")
    return _images(inputs)[0]


def match_outputs(
    form: DetectorFormat, size_hw: tuple[int, int] | None, inputs: Sequence[Any], outputs: Sequence[Any]
) -> list[str]:
    """Names of the outputs that a format's records mean, in their order.

    Args:
        form: As declared.
        size_hw: The input's size; None where it goes with the frame's.
        inputs: As :func:`image_input`; for the message.
        outputs: As :func:`image_input`.

    Raises:
        InputError: One is missing or of another shape; the message is as that of :func:`image_input`.
    """
    names = _output_names(form, size_hw, outputs)
    if names is None:
        raise misfit(form, size_hw, inputs, outputs, f"outputs {_words(outputs)}")
    return names


def misfit(
    form: DetectorFormat, size_hw: tuple[int, int] | None, inputs: Sequence[Any], outputs: Sequence[Any], got: str
) -> InputError:
    """What a format expects, what came, and which formats the shapes of a file would allow, as a hint."""
    counts = form.anchor_counts(size_hw)
    takes = "float (1, 3, H, W)" + (f" and int64 {SIZE_INPUT} (1, 2)" if form.needs_size else "")
    gives = ", ".join(output.words(counts) for output in form.outputs)
    able = [other.name for other in FORMATS.values() if other is not form and _allows(other, inputs, outputs)]
    hint = (
        f"Its shapes would allow {', '.join(able)}: declare the one that it is"
        if able
        else f"Its shapes are of none of the formats: {', '.join(FORMATS)}"
    )
    return InputError(f"it does not fit the declared format: expected {takes} -> {gives}; got {got}. {hint}")


def _allows(form: DetectorFormat, inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    if not _fits_inputs(form, inputs):
        return False
    height, width = _images(inputs)[0].shape[2:]
    size_hw = (height, width) if isinstance(height, int) and isinstance(width, int) else form.size_hw
    return _output_names(form, size_hw, outputs) is not None


def _images(inputs: Sequence[Any]) -> list[Any]:
    return [value for value in inputs if len(value.shape) == 4]


def _fits_inputs(form: DetectorFormat, inputs: Sequence[Any]) -> bool:
    images = _images(inputs)
    extras = {value.name: value for value in inputs if value not in images}
    if len(images) != 1 or set(extras) - {MASK_INPUT} != ({SIZE_INPUT} if form.needs_size else set()):
        return False
    batch, channels = images[0].shape[:2]
    return (
        images[0].type in INPUT_TYPES
        and (batch == 1 or not isinstance(batch, int))
        and (channels == 3 or not isinstance(channels, int))
        and all(
            value.type == "tensor(int64)" and len(value.shape) == _EXTRA_DIMENSIONS[name]
            for name, value in extras.items()
        )
    )


def _output_names(form: DetectorFormat, size_hw: tuple[int, int] | None, outputs: Sequence[Any]) -> list[str] | None:
    counts = form.anchor_counts(size_hw)
    chosen = [_output_name(wanted, outputs, counts) for wanted in form.outputs]
    names = [name for name in chosen if name is not None]
    return names if len(names) == len(chosen) else None


def _output_name(wanted: OutputForm, outputs: Sequence[Any], counts: Sequence[int]) -> str | None:
    if wanted.names:
        outputs = [value for value in outputs if value.name in wanted.names]
    # An output that is not asked for by name must be the only one.
    return str(outputs[0].name) if len(outputs) == 1 and wanted.fits(outputs[0].shape, counts) else None


def _words(values: Sequence[Any]) -> str:
    return ", ".join(f"{value.name} {value.type} {value.shape}" for value in values)
