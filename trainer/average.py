"""The moving average of a network's weights, which often scores better than the weights themselves."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hamr_edge.trainer.network import Hamr


def build_average(network: Hamr, decay: float) -> AveragedModel:
    """An exponential moving average of weights and running statistics; ``update_parameters`` after every step.

    The statistics are averaged as the weights are, so that both stand for the same stretch of training. In the first
    steps the decay is (1 + n) / (10 + n) after n of them, or the average would stay with the random first weights.

    Args:
        network: On its device; it is copied.
        decay: Share of the average that a step keeps, in 0..1.
    """

    def update(average: Any, current: Any, steps: Any) -> None:
        if average[0].is_floating_point():
            done = int(steps)
            follow: Any = get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))  # type: ignore[no-untyped-call]
            follow(average, current, steps)
        else:  # counters
            _copy(average, current)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
