"""The authors' published network, losses and training step, run from the user's own clone of their code.

Nothing of it is copied here (github ``libraflower/MutipleFeature-for-PRID``). Their classes run unmodified; what their
``train.py`` does between them, in a script that cannot be imported, is repeated in its order. torchvision, which their
model file imports for its ResNet-50, is replaced by this package's ResNet-50, which is the same network.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from hamr_edge.errors import InputError
from hamr_edge.trainer.resnet import ResNet

INPUT_SIZE_HW = (384, 128)
"""The only input their network takes: its stripes are rows written into the code."""
PARTS, LEVELS = 21, 6
_NETWORK, _LOSSES = "MultipleFeatureswithoutattention", "triplet_loss"


@dataclass(frozen=True, slots=True)
class AuthorsCode:
    """What is used of a clone."""

    network: type[nn.Module]
    triplet_loss: type
    cross_entropy: type[nn.Module]
    revision: str
    """The clone's commit, or unknown."""


def load_authors(clone: Path) -> AuthorsCode:
    """Load the network without attention (their other network's files are not in the repository) and the losses.

    Raises:
        InputError: The folder is not a clone of their code.
    """
    with _resnet_in_place_of_torchvision():
        network, losses = (_load(clone / f"{name}.py") for name in (_NETWORK, _LOSSES))
    command = ["git", "-C", str(clone), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    revision = found.stdout.strip() if found.returncode == 0 else "unknown"
    return AuthorsCode(network.MultipleFeatures, losses.TripletLoss, losses.CrossEntropyLabelSmooth, revision)


class AuthorsStep:
    """Their training step as their ``train.py`` takes it: float32, contiguous images, plain SGD with Nesterov momentum.

    Args:
        code: From :func:`load_authors`.
        classes: Training identities.
        device: Where to train.
        rate: Learning rate; they change it once an epoch, with a new optimizer.
    """

    def __init__(self, code: AuthorsCode, classes: int, device: torch.device, rate: float) -> None:
        self.network = code.network(classes).to(device).train()
        self._losses = AuthorsLosses(code, classes, device)
        self._optimizer = torch.optim.SGD(
            self.network.parameters(), lr=rate, weight_decay=5e-4, momentum=0.9, nesterov=True
        )

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """Learn from (N, 3, 384, 128) images and (N,) labels; the loss and the mean number of right answers a part."""
        self._optimizer.zero_grad()
        outputs = self.network(images)
        answers = [torch.max(logits.data, 1)[1] for logits in outputs[:PARTS]]
        identity, triplet = self._losses(outputs[:PARTS], outputs[PARTS:], labels)
        loss = identity + triplet
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        total = loss.item()
        right = [float(torch.sum(answer == labels.data)) for answer in answers]
        return total, sum(right) / PARTS


class AuthorsLosses:
    """Their two losses, joined as in their ``train.py``.

    Args:
        code: From :func:`load_authors`.
        classes: Training identities.
        device: Of what is given to it.
        margin: Of the triplet loss.
    """

    def __init__(self, code: AuthorsCode, classes: int, device: torch.device, margin: float = 1.0) -> None:
        self._cross_entropy = code.cross_entropy(classes, use_gpu=device.type == "cuda")
        self._triplet = code.triplet_loss(margin)

    def __call__(self, logits: Any, levels: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Average each loss.

        Args:
            logits: Of every part, (N, classes).
            levels: The joined triplet features of every level, (N, any).
            labels: (N,) int64.

        Returns:
            The mean ID loss and the mean triplet loss.
        """
        identity = sum(self._cross_entropy(part, labels) for part in logits) / len(logits)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This overload of addmm_ is deprecated")
            triplet = sum(self._triplet(level, labels)[0] for level in levels) / len(levels)
        return identity, triplet


@contextmanager
def _resnet_in_place_of_torchvision() -> Iterator[None]:
    models = ModuleType("torchvision.models")
    models.resnet50 = lambda pretrained: ResNet("resnet50", last_stride=2)  # type: ignore[attr-defined]  # noqa: ARG005
    package = ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("torchvision", "torchvision.models")}
    sys.modules.update({"torchvision": package, "torchvision.models": models})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"--authors needs a clone of libraflower/MutipleFeature-for-PRID; {path} is not there")
    spec = importlib.util.spec_from_file_location(f"authors_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
