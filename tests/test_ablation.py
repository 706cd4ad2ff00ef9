"""Tables of ablations: that rows say what the paper says, and that a table runs, stops and goes on."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from hamr_edge.dataset import open_dataset
from hamr_edge.errors import InputError
from hamr_edge.trainer import learner, loop
from hamr_edge.trainer.ablate_command import ablate
from hamr_edge.trainer.ablation import run_folder, run_table
from hamr_edge.trainer.ablation_tables import TABLES
from hamr_edge.trainer.config import PRESETS, TrainConfig
from hamr_edge.trainer.losses import Loss, hamr_loss
from hamr_edge.trainer.network import Hamr
from tests.test_train import FIRST_EPOCH_STEPS, TINY

ROWS = [(table, row) for table, rows in TABLES.items() for row in rows]
NETWORK = replace(TINY.network, input_size_hw=(64, 32))
"""Two stripes of a map at 1/32, the baseline's."""
BASE = replace(TINY, network=NETWORK, epochs=1, eval_every=1)


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{table}: {row.name}" for table, row in ROWS])
@pytest.mark.parametrize("preset", ["paper", "edge"])
def test_every_row_is_a_network_on_every_preset(table: str, row: object, preset: str) -> None:
    config = row.settings(PRESETS[preset])  # type: ignore[attr-defined]
    with torch.device("meta"):
        features = Hamr(config.network, 10)(torch.zeros(4, 3, *config.network.input_size_hw, device="meta"))
    assert features.logits.shape == (config.network.parts, 4, 10)
    assert TrainConfig.from_json(config.to_json()) == config


def test_the_rows_of_a_table_differ() -> None:
    for rows in TABLES.values():
        settings = [row.settings(PRESETS["paper"]) for row in rows]
        assert len({str(config) for config in settings}) == len(settings)
        assert len({row.name for row in rows}) == len(rows)


def test_the_last_rows_are_the_whole_method() -> None:
    for table in ("6", "8", "9", "10"):
        assert TABLES[table][-1].settings(PRESETS["paper"]) == PRESETS["paper"]
    assert TABLES["7"][-2].settings(PRESETS["paper"]) == PRESETS["paper"]


def test_each_row_of_table_6_adds_what_it_names() -> None:
    baseline, tricks, mpfe, mgo, sam, cam = (row.settings(PRESETS["paper"]) for row in TABLES["6"])
    assert (baseline.erase, baseline.label_smoothing, baseline.warmup_epochs) == (0, 0, 0)
    assert (tricks.erase, tricks.label_smoothing, tricks.warmup_epochs) == (0.5, 0.1, 10)
    assert (tricks.network.pooling, mpfe.network.pooling) == ("avg", "both")
    assert (mpfe.network.parts, mgo.network.parts) == (1, 21)
    assert (mgo.network.attention, sam.network.attention, cam.network.attention) == ("cat", "s+cat", "s+cat+c")
    assert (mgo.network.stages, sam.network.stages) == ((4,), (1, 2, 3, 4))


def test_the_papers_figures_are_those_of_its_tables() -> None:
    assert TABLES["6"][0].paper == {"Market-1501": (88.1, 71.1), "DukeMTMC-reID": (79.2, 63.7)}
    assert TABLES["8"][-1].paper["Market to Duke"] == (42.52, 25.37)
    assert [row.paper["Market-1501"] for row in TABLES["9"]][4] == (95.3, 86.2)
    assert TABLES["7"][-1].paper == {"DukeMTMC-reID": (88.7, 79.5)}


def test_a_table_stops_and_goes_on(synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(synthetic_dataset)
    rows = {1: TABLES["6"][0], 3: TABLES["6"][2], 6: TABLES["6"][5]}
    stopping = run_table(rows, BASE, dataset, tmp_path, quiet=True)
    first = next(stopping)
    assert first.run == run_folder(tmp_path, 1, rows[1]) == tmp_path / "1-baseline"
    stopping.close()
    trained: list[Path] = []
    real_train = loop.train

    def spy(config: TrainConfig, dataset: object, run: Path, *rest: object) -> object:
        trained.append(run)
        return real_train(config, dataset, run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("hamr_edge.trainer.ablation.train", spy)
    results = list(run_table(rows, BASE, dataset, tmp_path, quiet=True))
    assert trained == [tmp_path / "3-mpfe", tmp_path / "6-cam"]
    assert [result.row for result in results] == list(rows.values())
    assert results[0].scores == first.scores
    assert all(0 <= result.scores["map"] <= 1 for result in results)


def test_a_row_stopped_in_the_middle_is_resumed(
    synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(synthetic_dataset)
    rows = {1: TABLES["stripes"][0]}
    calls: list[int] = []

    def loss_that_presses_ctrl_c(*arguments: Any, **named: Any) -> Loss:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return hamr_loss(*arguments, **named)

    monkeypatch.setattr(learner, "hamr_loss", loss_that_presses_ctrl_c)
    with pytest.raises(loop.TrainingStopped):
        list(run_table(rows, BASE, dataset, tmp_path, quiet=True))
    assert len(calls) == 2
    result = next(iter(run_table(rows, BASE, dataset, tmp_path, quiet=True)))
    assert len(calls) == FIRST_EPOCH_STEPS
    assert result.scores["epoch"] == 1


def test_a_run_with_other_settings_is_refused(synthetic_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(synthetic_dataset)
    rows = {1: TABLES["stripes"][0]}
    list(run_table(rows, BASE, dataset, tmp_path, quiet=True))
    with pytest.raises(InputError, match="epochs 1 instead of 2"):
        list(run_table(rows, replace(BASE, epochs=2), dataset, tmp_path, quiet=True))


def test_another_data_set_or_start_is_refused(synthetic_dataset: Path, tmp_path: Path) -> None:
    dataset = open_dataset(synthetic_dataset)
    rows = {2: TABLES["stride"][1]}
    list(run_table(rows, BASE, dataset, tmp_path, quiet=True))
    with pytest.raises(InputError, match=r"other data set \(data instead of other\)"):
        list(run_table(rows, BASE, replace(dataset, name="other"), tmp_path, quiet=True))
    with pytest.raises(InputError, match=r"other first weights \(none instead of start.npz\)"):
        list(run_table(rows, BASE, dataset, tmp_path, "start.npz", quiet=True))


def test_impossible_rows_are_found_before_the_first_is_trained(synthetic_dataset: Path, tmp_path: Path) -> None:
    rows = {1: TABLES["stripes"][0], 5: TABLES["stripes"][4]}
    with pytest.raises(InputError, match="row '6 stripes' cannot be built on these settings: input size"):
        list(run_table(rows, BASE, open_dataset(synthetic_dataset), tmp_path))
    assert not list(tmp_path.iterdir())


SMALL = ["--preset", "smoke", "--imgsz", "64", "32", "--stripes", "2", "--reduced-dim", "8", "--part-dim", "4"]
SMALL += ["--epochs", "1", "--ids-per-batch", "4", "--quiet"]


def test_the_command_prints_the_papers_figures_beside_its_own(synthetic_dataset: Path, tmp_path: Path) -> None:
    asked = ["6", str(synthetic_dataset), "-o", str(tmp_path / "runs"), "--rows", "1,6", *SMALL]
    result = CliRunner().invoke(ablate, [*asked, "--json", str(tmp_path / "table.json")], catch_exceptions=False)
    assert result.exit_code == 0
    assert "95.7 / 87.7" in result.output
    assert "88.1 / 71.1" in result.output
    assert "92.3 / 81.9" not in result.output
    values = json.loads((tmp_path / "table.json").read_text())
    assert [row["row"] for row in values["rows"]] == ["Baseline", "+ CAM"]
    ours = values["rows"][1]["scores"]
    assert f"{100 * ours['rank1']:.1f} / {100 * ours['map']:.1f}" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["6", "DATA", "--rows", "1,9"], "1 Baseline, 2 "),
        (["6", "DATA", "--rows", "x"], "joined by commas"),
        (["8", "DATA"], "cross-domain"),
        (["6"], "name the data set"),
        (["6", "DATA", "--eval-every", "0"], "needs scores"),
    ],
)
def test_wrong_calls_are_named(arguments: list[str], message: str, synthetic_dataset: Path, tmp_path: Path) -> None:
    asked = [str(synthetic_dataset) if word == "DATA" else word for word in arguments]
    result = CliRunner().invoke(ablate, [*asked, "-o", str(tmp_path / "runs")])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not (tmp_path / "runs").exists()
