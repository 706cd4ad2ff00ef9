from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hamr_edge.calibration.blocks import Block, find_blocks
from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.config import CALIBRATORS, CalibrationConfig
from hamr_edge.calibration.crops import calibration_batches, choose_calibration_crops
from hamr_edge.calibration.held_out import HeldOut, Loss, embed_model, load_held_out, measure_loss
from hamr_edge.calibration.search import (
    FLAVOURS,
    QuantisedNetwork,
    best_calibrator,
    clipped_ranges,
    find_quantised,
    write_quantised,
)
from hamr_edge.calibration.sensitivity import BlockLoss, hold_budget, sites_of
from hamr_edge.calibration.sites import find_sites
from hamr_edge.calibration.table import CalibrationTable, TensorThresholds, calibrate
from hamr_edge.calibration.tensors import tensors_to_calibrate
from hamr_edge.dataset import open_dataset
from hamr_edge.errors import GateError, InputError
from hamr_edge.export.onnx_export import export_onnx
from hamr_edge.trainer.network import Hamr
from tests.test_train import SHALLOW

SAME = Loss(0.9, 0.8, 0.0, 0.0, 1.0, 1.0, 1.0)
WIDE_BUDGET = Budget(max_map_drop=100, max_rank1_drop=100, min_p01_cosine=0.9)


@dataclass(frozen=True, slots=True)
class Parts:
    """A small real network with all that a search needs."""

    model: onnx.ModelProto
    table: CalibrationTable
    blocks: tuple[Block, ...]
    held_out: HeldOut

    def search(
        self, flavour: str = "int8", calibrator: str = "minmax", budget: Budget = WIDE_BUDGET
    ) -> QuantisedNetwork:
        return find_quantised(self.model, flavour, self.table, self.blocks, self.held_out, calibrator, budget)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, synthetic_dataset: Path) -> Parts:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("search") / "model.onnx"
    export_onnx(Hamr(SHALLOW.network, 6), path, 16)
    model = onnx.load(path)
    dataset = open_dataset(synthetic_dataset)
    config = CalibrationConfig(crops=16)
    size_hw = SHALLOW.network.input_size_hw
    batches = calibration_batches(choose_calibration_crops(dataset, 16, 0), size_hw)
    table = calibrate(model, tensors_to_calibrate(model), batches, config)
    return Parts(model, table, find_blocks(model, (1, 2)), load_held_out(model, dataset, size_hw, 200, 0))


def broken(table: CalibrationTable, tensors: Collection[str]) -> CalibrationTable:
    """A table whose ranges of some tensors are a thousand times too wide: they round to 0."""
    wide = {
        name: TensorThresholds(1e3 * found.low, 1e3 * found.high, {c: 1e3 * t for c, t in found.thresholds.items()})
        for name, found in table.tensors.items()
        if name in tensors
    }
    return replace(table, tensors={**table.tensors, **wide})


def test_held_out_people_are_scored_in_float32(parts: Parts) -> None:
    held_out = parts.held_out
    assert len(held_out.images) == len(held_out.crops) == len(held_out.embeddings)
    loss = measure_loss(held_out.embeddings, held_out)
    assert (loss.rank1_drop, loss.map_drop) == (0, 0)
    assert (loss.rank1, loss.map) == (held_out.scores.rank1, held_out.scores.map)
    assert min(loss.min_cosine, loss.p01_cosine, loss.mean_cosine) == pytest.approx(1, abs=1e-6)


def test_losses_are_counted_in_points_and_cosines(parts: Parts) -> None:
    held_out = parts.held_out
    mixed = held_out.embeddings.copy()
    mixed[0] = -mixed[0]
    assert measure_loss(mixed, held_out).min_cosine == pytest.approx(-1, abs=1e-6)
    shuffled = measure_loss(held_out.embeddings[::-1], held_out)
    assert shuffled.map_drop == pytest.approx(100 * (held_out.scores.map - shuffled.map))
    mixed[:] = np.nan
    lost = measure_loss(mixed, held_out)
    assert lost.min_cosine == lost.mean_cosine == 0
    with pytest.raises(InputError, match="the float32 network gives"):
        measure_loss(mixed[:, :3], held_out)


def test_a_model_in_memory_is_embedded_in_any_number_of_batches(parts: Parts) -> None:
    images = parts.held_out.images[:17]
    np.testing.assert_allclose(embed_model(parts.model, images), parts.held_out.embeddings[:17], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"map_drop": 0.51}, "mAP fell 0.51 points to 80.00 % on 1000 held-out queries, 0.50 may be lost"),
        ({"rank1_drop": 0.4}, r"rank-1 fell 0.40 points .* \(--max-rank1-drop\)"),
        ({"p01_cosine": 0.979}, r"1st percentile of the cosine .* is 0.9790, at least 0.98 is asked"),
        ({"map_drop": float("nan")}, "mAP fell nan"),
        ({"p01_cosine": float("nan")}, "is nan"),
    ],
)
def test_what_a_budget_says(changes: dict[str, float], words: str) -> None:
    (sentence,) = Budget().misses(replace(SAME, **changes), 1000)
    assert re.search(words, sentence)


def test_a_budget_holds_up_to_its_edge() -> None:
    edge = replace(SAME, map_drop=0.5, rank1_drop=0.3, p01_cosine=0.98)
    assert not list(Budget().misses(edge, 1000))
    assert not list(Budget().misses(replace(SAME, map_drop=-3, rank1_drop=-3), 1000))
    assert len(list(Budget().misses(replace(SAME, map_drop=9, rank1_drop=9, p01_cosine=0), 1000))) == 3


def test_one_query_may_be_lost_however_few_there_are() -> None:
    lost_one = replace(SAME, rank1_drop=100 / 50)
    assert not list(Budget().misses(lost_one, 50))
    assert list(Budget().misses(replace(SAME, rank1_drop=200 / 50), 50))
    assert list(Budget().misses(lost_one, 51))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("max_map_drop", -1.0), ("max_rank1_drop", float("nan")), ("max_map_drop", 101.0), ("min_p01_cosine", 1.1)],
)
def test_a_budget_out_of_range_is_refused(setting: str, value: float) -> None:
    with pytest.raises(InputError, match=f"--{setting.replace('_', '-')} must be within 0"):
        Budget(**{setting: value})


def block_losses(**points_and_cost: tuple[float, float]) -> list[BlockLoss]:
    return [
        BlockLoss(Block(name, (name,), True, 1), replace(SAME, map_drop=points), cost)
        for name, (points, cost) in points_and_cost.items()
    ]


def test_blocks_are_given_back_by_points_for_their_cost() -> None:
    losses = block_losses(cheap=(1, 1), dear=(4, 100), best=(2, 1), lucky=(-5, 1))
    measured: list[frozenset[str]] = []

    def measure(sites: Collection[str]) -> Loss:
        measured.append(frozenset(sites))
        return replace(SAME, map_drop=9.0)

    kept, steps = hold_budget(losses, [item.block for item in losses], measure, Budget(), 1000)
    assert kept == ()
    assert [step.given_back for step in steps] == [None, "best", "cheap", "dear"]
    assert measured == [{"cheap", "dear", "best", "lucky"}, {"cheap", "dear", "lucky"}, {"dear", "lucky"}, {"lucky"}]


def test_the_search_stops_as_soon_as_the_budget_holds() -> None:
    losses = block_losses(one=(1, 1), two=(2, 1), three=(3, 1))
    blocks = [item.block for item in losses]
    kept, steps = hold_budget(losses, blocks, lambda sites: SAME, Budget(), 1000)
    assert (list(kept), len(steps)) == (blocks, 1)
    kept, steps = hold_budget(
        losses, blocks, lambda sites: replace(SAME, map_drop=9.0 if "three" in sites else 0.0), Budget(), 1000
    )
    assert [block.name for block in kept] == ["one", "two"]
    assert [step.given_back for step in steps] == [None, "three"]


def test_worth_counts_cosine_where_map_says_nothing() -> None:
    near, far = (
        BlockLoss(Block("b", ("b",), True, 1), replace(SAME, mean_cosine=cosine), 2.0) for cosine in (0.999, 0.9)
    )
    assert far.worth > near.worth > 0
    assert far.points == pytest.approx(10)
    assert far.worth == pytest.approx(5)
    assert replace(far, cost=0.0).worth == pytest.approx(10 / 1e-3)  # the clock's noise is no cost


def test_a_hostile_block_is_given_back_and_the_rest_kept(parts: Parts) -> None:
    stage = next(block for block in parts.blocks if block.name == "stage 1")
    inside = {site.activation for site in find_sites(parts.model) if site.name in stage.sites}
    outside = {site.activation for site in find_sites(parts.model) if site.name not in stage.sites}
    hostile = replace(parts, table=broken(parts.table, inside - outside))
    found = hostile.search()
    assert [step.given_back for step in found.steps] == [None, "stage 1"]
    everything = [block for block in parts.blocks if block.quantised]
    assert [block.name for block in found.quantised] == [b.name for b in everything if b.name != "stage 1"]
    assert {block.name for block in (*found.quantised, *found.kept)} == {block.name for block in parts.blocks}
    assert list(WIDE_BUDGET.misses(found.steps[0].loss, 100))
    assert max(found.blocks, key=lambda item: item.worth).block.name == "stage 1"
    ranges = clipped_ranges(hostile.table, "minmax")
    wanted = write_quantised(parts.model, "int8", sites_of(found.quantised), ranges)
    assert found.model == wanted


def test_a_budget_that_cannot_be_held(parts: Parts) -> None:
    hopeless = replace(parts, table=broken(parts.table, parts.table.tensors))
    with pytest.raises(GateError, match=r"int8: the budget cannot be held, even with one block .*--min-p01-cosine"):
        hopeless.search()


def test_the_same_search_gives_the_same_network(parts: Parts) -> None:
    one, other = (parts.search(calibrator="auto") for _ in range(2))
    assert one == other
    assert list(one.calibrators) == list(CALIBRATORS)
    assert one.calibrator == best_calibrator(one.calibrators, WIDE_BUDGET)
    assert one.cost_unit == "bytes"
    assert {item.block.name: item.cost for item in one.blocks} == {b.name: float(b.weights) for b in parts.blocks}
    assert not list(WIDE_BUDGET.misses(one.steps[-1].loss, parts.held_out.scores.queries))
    written = one.to_json()
    assert written["quantised"] == [block.name for block in one.quantised]
    assert len(written["blocks"]) == len(parts.blocks)


def test_the_form_for_the_cpu_costs_time(parts: Parts) -> None:
    found = parts.search("int8-cpu")
    assert found.cost_unit == "ms"
    assert all(item.cost >= 0 for item in found.blocks)
    assert found.steps[-1].loss.p01_cosine >= 0.9


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_without_held_out_people_nothing_is_measured(parts: Parts, flavour: str) -> None:
    found = find_quantised(parts.model, flavour, parts.table, parts.blocks, None)
    assert (found.calibrator, found.calibrators, found.blocks, found.steps) == ("mse", {}, (), ())
    assert all(block.quantised for block in found.quantised)
    assert not any(block.quantised for block in found.kept)
    named = find_quantised(parts.model, flavour, parts.table, parts.blocks, None, "entropy")
    assert named.calibrator == "entropy"


def test_what_cannot_be_searched_is_refused(parts: Parts) -> None:
    gates = tuple(block for block in parts.blocks if not block.quantised)
    with pytest.raises(InputError, match="no product that can be quantised"):
        replace(parts, blocks=gates).search()
    with pytest.raises(InputError, match="flavour must be one of int8, int8-cpu, got 'int4'"):
        parts.search("int4")


def test_ranges_are_clipped_to_the_threshold() -> None:
    table = CalibrationTable(
        {},
        {
            "both": TensorThresholds(-5, 9, dict.fromkeys(CALIBRATORS, 4.0)),
            "relu": TensorThresholds(0, 3, dict.fromkeys(CALIBRATORS, 4.0)),
            "far": TensorThresholds(5, 9, dict.fromkeys(CALIBRATORS, 4.0)),
            "below": TensorThresholds(-9, -5, dict.fromkeys(CALIBRATORS, 4.0)),
        },
    )
    wanted = {"both": (-4, 4), "relu": (0, 3), "far": (4, 4), "below": (-4, -4)}
    assert clipped_ranges(table, "mse") == wanted


def losses_of(**drops_and_cosines: tuple[float, float, float]) -> dict[str, Loss]:
    """From (mAP drop, 1st percentile of the cosine, mean cosine)."""
    return {
        name: replace(SAME, map_drop=drop, p01_cosine=p01, mean_cosine=mean)
        for name, (drop, p01, mean) in drops_and_cosines.items()
    }


@pytest.mark.parametrize(
    ("tried", "best"),
    [
        (losses_of(minmax=(0.5, 1, 1), mse=(0.2, 0.99, 0.99)), "mse"),
        (losses_of(minmax=(0.2, 0.99, 0.99), mse=(0.25, 1, 1)), "minmax"),  # never below minmax's mAP
        (losses_of(minmax=(0.2, 0.99, 0.99), mse=(0.15, 0.99, 0.995)), "mse"),
        (losses_of(minmax=(0.9, 0.99, 0.99), mse=(0.2, 0.99, 0.991), entropy=(0.25, 0.99, 0.995)), "entropy"),
        (losses_of(minmax=(0.9, 0.99, 0.99), mse=(0.2, 0.99, 0.991), entropy=(0.31, 0.99, 0.995)), "mse"),
        (losses_of(minmax=(0.3, 0.99, 0.99), entropy=(0.0, 0.97, 0.98)), "minmax"),  # the cosine's floor
        (losses_of(minmax=(0.1, 0.97, 0.98), entropy=(0.3, 0.99, 0.99)), "minmax"),  # not at the cost of mAP
        (losses_of(minmax=(0.3, 0.9, 0.95), entropy=(0.0, 0.91, 0.94)), "entropy"),  # none keeps the floor
        (losses_of(minmax=(-0.1, 0.99, 0.99), mse=(-2.0, 0.99, 0.98)), "minmax"),  # above float32 is luck
        (losses_of(mse=(0.4, 0.99, 0.99), entropy=(0.2, 0.99, 0.98)), "entropy"),  # minmax was not tried
    ],
)
def test_the_best_calibrator(tried: dict[str, Loss], best: str) -> None:
    assert best_calibrator(tried, Budget()) == best
    assert best_calibrator(dict(reversed(tried.items())), Budget()) == best
