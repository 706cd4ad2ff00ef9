"""The training loop: settings, data, network, optimizer, then epochs, read top to bottom."""

from __future__ import annotations

import csv
import hashlib
import math
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hamr_edge import __version__
from hamr_edge.atomic import make_folder, replace_file
from hamr_edge.dataset import ReidDataset
from hamr_edge.errors import HamrEdgeError, InputError
from hamr_edge.evaluation import can_be_scored, evaluate
from hamr_edge.progress import progress_bar
from hamr_edge.stop_request import StopRequest
from hamr_edge.trainer.augment import augment, step_generator
from hamr_edge.trainer.checkpoint import (
    DESCRIPTION,
    STATE,
    CheckpointInfo,
    load_state,
    save_checkpoint,
    save_state,
)
from hamr_edge.trainer.config import TrainConfig
from hamr_edge.trainer.datasets import load_training_images
from hamr_edge.trainer.losses import hamr_loss
from hamr_edge.trainer.network import Hamr, PartFeatures
from hamr_edge.trainer.pretrained import load_pretrained
from hamr_edge.trainer.sampler import epoch_batches
from hamr_edge.trainer.schedule import learning_rate
from hamr_edge.trainer.torch_backend import TorchBackend, choose_device

LOG = "log.csv"


class TrainingStopped(Exception):  # noqa: N818 - an event, not an error
    """Ctrl-C: training stopped after a whole step and its state is saved."""


def train(
    config: TrainConfig,
    dataset: ReidDataset,
    run: Path,
    pretrained: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> CheckpointInfo:
    """Train a network and leave a checkpoint in ``run``.

    All randomness is a function of the seed, the epoch and the step, so a resumed run goes on as an unbroken one would.

    Args:
        config: What to train and how.
        dataset: Trained on its training split, scored on its query and gallery.
        run: Folder of the checkpoint.
        pretrained: First weights of the backbone; see :func:`hamr_edge.trainer.pretrained.load_pretrained`.
        device: ``cpu``, ``cuda:N`` or ``auto``.
        quiet: No progress.

    Raises:
        InputError: The data set does not fit the settings, or ``run`` holds a run already.
        TrainingStopped: After Ctrl-C.
        HamrEdgeError: The loss or a weight is not finite; the last checkpoint stays as it is.
    """
    chosen = choose_device(device)
    if (run / DESCRIPTION).exists() or (run / STATE).exists():
        raise InputError(f"{run} holds a run already; go on with --resume, or name another folder with -o")
    torch.manual_seed(config.seed)
    network = Hamr(config.network, len(np.unique(dataset.train.identities)))
    source = ""
    if pretrained is not None:
        load_pretrained(network.backbone, config.network.backbone, pretrained)
        source = Path(pretrained).name
    info = CheckpointInfo(config, network.classes, dataset.name, pretrained=source, versions=_versions())
    return _fit(network, info, dataset, run, chosen, quiet)


def resume(dataset: ReidDataset, run: Path, device: str = "auto", quiet: bool = False) -> CheckpointInfo:
    """Go on with the run in a folder, with its own settings; see :func:`train`.

    Raises:
        InputError: There is no state to resume from, or ``dataset`` is not the one it was trained on.
    """
    chosen = choose_device(device)
    state = load_state(run)
    info = CheckpointInfo.from_json(state["info"])
    if _fingerprint(dataset) != state["dataset_sha256"]:
        raise InputError(
            f"{run} was trained on other images than {dataset.name}'s (its data set was {info.dataset}, "
            f"{info.classes} identities); name that one, or start a new run with another -o"
        )
    return _fit(Hamr(info.config.network, info.classes), info, dataset, run, chosen, quiet, state)


def _fit(
    network: Hamr,
    info: CheckpointInfo,
    dataset: ReidDataset,
    run: Path,
    device: torch.device,
    quiet: bool,
    state: dict[str, Any] | None = None,
) -> CheckpointInfo:
    config = info.config
    # All that can be wrong with the data is found before the long work.
    epoch_batches(dataset.train.identities, config.ids_per_batch, config.images_per_id, config.seed, 1)
    if config.eval_every and not can_be_scored(dataset.query, dataset.gallery):
        raise InputError(
            f"no query of {dataset.name} has a gallery image of its identity from another camera: nothing can be "
            "scored; mend query and bounding_box_test, or train with --eval-every 0"
        )
    make_folder(run, "run folder")
    data = load_training_images(dataset.train, config.network.input_size_hw, quiet)
    dataset_sha256 = _fingerprint(dataset)

    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(network, config)
    amp_dtype = choose_amp(config, device)
    scaler = torch.amp.GradScaler(enabled=amp_dtype == torch.float16)
    history: list[dict[str, float]] = []
    losses: list[list[float]] = []
    first_epoch, first_step = 1, 0
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the run began without one
            scaler.load_state_dict(state["scaler"])
        history, losses = state["history"], state["losses"]
        first_epoch, first_step = state["epoch"], state["step"]
        save_checkpoint(run, network, info)  # what a crash may have left of another moment

    def save(epoch: int, step: int, losses: list[list[float]]) -> None:
        """Save so that a resumed run starts at this epoch's step, whose earlier steps had these losses."""
        save_state(  # first: a crash after it leaves what --resume needs
            run,
            {
                "info": info.to_json(),
                "dataset_sha256": dataset_sha256,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "history": history,
                "losses": losses,
                "epoch": epoch,
                "step": step,
            },
        )
        save_checkpoint(run, network, info)
        replace_file(run / LOG, lambda path: _write_log(path, history))

    with progress_bar(quiet) as progress, StopRequest() as stop:
        task = progress.add_task(f"epoch {first_epoch}/{config.epochs}", total=None, note="")
        for epoch in range(first_epoch, config.epochs + 1):
            network.train()
            batches = epoch_batches(data.labels, config.ids_per_batch, config.images_per_id, config.seed, epoch)
            progress.update(task, description=f"epoch {epoch}/{config.epochs}", total=len(batches) * config.epochs)
            progress.update(task, completed=(epoch - 1) * len(batches) + first_step)
            begun = time.perf_counter()
            for step in range(first_step, len(batches)):
                rate = learning_rate(config, epoch, step / len(batches))
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                rows = batches[step]
                images = torch.from_numpy(data.images[rows]).to(device, non_blocking=True)
                labels = torch.from_numpy(data.labels[rows]).to(device, non_blocking=True)
                images = augment(images, config, step_generator(config.seed, epoch, step))
                with torch.autocast(device.type, amp_dtype, enabled=amp_dtype is not None):
                    features = network(images)
                features = PartFeatures(*(tensor.float() for tensor in features))
                loss = hamr_loss(
                    features,
                    labels,
                    config.network.stripes,
                    config.margin,
                    config.label_smoothing,
                    config.normalize_triplet,
                )
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss.total).backward()  # type: ignore[no-untyped-call]
                scaler.step(optimizer)
                scaler.update()
                losses.append(torch.stack(loss).tolist())
                if not math.isfinite(losses[-1][0]):
                    kept = (
                        f"the last checkpoint in {run} is whole"
                        if (run / DESCRIPTION).exists()
                        else "nothing was saved"
                    )
                    raise HamrEdgeError(
                        f"the loss became {losses[-1][0]} in epoch {epoch}, step {step + 1}; {kept}. "
                        "Try a lower --learning-rate, or --amp off"
                    )
                speed = (step + 1 - first_step) * config.batch_size / (time.perf_counter() - begun)
                progress.update(task, advance=1, note=f"loss {losses[-1][0]:.3f}  lr {rate:.2e}  {speed:.0f} images/s")
                if stop.requested and step + 1 < len(batches):
                    save(epoch, step + 1, losses)
                    raise TrainingStopped(f"stopped in epoch {epoch} after step {step + 1} of {len(batches)}")
            total, identity, triplet = np.mean(losses, axis=0).tolist()
            first_step, losses = 0, []
            row = {"epoch": epoch, "loss": total, "id_loss": identity, "triplet_loss": triplet, "learning_rate": rate}
            row["images_per_s"] = speed
            words = f"epoch {epoch}/{config.epochs}  loss {total:.3f}  lr {rate:.2e}  {speed:.0f} images/s"
            info = replace(info, epoch=epoch)
            history.append(row)
            due = config.eval_every and (epoch % config.eval_every == 0 or epoch == config.epochs)
            if due and (epoch == config.epochs or not stop.requested):
                save(epoch + 1, 0, losses)  # whatever becomes of the evaluation
                with TorchBackend.of_network(network, device) as backend:
                    scores = evaluate(backend, dataset, quiet=True)
                info = replace(info, scores={**asdict(scores), "epoch": epoch})
                row.update(rank1=scores.rank1, map=scores.map)
                words += f"  rank-1 {100 * scores.rank1:.1f}  mAP {100 * scores.map:.1f}"
            if not quiet:
                progress.console.print(words)
            save(epoch + 1, 0, losses)
            if stop.requested and epoch < config.epochs:
                raise TrainingStopped(f"stopped after epoch {epoch} of {config.epochs}")
    return info


def build_optimizer(network: Hamr, config: TrainConfig) -> torch.optim.Optimizer:
    """One group for the backbone and one for the rest, each with its ``factor`` of the schedule's rate."""
    backbone = list(network.backbone.parameters())
    known = {id(parameter) for parameter in backbone}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups: list[dict[str, Any]] = [
        {"params": backbone, "factor": 1.0},
        {"params": heads, "factor": config.head_lr_factor},
    ]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)


def choose_amp(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision, None for plain float32."""
    if config.amp == "off" or (config.amp == "auto" and device.type == "cpu"):
        return None
    if config.amp == "fp16" and device.type == "cpu":
        raise InputError("--amp fp16 needs a GPU; on a CPU use bf16 or off")
    if config.amp == "fp16" or (config.amp == "auto" and not torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.float16
    return torch.bfloat16


def _write_log(path: Path, history: list[dict[str, float]]) -> None:
    columns = ["epoch", "loss", "id_loss", "triplet_loss", "learning_rate", "images_per_s", "rank1", "map"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)


def _fingerprint(dataset: ReidDataset) -> str:
    """SHA-256 of the training files' names: a resumed run must see the same images in the same order."""
    return hashlib.sha256("\n".join(path.name for path in dataset.train.paths).encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {"hamr-edge": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
