"""Our training step against the authors', step by step in turns, with what bounds both.

Run ``python -m hamr_edge.trainer.step_benchmark --help``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from hamr_edge.cli import run_and_exit
from hamr_edge.errors import GateError, InputError
from hamr_edge.json_file import STDOUT, check_json_target, write_json
from hamr_edge.machine import describe_machine, library_versions
from hamr_edge.progress import progress_bar, stderr_console, stdout_console
from hamr_edge.trainer.augment import augment, step_generator
from hamr_edge.trainer.authors_step import INPUT_SIZE_HW, AuthorsCode, AuthorsLosses, AuthorsStep, load_authors
from hamr_edge.trainer.batches import Batch
from hamr_edge.trainer.config import Amp, TrainConfig
from hamr_edge.trainer.heads import PartFeatures, level_sizes
from hamr_edge.trainer.learner import Learner
from hamr_edge.trainer.losses import hamr_loss
from hamr_edge.trainer.network import Hamr, NetworkConfig
from hamr_edge.trainer.step_bound import Clock, convolution_costs, count_flop, measure, product_rate
from hamr_edge.trainer.step_report import print_step_report
from hamr_edge.trainer.torch_backend import choose_device

CLASSES = 751
"""Market-1501's training identities."""
IMAGES_PER_ID = 4
_RATE = 1e-4
_LOSS_TOLERANCE = 1e-5
_DTYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to train on the batch."""

    name: str
    amp: str
    step: Callable[[], object]
    """Takes a step; returns when its loss is known."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--authors", type=click.Path(path_type=Path), metavar="DIR", help="A clone of their code.")
@click.option("--size", type=(int, int), default=INPUT_SIZE_HW, show_default=True, metavar="H W", help="Of the images.")
@click.option("--batch", type=click.IntRange(min=8), default=64, show_default=True, help="A multiple of 4.")
@click.option("--amp", type=click.Choice(list(_DTYPES)), multiple=True, default=("off",), help="Ours; may be repeated.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda:N or auto.")
@click.option("--compile", "compiled", is_flag=True, help="Ours through torch.compile too, which takes minutes.")
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Turns of each.")
@click.option("--steps", type=click.IntRange(min=1), help="Steps a turn.  [default: 1, on a GPU 10]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: PyTorch's]")
@click.option("--cpu-time", is_flag=True, help="Count CPU seconds, for a busy machine: one thread of a CPU only.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "json_file", metavar="FILE", help="Write the figures as JSON; - is stdout, without text.")
def step_benchmark(
    authors: Path | None,
    size: tuple[int, int],
    batch: int,
    amp: tuple[Amp, ...],
    device: str,
    compiled: bool,
    rounds: int,
    steps: int | None,
    threads: int | None,
    cpu_time: bool,
    seed: int,
    json_file: str | None,
) -> None:
    """Time training steps on a batch that lies ready on the device, ResNet-50, 751 identities.

    Every contestant has a turn in every round, in random order. Ours: with the paper's attention, which the authors'
    published network lacks, and without it.
    """
    if json_file is not None:
        check_json_target(json_file)
    if batch % IMAGES_PER_ID:
        raise InputError(f"--batch must be a multiple of {IMAGES_PER_ID} images an identity, got {batch}")
    if authors is not None and size != INPUT_SIZE_HW:
        raise InputError(f"the authors' network takes 384 x 128 alone, got {size[0]} x {size[1]}; leave --authors out")
    chosen = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    if cpu_time and (chosen.type != "cpu" or torch.get_num_threads() != 1):
        raise InputError("--cpu-time counts the work of one thread: give it with --device cpu --threads 1")
    clock = time.process_time if cpu_time else time.perf_counter
    steps = steps or (10 if chosen.type == "cuda" else 1)
    torch.manual_seed(seed)
    configs = {one: _config(size, batch, one) for one in dict.fromkeys(amp)}
    code = None if authors is None else load_authors(authors)
    say = stderr_console().print
    report = {"environment": _environment(chosen), "seed": seed, "batch": batch, "size_hw": list(size)}
    report |= {"authors_revision": code and code.revision, "steps_per_turn": steps, "cpu_time": cpu_time}
    images = torch.randn(batch, 3, *size, device=chosen)
    labels = torch.arange(batch // IMAGES_PER_ID, device=chosen).repeat_interleave(IMAGES_PER_ID) % CLASSES
    if code is not None:
        report["loss"] = _compare_losses(code, configs[amp[0]], images, labels)
    contestants = _contestants(code, configs, compiled, images, labels)
    say("measuring the bound")
    report["bound"] = _bound(code, configs, chosen, clock)
    say("first steps, which compile where asked to")
    first_s = [measure(contestant.step, chosen, time.perf_counter) for contestant in contestants]

    def turn(contestant: Contestant) -> float:
        return measure(contestant.step, chosen, clock, steps)

    times_s = _measure_rounds(contestants, turn, rounds, np.random.default_rng(seed))
    report["contestants"] = [
        _summary(contestant, times_s[:, index], times_s[:, 0], first_s[index], batch)
        for index, contestant in enumerate(contestants)
    ]
    report["augmentation_s"] = _augmentation_seconds(configs[amp[0]], chosen, clock, rounds)
    if json_file is not None:
        write_json(report, json_file)
    if json_file != STDOUT:
        print_step_report(report, stdout_console())


def _config(size_hw: tuple[int, int], batch: int, amp: Amp) -> TrainConfig:
    network = NetworkConfig("resnet50", size_hw)
    return TrainConfig(network, ids_per_batch=batch // IMAGES_PER_ID, images_per_id=IMAGES_PER_ID, amp=amp)


def _contestants(
    code: AuthorsCode | None,
    configs: dict[Amp, TrainConfig],
    compiled: bool,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> list[Contestant]:
    contestants = []
    if code is not None:
        theirs = AuthorsStep(code, CLASSES, images.device, _RATE)
        contestants.append(Contestant("authors", "off", lambda: theirs(images, labels)))
    batch = Batch(images.contiguous(memory_format=torch.channels_last), labels, None)

    def add(name: str, config: TrainConfig) -> None:
        learner = Learner(Hamr(config.network, CLASSES), config, images.device)
        learner.network.train()
        contestants.append(Contestant(name, config.amp, lambda: learner.step(batch, _RATE).read()))

    for config in configs.values():
        add("ours", config)
        add("ours without attention", replace(config, network=replace(config.network, attention="cat")))
        if compiled:
            add("ours, compiled", replace(config, compile=True))
    return contestants


def _compare_losses(
    code: AuthorsCode, config: TrainConfig, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, float]:
    """Both losses of the same features.

    Raises:
        GateError: They differ.
    """
    network = Hamr(config.network, CLASSES).to(images.device).train()
    with torch.no_grad():
        # A new network's logits are all near 0, where every cross-entropy is the same.
        features = PartFeatures(*(feature / feature.std() for feature in network(images)))
        ours = hamr_loss(features, labels, config)
        levels = [
            torch.cat(tuple(level), 1) for level in torch.split(features.triplet, level_sizes(config.network.stripes))
        ]
        theirs = AuthorsLosses(code, CLASSES, images.device, config.margin)(features.logits, levels, labels)
    found = {"ours": ours.total.item(), "authors": (theirs[0] + theirs[1]).item()}
    if abs(found["ours"] - found["authors"]) > _LOSS_TOLERANCE * abs(found["authors"]):
        raise GateError(f"the losses of the same features differ: ours {found['ours']}, theirs {found['authors']}")
    return found


def _bound(
    code: AuthorsCode | None, configs: dict[Amp, TrainConfig], device: torch.device, clock: Clock
) -> dict[str, Any]:
    config = next(iter(configs.values()))
    size_hw = config.network.input_size_hw
    with torch.device("meta"):
        network = Hamr(config.network, CLASSES)
        plain = Hamr(replace(config.network, attention="cat"), CLASSES)
    flop = {"ours": count_flop(network, size_hw), "ours without attention": count_flop(plain, size_hw)}
    if code is not None:
        flop["authors"] = count_flop(code.network(CLASSES).to("meta"), size_hw)
    rates = []
    for amp in configs:
        costs = convolution_costs(network.backbone, config.batch_size, size_hw, _DTYPES[amp], device, clock)
        rates.append(
            {
                "amp": amp,
                "product_gflops": product_rate(_DTYPES[amp], device, clock) / 1e9,
                "best_convolution_gflops": max(cost.gflop / cost.forward_s for cost in costs),
                "forward_convolutions_s": sum(cost.count * cost.forward_s for cost in costs),
                "backward_convolutions_s": sum(cost.count * cost.backward_s for cost in costs),
                "convolutions": [asdict(cost) for cost in costs],
            }
        )
    gflop = {name: {"forward": forward / 1e9, "step": step / 1e9} for name, (forward, step) in flop.items()}
    return {"gflop_an_image": gflop, "rates": rates}


def _measure_rounds(
    contestants: Sequence[Contestant], turn: Callable[[Contestant], float], rounds: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(rounds, contestants) seconds a step; a first round is not counted."""
    times_s = np.empty((rounds + 1, len(contestants)))
    with progress_bar() as progress:
        task = progress.add_task("rounds", total=rounds + 1, note="")
        for number in range(rounds + 1):
            for index in rng.permutation(len(contestants)).tolist():
                times_s[number, index] = turn(contestants[index])
            progress.update(task, advance=1)
    return times_s[1:]


def _summary(
    contestant: Contestant, times_s: NDArray[np.float64], first: NDArray[np.float64], first_step_s: float, batch: int
) -> dict[str, Any]:
    """Median and spread; the speedup is round by round, over the first contestant."""
    low, median, high = np.percentile(first / times_s, (5, 50, 95)).tolist()
    return {
        "name": contestant.name,
        "amp": contestant.amp,
        "times_s": times_s.tolist(),
        "median_s": float(np.median(times_s)),
        "images_per_s": batch / float(np.median(times_s)),
        "speedup": {"median": median, "low": low, "high": high},
        "first_step_s": first_step_s,
    }


def _augmentation_seconds(config: TrainConfig, device: torch.device, clock: Clock, rounds: int) -> float:
    shape = (config.batch_size, *config.network.input_size_hw, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    seconds = [
        measure(partial(augment, images, config, step_generator(0, 1, number)), device, clock)
        for number in range(rounds + 1)
    ]
    return float(np.median(seconds[1:]))


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **describe_machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "libraries": library_versions(),
    }


if __name__ == "__main__":
    run_and_exit(step_benchmark, "python -m hamr_edge.trainer.step_benchmark")
