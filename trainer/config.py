"""Settings of a training run and the presets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from hamr_edge.errors import InputError
from hamr_edge.trainer.network import NetworkConfig

Optimizer = Literal["sgd", "adam"]
Schedule = Literal["paper", "step", "cosine"]
Amp = Literal["auto", "off", "bf16", "fp16"]
MetricLoss = Literal["triplet", "soft-triplet"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a network is trained. The defaults are the paper's (section 4.1); stored with the checkpoint."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    epochs: int = 150
    ids_per_batch: int = 16
    """P identities a batch."""
    images_per_id: int = 4
    """K images of each."""
    optimizer: Optimizer = "sgd"
    """``sgd``: Nesterov momentum 0.9; ``adam``: Adam with its usual moments."""
    learning_rate: float = 0.01
    """Peak rate. The schedule ``paper`` is equation 5 times ``learning_rate / 0.01``."""
    head_lr_factor: float = 1.0
    """Rate of everything outside the backbone, relative to the backbone's."""
    weight_decay: float = 5e-4
    schedule: Schedule = "paper"
    """``paper``: equation 5; ``step``: warm-up, then x 0.1 after 3/4 of the epochs; ``cosine``: warm-up, then to 0."""
    warmup_epochs: int = 10
    """Length of the linear warm-up; 0: none."""
    metric_loss: MetricLoss = "triplet"
    """``triplet``: batch-hard with a margin, the paper's; ``soft-triplet``: with softplus in its place."""
    margin: float = 1.0
    """Margin of ``triplet``."""
    normalize_triplet: bool = False
    """Measure triplet losses on unit vectors; the paper measures them on the features as they are."""
    label_smoothing: float = 0.1
    flip: float = 0.5
    """Probability of a horizontal flip."""
    crop_padding: int = 10
    """Random crop: pixels of padding on each side before the crop back to size."""
    erase: float = 0.5
    """Probability of random erasing."""
    drop_block: float = 0.5
    """Probability that a batch loses one block, a third of the fused map's rows (batch drop-block)."""
    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation: each is scaled by 1 +- that share; 0: none."""
    ema: float = 0.0
    """Decay, a step, of the weights' moving average, which is what is evaluated and kept; 0: none."""
    eval_every: int = 10
    """CMC and mAP every that many epochs, and after the last; 0: never."""
    seed: int = 0
    amp: Amp = "auto"
    """``auto``: bf16 or fp16 on a GPU, off on a CPU."""
    compile: bool = False
    """Train through torch.compile."""
    sync_bn: bool = True
    """With several processes: batch normalisation over the whole batch, not over each process's share."""
    skip_bad: bool = False
    """Go on without training images that cannot be decoded."""

    def __post_init__(self) -> None:
        for name, lowest in (("epochs", 1), ("ids_per_batch", 2), ("images_per_id", 2), ("warmup_epochs", 0)):
            _at_least(name, getattr(self, name), lowest)
        for name in ("crop_padding", "eval_every", "seed", "weight_decay", "margin"):
            _at_least(name, getattr(self, name), 0)
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32, got {self.seed}")
        for name in ("flip", "erase", "drop_block", "color_jitter", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be in 0..1, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema must be at least 0 and below 1, got {self.ema}")
        for name in ("learning_rate", "head_lr_factor"):
            if not 0 < getattr(self, name) < 1e3:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        choices = (("optimizer", Optimizer), ("schedule", Schedule), ("amp", Amp), ("metric_loss", MetricLoss))
        for name, kinds in choices:
            if getattr(self, name) not in get_args(kinds):
                raise InputError(f"{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")

    @property
    def batch_size(self) -> int:
        """Images a batch."""
        return self.ids_per_batch * self.images_per_id

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold and :meth:`from_json` reads."""
        return {**asdict(self), "network": self.network.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_json`."""
        return cls(**{**values, "network": NetworkConfig.from_json(values["network"])})


def _at_least(name: str, value: float, lowest: float) -> None:
    if not lowest <= value < math.inf:
        raise InputError(f"{name} must be at least {lowest} and finite, got {value}")


_PAPER = TrainConfig()
_EDGE = replace(
    _PAPER,
    network=NetworkConfig("resnet18", (192, 64), part_dim=128),
    epochs=60,
    optimizer="adam",
    learning_rate=3.5e-4,
    head_lr_factor=5.0,
    schedule="cosine",
    warmup_epochs=3,
    margin=0.3,
    normalize_triplet=True,
    crop_padding=5,
    drop_block=0.0,
)
PRESETS: dict[str, TrainConfig] = {
    "paper": _PAPER,
    "edge": _EDGE,
    "smoke": replace(
        _EDGE,
        network=NetworkConfig("resnet18", (96, 32), stripes=3, reduced_dim=64, part_dim=32),
        epochs=12,
        ids_per_batch=8,
        learning_rate=1e-3,
        warmup_epochs=1,
        eval_every=6,
        crop_padding=3,
    ),
}
"""``paper``: the paper's; ``edge``: ResNet-18 at 192 x 64, for 2 cores and a Jetson Nano; ``smoke``: to try it."""
