"""From a float32 network to a quantised one that holds its budget: which calibrator, and which blocks."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hamr_edge.calibration.blocks import Block
from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CALIBRATORS
from hamr_edge.calibration.held_out import HeldOut, Loss, embed_model, measure_loss
from hamr_edge.calibration.quantize import Range, quantize
from hamr_edge.calibration.quantize_cpu import quantize_cpu
from hamr_edge.calibration.sensitivity import BlockLoss, Step, hold_budget, sites_of
from hamr_edge.calibration.table import CalibrationTable
from hamr_edge.errors import GateError, InputError
from hamr_edge.onnx_session import open_session
from hamr_edge.progress import progress_bar

FLAVOURS = ("int8", "int8-cpu")
"""For TensorRT, and for ONNX Runtime on x86."""
_SAME_MAP = 0.1
_TIMED_BATCH = 8
_TIMED_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class QuantisedNetwork:
    """A quantised network that holds its budget, and the way there."""

    model: onnx.ModelProto
    """float32 with Q/DQ; for TensorRT the float16 pass is still to come."""
    flavour: str
    calibrator: str
    quantised: tuple[Block, ...]
    kept: tuple[Block, ...]
    """Blocks that stay in float."""
    calibrators: dict[str, Loss]
    """What each calibrator that was tried loses with every block quantised."""
    blocks: tuple[BlockLoss, ...]
    """What each block loses alone, by the calibrator chosen; empty without held-out people."""
    cost_unit: str
    """Of the blocks' cost: ``bytes`` or ``ms``."""
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold, without the model."""
        return {
            "flavour": self.flavour,
            "calibrator": self.calibrator,
            "quantised": [block.name for block in self.quantised],
            "kept": [block.name for block in self.kept],
            "calibrators": {name: asdict(loss) for name, loss in self.calibrators.items()},
            "cost_unit": self.cost_unit,
            "blocks": [
                {"name": item.block.name, "points": item.points, "cost": item.cost, **asdict(item.loss)}
                for item in self.blocks
            ],
            "steps": [{"given_back": step.given_back, **asdict(step.loss)} for step in self.steps],
        }


def write_quantised(
    model: onnx.ModelProto, flavour: str, sites: Collection[str], ranges: Mapping[str, Range]
) -> onnx.ModelProto:
    """The network with the named sites quantised, in one of ``FLAVOURS``.

    Raises:
        InputError: As :func:`hamr_edge.calibration.quantize.quantize`, or there is no flavour of that name.
    """
    if flavour not in FLAVOURS:
        raise InputError(f"flavour must be one of {', '.join(FLAVOURS)}, got {flavour!r}")
    return (quantize if flavour == "int8" else quantize_cpu)(model, sites, ranges)


def clipped_ranges(table: CalibrationTable, calibrator: str) -> dict[str, Range]:
    """The range that a calibrator leaves of each tensor: low is at most high, and both within the threshold."""
    ranges = {}
    for name, found in table.tensors.items():
        most = found.thresholds[calibrator]
        ranges[name] = (min(max(found.low, -most), most), max(min(found.high, most), -most))
    return ranges


def find_quantised(
    model: onnx.ModelProto,
    flavour: str,
    table: CalibrationTable,
    blocks: Sequence[Block],
    held_out: HeldOut | None,
    calibrator: str = "auto",
    budget: Budget | None = None,
    quiet: bool = True,
) -> QuantisedNetwork:
    """Choose a calibrator, measure every block alone, and quantise as much as the budget allows.

    Args:
        model: The float32 network.
        flavour: One of ``FLAVOURS``.
        table: Thresholds of its tensors.
        blocks: Its blocks.
        held_out: People to measure on. Without them nothing is measured: ``mse`` stands for ``auto``, and every block
            that may be is quantised.
        calibrator: One of ``CALIBRATORS``, or ``auto``: see :func:`best_calibrator`.
        budget: What may be lost; the default one when None.
        quiet: No progress.

    Raises:
        InputError: No block of the network can be quantised.
        GateError: The budget does not hold even with a single block quantised.
    """
    budget = budget or Budget()
    everything = [block for block in blocks if block.quantised]
    if not everything:
        raise InputError(f"{flavour}: the network has no product that can be quantised; export it as fp32 or fp16")
    if held_out is None:
        chosen = "mse" if calibrator == "auto" else calibrator
        quantised = write_quantised(model, flavour, sites_of(everything), clipped_ranges(table, chosen))
        kept = tuple(block for block in blocks if not block.quantised)
        return QuantisedNetwork(quantised, flavour, chosen, tuple(everything), kept, {}, (), "", ())
    trial = _Trial(model, flavour, table, held_out)
    with progress_bar(quiet) as progress:
        names = CALIBRATORS if calibrator == "auto" else (calibrator,)
        task = progress.add_task(f"{flavour}: calibrators", total=len(names), note="")
        tried = {}
        for name in names:
            tried[name] = trial.measure(sites_of(everything), name)
            progress.advance(task)
        chosen = best_calibrator(tried, budget)
        task = progress.add_task(f"{flavour}: blocks alone", total=len(blocks), note="")
        losses = []
        for block in blocks:
            progress.update(task, note=block.name)
            losses.append(trial.block_alone(block, chosen, sites_of(everything)))
            progress.advance(task)
        progress.update(task, note="")
    queries = held_out.scores.queries
    quantised_blocks, steps = hold_budget(
        losses, everything, lambda sites: trial.measure(sites, chosen), budget, queries
    )
    if not quantised_blocks:
        raise GateError(
            f"{flavour}: the budget cannot be held, even with one block quantised: "
            f"{'; '.join(budget.misses(steps[-1].loss, queries))}; calibrate on more crops, or allow a larger drop"
        )
    return QuantisedNetwork(
        model=write_quantised(model, flavour, sites_of(quantised_blocks), clipped_ranges(table, chosen)),
        flavour=flavour,
        calibrator=chosen,
        quantised=quantised_blocks,
        kept=tuple(block for block in blocks if block not in quantised_blocks),
        calibrators=tried,
        blocks=tuple(losses),
        cost_unit=_cost_unit(flavour),
        steps=steps,
    )


def best_calibrator(tried: Mapping[str, Loss], budget: Budget) -> str:
    """The calibrator of the best mAP; of those that are as good, the one whose embeddings are closest.

    As good is what lies within 0.1 points, and a mAP above the float32 network's is luck and counts as equal to it.
    None is taken whose mAP lies below minmax's. Of the others only those count that keep the budget's cosine, where any
    does.
    """
    drops = {name: max(loss.map_drop, 0.0) for name, loss in tried.items()}
    most = drops.get("minmax", 100.0)
    fair = [name for name in tried if drops[name] <= most]
    close = [name for name in fair if tried[name].p01_cosine >= budget.min_p01_cosine] or fair
    least = min(drops[name] for name in close)
    as_good = [name for name in close if drops[name] <= least + _SAME_MAP]
    return max(as_good, key=lambda name: tried[name].mean_cosine)


def _cost_unit(flavour: str) -> str:
    """TensorRT's time cannot be measured without its device, ONNX Runtime's can.

    A weight of ``int8`` is a byte less than one of float16.
    """
    return "bytes" if flavour == "int8" else "ms"


class _Trial:
    """Quantises some sites of a network and measures what is lost."""

    def __init__(self, model: onnx.ModelProto, flavour: str, table: CalibrationTable, held_out: HeldOut) -> None:
        self._model = model
        self._flavour = flavour
        self._ranges = {name: clipped_ranges(table, name) for name in CALIBRATORS}
        self._held_out = held_out
        self._fused = flavour == "int8-cpu"
        self._whole: Any = None
        self._measured: dict[tuple[frozenset[str], str], Loss] = {}

    def measure(self, sites: Collection[str], calibrator: str) -> Loss:
        """The loss with some sites quantised; what was measured before is remembered."""
        key = frozenset(sites), calibrator
        if key not in self._measured:
            embeddings = embed_model(self._quantised(sites, calibrator), self._held_out.images, self._fused)
            self._measured[key] = measure_loss(embeddings, self._held_out)
        return self._measured[key]

    def block_alone(self, block: Block, calibrator: str, everything: Collection[str]) -> BlockLoss:
        """The loss with one block quantised, and what giving it back costs when all sites of ``everything`` are."""
        loss = self.measure(block.sites, calibrator)
        if _cost_unit(self._flavour) == "bytes":
            return BlockLoss(block, loss, float(block.weights))
        return BlockLoss(block, loss, self._lost_ms(frozenset(everything), frozenset(block.sites), calibrator))

    def _quantised(self, sites: Collection[str], calibrator: str) -> onnx.ModelProto:
        return write_quantised(self._model, self._flavour, sites, self._ranges[calibrator])

    def _lost_ms(self, everything: frozenset[str], given_back: frozenset[str], calibrator: str) -> float:
        """Milliseconds an image that giving some sites back costs; never below 0.

        A block quantised alone would tell less: what it saves goes into rounding at its borders.
        """
        if not everything & given_back:
            return 0.0
        images = self._held_out.images[:_TIMED_BATCH]
        if self._whole is None:
            self._whole = _open(self._quantised(everything, calibrator))
        sessions = (_open(self._quantised(everything - given_back, calibrator)), self._whole)
        times = np.asarray([[_time_ms(session, images) for session in sessions] for _ in range(_TIMED_ROUNDS)])
        return max(0.0, float(np.median(times[:, 0] - times[:, 1])) / len(images))


def _open(model: onnx.ModelProto) -> Any:
    # Threads that wait in a loop would take the cores from the other session.
    return open_session(model.SerializeToString(), "cpu", spin=False)[0]


def _time_ms(session: Any, images: NDArray[np.uint8]) -> float:
    feed = {session.get_inputs()[0].name: images}
    begun = time.perf_counter()
    session.run(None, feed)
    return 1e3 * (time.perf_counter() - begun)
