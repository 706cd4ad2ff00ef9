"""What each block of an int8 artifact costs, as calibration measured it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BlockSensitivity:
    """One block of the network quantised alone."""

    block: str
    kept_float: bool
    """In the artifact, the block is not quantised."""
    mean_cosine: float
    """Of the embeddings to fp32's, with this block alone quantised."""
    map_delta: float | None
    """Change of mAP, 0..1, with this block alone quantised; None where it was not measured."""


def read_sensitivity(artifact: Path) -> tuple[BlockSensitivity, ...]:
    """What ``<artifact without .onnx>.report.json`` says of this artifact, the block that costs most first.

    Empty where there is no such file, it cannot be read, or it is of another artifact.
    """
    if artifact.suffix != ".onnx":
        return ()
    try:
        values = json.loads(artifact.with_suffix(".report.json").read_text(encoding="utf-8"))
        if values["artifact"] != artifact.name:
            return ()
        kept = set(values["kept"])
        blocks = [
            BlockSensitivity(
                block=str(block["name"]),
                kept_float=block["name"] in kept,
                mean_cosine=float(block["mean_cosine"]),
                map_delta=-float(block["map_drop"]) / 100,
            )
            for block in values["blocks"]
        ]
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return ()
    if not all(math.isfinite(number) for one in blocks for number in (one.mean_cosine, one.map_delta or 0.0)):
        return ()
    return tuple(sorted(blocks, key=lambda block: block.mean_cosine))
