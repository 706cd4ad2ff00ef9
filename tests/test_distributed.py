"""Several processes against one: real ones, started by torchrun, on Gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hamr_edge.dataset import open_dataset
from hamr_edge.trainer.checkpoint import load_checkpoint, load_state
from hamr_edge.trainer.loop import resume, train
from tests.distributed_checks import ADAM, NORM_INPUTS, SGD, curve, normalised
from tests.test_robustness import OPTIONS
from tests.test_train import SHALLOW, read_log

STOP_ONE_PROCESS = """
import os, runpy, signal, sys
from hamr_edge.trainer.batches import BatchMaker

make = BatchMaker.make

def make_and_stop(self, rows, epoch, step):
    if (epoch, step) == (2, 1) and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return make(self, rows, epoch, step)

BatchMaker.make = make_and_stop
runpy.run_module("hamr_edge.trainer", run_name="__main__", alter_sys=True)
"""


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def found(synthetic_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What distributed_checks.py saw, for each of two processes."""
    out = tmp_path_factory.mktemp("distributed")
    ended = torchrun(Path(__file__).with_name("distributed_checks.py"), synthetic_dataset, out)
    assert ended.returncode == 0, ended.stderr
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(("name", "config"), [("sgd", SGD), ("adam", ADAM)])
def test_two_processes_learn_what_one_learns(
    synthetic_dataset: Path, found: list[dict[str, Any]], name: str, config: Any
) -> None:
    alone = curve(synthetic_dataset, config)
    assert alone["losses"][0] != alone["losses"][-1]
    for process in found:
        torch.testing.assert_close(process[name]["losses"], alone["losses"], rtol=1e-10, atol=0)
        for weights in ("network", "best"):
            torch.testing.assert_close(process[name][weights], alone[weights], rtol=1e-8, atol=1e-10)
    for weights in found[0][name]["network"].items():
        assert torch.equal(weights[1], found[1][name]["network"][weights[0]]), weights[0]


def test_without_synchronised_norms_two_processes_learn_something_else(found: list[dict[str, Any]]) -> None:
    assert abs(found[0]["unsynchronised"]["losses"][0][2] - found[0]["sgd"]["losses"][0][2]) > 1e-3
    assert found[0]["unsynchronised"]["losses"] == found[1]["unsynchronised"]["losses"]


@pytest.mark.parametrize("place", range(len(NORM_INPUTS)))
def test_batch_norm_over_processes_is_pytorchs_over_all_rows(found: list[dict[str, Any]], place: int) -> None:
    whole = normalised(NORM_INPUTS[place], slice(None), synchronise=False)
    shares = [process["norms"][place] for process in found]
    for rows in ("output", "gradient"):
        torch.testing.assert_close(torch.cat([share[rows] for share in shares]), whole[rows], rtol=1e-9, atol=1e-9)
    for summed in ("weight_gradient", "bias_gradient"):
        torch.testing.assert_close(shares[0][summed] + shares[1][summed], whole[summed], rtol=1e-9, atol=1e-9)
    for share in shares:
        for kept in ("0.running_mean", "0.running_var", "0.num_batches_tracked", "0.weight"):
            torch.testing.assert_close(share[kept], whole[kept], rtol=1e-12, atol=0)


def test_gathering_keeps_the_order_and_the_gradient(found: list[dict[str, Any]]) -> None:
    own = torch.arange(6.0).view(2, 3)
    weights = torch.arange(12.0).view(2, 6)
    for rank, process in enumerate(found):
        assert torch.equal(process["gathered"]["joined"], torch.cat([own, own + 10], dim=1))
        # Of the sum of both processes' losses, which weigh 1 and 2.
        assert torch.equal(process["gathered"]["gradient"], 3 * weights[:, 3 * rank : 3 * rank + 3])
        assert process["labels"].tolist() == [0, 7, 1, 7]


def test_shares_flags_and_means(found: list[dict[str, Any]]) -> None:
    assert [process["share"] for process in found] == [[0, 3], [3, 6]]
    for process in found:
        assert process["unequal share"][1].startswith("a batch of 7 images cannot be shared equally by 2 processes")
        assert process["flags"] == (True, False, True)
        assert process["mean"].tolist() == [0.5, 3.0]
        assert process["nan"].isnan()
        assert process["first"] == "made by 0"


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        ("first failed", ["InputError", "no room"], ["SystemExit", 2]),
        ("one failed", ["SystemExit", 2], ["InputError", "an image is missing here"]),
        ("none failed", ["", ""], ["", ""]),
        ("equal", ["", ""], ["", ""]),
        ("missing in one", ["SystemExit", 2], ["InputError", "an image is missing here"]),
    ],
)
def test_one_process_says_why_and_all_leave(
    found: list[dict[str, Any]], what: str, first: list[Any], second: list[Any]
) -> None:
    assert [process[what] for process in found] == [first, second]


def test_a_loss_that_breaks_in_one_process_stops_both(found: list[dict[str, Any]]) -> None:
    name, message = found[0]["nan in one"]
    assert name == "HamrEdgeError"
    assert message.startswith("the loss became nan in epoch 1, step 2 (ID loss nan")
    assert found[1]["nan in one"] == ["SystemExit", 1]


def test_what_processes_cannot_share_is_refused(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert process["unequal"][1].startswith("the processes see different images")
        assert process["device"][0] in ("UnavailableError", "InputError")


def test_a_signal_to_one_process_stops_both_and_one_goes_on(synthetic_dataset: Path, tmp_path: Path) -> None:
    run, script = tmp_path / "run", tmp_path / "stop.py"
    script.write_text(STOP_ONE_PROCESS)
    ended = torchrun(script, synthetic_dataset, "-o", run, *OPTIONS, "--device", "cpu", "--quiet")
    assert ended.returncode != 0
    words = "stopped in epoch 2 after step 2 of 4; go on with: torchrun --nproc-per-node 2 -m hamr_edge.trainer"
    assert ended.stderr.count(words) == 1
    assert {path.name for path in run.iterdir()} == {"state.pt", "weights.safetensors", "checkpoint.json", "log.csv"}
    state = load_state(run)
    assert (state["epoch"], state["step"]) == (2, 2)
    info = resume(open_dataset(synthetic_dataset), run, device="cpu", quiet=True)
    assert info.epoch == load_checkpoint(run)[1].epoch == 3
    train(replace(SHALLOW, epochs=1), open_dataset(synthetic_dataset), tmp_path / "alone", quiet=True)
    ours, alone = read_log(run), read_log(tmp_path / "alone")
    assert [row["epoch"] for row in ours] == ["1", "2", "3"]
    # In float32 this tiny network's roundings grow fast; the first epoch still shows that the batches were the same.
    assert float(ours[0]["id_loss"]) == pytest.approx(float(alone[0]["id_loss"]), rel=1e-3)
