"""The calibration table: every tensor's thresholds in JSON, reused only for what it was measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hamr_edge.atomic import check_target, replace_file
from hamr_edge.calibration.calibrators import PERCENTILE, threshold
from hamr_edge.calibration.config import CALIBRATORS, CalibrationConfig
from hamr_edge.calibration.crops import CalibrationBatches
from hamr_edge.calibration.ranges import BINS, measure_ranges
from hamr_edge.errors import ArtifactError, InputError
from hamr_edge.preprocess import RESIZE_RULE
from hamr_edge.progress import stderr_console

VERSION = 1
"""Raised when the same crops would give other thresholds, or the file another form."""


@dataclass(frozen=True, slots=True)
class TensorThresholds:
    """What one tensor's values were, and where each calibrator would clip them."""

    low: float
    high: float
    thresholds: dict[str, float]
    """By calibrator, all four."""


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """Thresholds of the tensors of one network, measured on one set of crops."""

    key: dict[str, str | int | float]
    """What the table was measured on; see :func:`calibration_key`."""
    tensors: dict[str, TensorThresholds]
    """By tensor name."""

    def to_json(self) -> dict[str, Any]:
        """The table as JSON holds it."""
        return {"version": VERSION, "key": self.key, "tensors": {name: asdict(t) for name, t in self.tensors.items()}}

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all; the same table gives the same bytes.

        Raises:
            InputError: The file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, sort_keys=True, allow_nan=False) + "\n"
        try:
            replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise InputError(f"calibration table {path} cannot be written: {error.strerror or error}") from error


def load_table(path: Path) -> CalibrationTable:
    """Read a table.

    Raises:
        ArtifactError: The file is missing or is not a whole calibration table.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _from_json(values)
    except FileNotFoundError:
        raise ArtifactError(f"calibration table {path} is not there") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"calibration table {path} cannot be read: {error!r}; delete it, and the next export measures anew"
        ) from error


def calibrate(
    model: onnx.ModelProto,
    names: Sequence[str],
    batches: CalibrationBatches,
    config: CalibrationConfig,
    path: Path | None = None,
    quiet: bool = True,
) -> CalibrationTable:
    """Measure the named tensors and choose their thresholds by every calibrator, or find all that in a file.

    Args:
        model: A float32 network with one input, uint8 (N, H, W, 3); it is not changed.
        names: float32 tensors that nodes put out.
        batches: The crops to run.
        config: The settings that chose the crops.
        path: Where the table is kept. It is reused when every part of its key agrees; else it is measured anew and
            overwritten, and a line on stderr says what differed. Kept nowhere when None.
        quiet: Show no progress.

    Raises:
        ArtifactError: ``path`` holds something that is not a calibration table; it is not overwritten.
        InputError: A tensor is not in the network or holds NaN or infinity, or ``path`` cannot be written.
    """
    key = calibration_key(model, names, batches, config)
    if path is not None:
        check_target(path, "calibration table")
        if path.exists():
            kept = load_table(path)
            differing = differing_parts(kept.key, key)
            if not differing and set(kept.tensors) == set(names):
                return kept
            words = f"{path} differs in {', '.join(differing) or 'tensors'}: measured anew"
            stderr_console(quiet).print(words, markup=False, soft_wrap=True)
    ranges = measure_ranges(model, names, batches, quiet)
    tensors = {
        name: TensorThresholds(found.low, found.high, {rule: threshold(rule, found) for rule in CALIBRATORS})
        for name, found in ranges.items()
    }
    table = CalibrationTable(key, tensors)
    if path is not None:
        table.save(path)
    return table


def calibration_key(
    model: onnx.ModelProto, names: Sequence[str], batches: CalibrationBatches, config: CalibrationConfig
) -> dict[str, str | int | float]:
    """What a table depends on; the calibrator is not in it, as a table holds the thresholds of all."""
    height, width = batches.input_size_hw
    opsets = " ".join(sorted(f"{opset.domain}:{opset.version}" for opset in model.opset_import))
    return {
        "model_sha256": _sha256(model.graph.SerializeToString(deterministic=True)),
        "opsets": opsets,
        "tensors_sha256": _sha256("\n".join(sorted(names)).encode()),
        "crops_sha256": batches.sha256,
        "input_size_hw": f"{height}x{width}",
        "resize": RESIZE_RULE,
        "crops": config.crops,
        "seed": config.seed,
        "batch_size": batches.batch_size,
        "bins": BINS,
        "percentile": PERCENTILE,
        "version": VERSION,
    }


def differing_parts(kept: dict[str, str | int | float], wanted: dict[str, str | int | float]) -> list[str]:
    """The names of the parts in which two keys differ, sorted."""
    return sorted(part for part in kept.keys() | wanted.keys() if kept.get(part) != wanted.get(part))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _from_json(values: dict[str, Any]) -> CalibrationTable:
    if values["version"] != VERSION:
        raise ValueError(f"version {values['version']!r}, this hamr-edge reads {VERSION}")
    tensors = {}
    for name, entry in values["tensors"].items():
        low, high = float(entry["low"]), float(entry["high"])
        thresholds = {rule: float(entry["thresholds"][rule]) for rule in CALIBRATORS}
        if not all(np.isfinite([low, high, *thresholds.values()])) or low > high or min(thresholds.values()) <= 0:
            raise ValueError(f"tensor {name} needs low <= high and thresholds above 0, got {entry}")
        tensors[name] = TensorThresholds(low, high, thresholds)
    return CalibrationTable(dict(values["key"]), tensors)
