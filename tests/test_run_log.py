from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hamr_edge.dataset import open_dataset
from hamr_edge.errors import UnavailableError
from hamr_edge.trainer.checkpoint import load_state, save_state
from hamr_edge.trainer.loop import resume, train
from hamr_edge.trainer.run_log import COLUMNS, RunLog
from tests.test_train import SHALLOW, read_log


def events_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(epoch, value) of every scalar, as TensorBoard shows them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_events_repeat_the_log(run: Path) -> None:
    rows = read_log(run)
    events = events_of(run)
    assert events.keys() == set(COLUMNS) - {"epoch"}
    for column, values in events.items():
        logged = [(int(row["epoch"]), float(row[column])) for row in rows if row[column]]
        assert values == [(epoch, pytest.approx(value, rel=1e-6)) for epoch, value in logged]


def test_event_files_repeat_the_log_of_a_killed_and_resumed_run(synthetic_dataset: Path, tmp_path: Path) -> None:
    dataset, config = open_dataset(synthetic_dataset), replace(SHALLOW, epochs=2, eval_every=1)
    train(config, dataset, tmp_path, quiet=True, tensorboard=True)
    assert_events_repeat_the_log(tmp_path)
    # As if killed after the second epoch's events were written and before its state was.
    state = load_state(tmp_path)
    state["epoch"], state["history"] = 2, state["history"][:1]
    state["info"]["config"]["epochs"] = 3
    save_state(tmp_path, state)
    resume(dataset, tmp_path, quiet=True, tensorboard=True)
    assert [row["epoch"] for row in read_log(tmp_path)] == ["1", "2", "3"]
    assert_events_repeat_the_log(tmp_path)


def test_the_log_tells_how_long_batches_were_waited_for(checkpoint: Path) -> None:
    rows = read_log(checkpoint)
    assert rows[0].keys() == set(COLUMNS)
    for row in rows:
        assert 0 < float(row["wait_share"]) < 1
        assert float(row["images_per_s"]) > 0


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(UnavailableError, match=r"pip install 'hamr-edge\[tensorboard\]'"):
        RunLog(tmp_path, tensorboard=True)
    with RunLog(tmp_path) as log:
        row = {"epoch": 1, "loss": 2.5}
        log.add(row)
        log.write([row])
    with (tmp_path / "log.csv").open() as file:
        assert next(csv.DictReader(file))["loss"] == "2.5"
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
