"""The fp32 ONNX model in every other precision, each with what is known of how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hamr_edge.backend import Backend
from hamr_edge.calibration.blocks import find_blocks, level_sizes_of
from hamr_edge.calibration.crops import (
    CalibrationBatches,
    calibration_batches,
    choose_calibration_crops,
    random_calibration_batches,
)
from hamr_edge.calibration.held_out import HeldOut, Loss, load_held_out, measure_loss
from hamr_edge.calibration.ranges import measure_extremes
from hamr_edge.calibration.search import QuantisedNetwork, find_quantised
from hamr_edge.calibration.table import CalibrationTable, calibrate
from hamr_edge.calibration.tensors import tensors_to_calibrate
from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import GateError
from hamr_edge.export.config import ExportConfig
from hamr_edge.export.half import KeptFloat, to_half
from hamr_edge.sidecar import Sidecar

_RANGE_CROPS = 128
_TABLE = "calibration.json"


@dataclass(frozen=True, slots=True)
class PrecisionModel:
    """A network in one precision."""

    model: onnx.ModelProto
    detail: dict[str, Any]
    """For the sidecar: what stays in a wider type and why, and how the scales were found."""
    float_nodes: tuple[KeptFloat, ...] = ()
    search: QuantisedNetwork | None = None


class PrecisionModels:
    """Makes the precisions of one network; calibration and held-out people are shared between them.

    Args:
        model: The fp32 network.
        sidecar: What is known of it.
        dataset: Where training crops and held-out people come from; None where there is no data set.
        crops: (N, H, W, 3) uint8 BGR for the check of float16's range where there is no data set.
        output: Folder that keeps the calibration table.
        config: Settings.
        quiet: No progress.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        sidecar: Sidecar,
        dataset: ReidDataset | None,
        crops: NDArray[np.uint8],
        output: Path,
        config: ExportConfig,
        quiet: bool,
    ) -> None:
        self._model = model
        self._sidecar = sidecar
        self._dataset = dataset
        self._crops = crops
        self._output = output
        self._config = config
        self._quiet = quiet
        self._batches: CalibrationBatches | None = None
        self._table: CalibrationTable | None = None
        self._held_out: HeldOut | None = None

    def make(self, precision: str) -> PrecisionModel:
        """The network in a precision other than fp32.

        Raises:
            InputError: int8 without a data set, unless noise is allowed; or a crop cannot be read.
            GateError: int8 cannot hold its budget.
        """
        if precision == "fp16":
            return self._halve(self._model, {})
        search = self._search(precision)
        table = self._calibrated()
        detail = {
            "calibrator": search.calibrator,
            "calibration": table.key,
            "quantised": [block.name for block in search.quantised],
            "kept": [block.name for block in search.kept],
            "random_calibration": self._dataset is None,
        }
        if precision == "int8-cpu":
            return PrecisionModel(search.model, detail, search=search)
        halved = self._halve(search.model, detail)
        return PrecisionModel(halved.model, halved.detail, halved.float_nodes, search)

    def judge(self, backend: Backend) -> dict[str, Any]:
        """Hold a quantised artifact, as it will be run, against its budget on held-out people.

        Returns:
            What it loses, for the sidecar; empty where there is no data set.

        Raises:
            GateError: It loses more than the budget allows.
        """
        if self._dataset is None:
            return {}
        held_out = self._people()
        loss: Loss = measure_loss(backend.infer(held_out.images), held_out)
        queries = held_out.scores.queries
        misses = list(self._config.budget.misses(loss, queries))
        if misses:
            raise GateError(
                f"{backend.sidecar.precision}: {'; '.join(misses)}; nothing was published. Calibrate on more crops "
                "(--calibration-crops), try another --calibrator, or allow a larger drop"
            )
        return {"held_out": {"queries": queries, "images": len(held_out.images), **asdict(loss)}}

    def _halve(self, model: onnx.ModelProto, detail: dict[str, Any]) -> PrecisionModel:
        extremes = measure_extremes(model, self._range_batches(), self._quiet)
        halved, float_nodes = to_half(model, extremes)
        wide = [asdict(node) for node in float_nodes if node.reason == "range"]
        return PrecisionModel(halved, {**detail, "float32_by_range": wide}, float_nodes)

    def _range_batches(self) -> Sequence[NDArray[np.uint8]]:
        images = self._crops if self._dataset is None else self._calibration_batches().images[:_RANGE_CROPS]
        size = self._config.calibration.batch_size
        return [images[start : start + size] for start in range(0, len(images), size)]

    def _search(self, flavour: str) -> QuantisedNetwork:
        blocks = find_blocks(self._model, level_sizes_of(self._sidecar.network))
        held_out = None if self._dataset is None else self._people()
        return find_quantised(
            self._model,
            flavour,
            self._calibrated(),
            blocks,
            held_out,
            self._config.calibration.calibrator,
            self._config.budget,
            self._quiet,
        )

    def _calibrated(self) -> CalibrationTable:
        if self._table is None:
            names = tensors_to_calibrate(self._model)
            batches = self._calibration_batches()
            path = self._output / _TABLE
            self._table = calibrate(self._model, names, batches, self._config.calibration, path, self._quiet)
        return self._table

    def _calibration_batches(self) -> CalibrationBatches:
        if self._batches is None:
            settings, size_hw = self._config.calibration, self._sidecar.input_size_hw
            if self._dataset is None:
                self._batches = random_calibration_batches(
                    settings.crops, size_hw, settings.seed, settings.allow_random, settings.batch_size
                )
            else:
                chosen = choose_calibration_crops(self._dataset, settings.crops, settings.seed)
                self._batches = calibration_batches(chosen, size_hw, settings.batch_size)
        return self._batches

    def _people(self) -> HeldOut:
        if self._held_out is None:
            if self._dataset is None:
                raise TypeError("held-out people need a data set")
            limit, seed = self._config.held_out_crops, self._config.seed
            self._held_out = load_held_out(
                self._model, self._dataset, self._sidecar.input_size_hw, limit, seed, self._quiet
            )
        return self._held_out
