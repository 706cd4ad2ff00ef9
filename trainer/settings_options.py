"""The options of ``train`` and ``ablate`` that set a :class:`TrainConfig`: one a field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar, get_args

import click

from hamr_edge.errors import InputError
from hamr_edge.trainer.config import PRESETS, Amp, MetricLoss, Optimizer, Schedule, TrainConfig
from hamr_edge.trainer.heads import Partition, Pooling
from hamr_edge.trainer.network import NetworkConfig
from hamr_edge.trainer.resnet import BLOCKS

Function = TypeVar("Function", bound=Callable[..., Any])
_NETWORK_FIELDS = {field.name for field in fields(NetworkConfig)}


class _Stages(click.ParamType):  # type: ignore[type-arg]
    name = "stages"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(stage) for stage in str(value).split(","))
        except ValueError:
            self.fail(f"expected stages joined by commas, like 2,3,4; got {value!r}", param, ctx)


_OPTIONS = (
    click.option("--backbone", type=click.Choice(list(BLOCKS))),
    click.option("--imgsz", "input_size_hw", type=(int, int), metavar="H W", help="Input size in pixels."),
    click.option("--stages", type=_Stages(), metavar="LIST", help="Stages whose maps are fused, like 2,3,4."),
    click.option("--last-stride", type=int, help="Stride of stage 4: 1 or 2."),
    click.option("--attention", metavar="ORDER", help="Of s (spatial), c (channel) and cat, like s+cat+c."),
    click.option("--partition", type=click.Choice(get_args(Partition)), help="How the body is cut into parts."),
    click.option("--pooling", type=click.Choice(get_args(Pooling)), help="Pools of a part."),
    click.option("--stripes", type=int, help="K: the finest cut of the body; with mgo, K (K + 1) / 2 parts."),
    click.option("--reduced-dim", type=int, help="Width inside a part's head."),
    click.option("--part-dim", type=int, help="Values a part gives to the embedding."),
    click.option("--stride-in-1x1/--stride-in-3x3", default=None, help="Where the pretrained bottlenecks stride."),
    click.option("--epochs", type=int),
    click.option("--ids-per-batch", type=int, help="P: identities a batch."),
    click.option("--images-per-id", type=int, help="K: images of each."),
    click.option("--optimizer", type=click.Choice(get_args(Optimizer))),
    click.option("--learning-rate", type=float, help="Peak rate of the backbone."),
    click.option("--head-lr-factor", type=float, help="Rate of all else, relative to it."),
    click.option("--weight-decay", type=float),
    click.option("--schedule", type=click.Choice(get_args(Schedule))),
    click.option("--warmup-epochs", type=int),
    click.option("--metric-loss", type=click.Choice(get_args(MetricLoss))),
    click.option("--margin", type=float, help="Of the triplet loss."),
    click.option(
        "--normalize-triplet/--raw-triplet", default=None, help="Triplet loss on unit vectors or raw features."
    ),
    click.option("--label-smoothing", type=float),
    click.option("--flip", type=float, help="Probability of a flip."),
    click.option("--crop-padding", type=int, help="Random crop: padding in pixels."),
    click.option("--erase", type=float, help="Probability of random erasing."),
    click.option("--drop-block", type=float, help="Probability of batch drop-block."),
    click.option("--color-jitter", type=float, help="Strength of random brightness, contrast and saturation."),
    click.option("--ema", type=float, help="Decay of the weights' moving average; 0: none."),
    click.option("--eval-every", type=int, help="Score every that many epochs; 0: never."),
    click.option("--seed", type=int),
    click.option("--amp", type=click.Choice(get_args(Amp)), help="Mixed precision."),
    click.option("--compile/--no-compile", default=None, help="Train through torch.compile."),
    click.option("--sync-bn/--no-sync-bn", default=None, help="Several processes: batch norm over the whole batch."),
    click.option("--skip-bad", is_flag=True, default=None, help="Leave out training images that cannot be decoded."),
)
_SPELLING = {"input_size_hw": "--imgsz"}


def settings_options(default_preset: str) -> Callable[[Function], Function]:
    """Give a command every setting of a run as an option; an option that is not given is None."""
    preset = click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help=f"Where settings start from.  [default: {default_preset}]",
    )

    def decorate(function: Function) -> Function:
        for option in reversed((preset, *_OPTIONS)):
            function = option(function)
        return function

    return decorate


def configure(options: dict[str, Any], default_preset: str) -> TrainConfig:
    """The settings that the options make, starting from the preset they name."""
    given = {name: value for name, value in options.items() if value is not None}
    preset = PRESETS[given.pop("preset", default_preset)]
    network = {name: value for name, value in given.items() if name in _NETWORK_FIELDS}
    training = {name: value for name, value in given.items() if name not in _NETWORK_FIELDS}
    return replace(preset, network=replace(preset.network, **network), **training)


def refuse_settings(options: dict[str, Any]) -> None:
    """Raise where a setting is given to a run that has its own.

    Raises:
        InputError: The message names the options.
    """
    given = [name for name in sorted(options) if options[name] is not None]
    if given:
        words = ", ".join(_SPELLING.get(name, f"--{name.replace('_', '-')}") for name in given)
        raise InputError(f"--resume goes on with the run's own settings; leave out {words}")
