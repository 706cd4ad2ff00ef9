"""Learning rates."""

from __future__ import annotations

import math

from hamr_edge.trainer.config import TrainConfig

_PAPER_PEAK = 0.01


def paper_rate(epoch: int, warmup_epochs: int = 10) -> float:
    """Equation 5 of the paper, whose warm-up takes 10 epochs; epochs count from 1."""
    if epoch <= warmup_epochs:
        return 3e-4 * epoch / warmup_epochs
    if epoch <= 60:
        return 0.01
    if epoch <= 90:
        return 0.005
    if epoch <= 120:
        return 0.0025
    return 0.00125


def learning_rate(config: TrainConfig, epoch: int, share_done: float) -> float:
    """The backbone's rate.

    Args:
        config: Names the schedule and the peak.
        epoch: Epoch under way, from 1.
        share_done: Share of this epoch's steps that are done, 0..1.
    """
    if config.schedule == "paper":
        return paper_rate(epoch, config.warmup_epochs) * config.learning_rate / _PAPER_PEAK
    done = epoch - 1 + share_done
    if done < config.warmup_epochs:
        return config.learning_rate * (0.1 + 0.9 * done / config.warmup_epochs)
    if config.schedule == "step":
        return config.learning_rate * (0.1 if done >= 0.75 * config.epochs else 1.0)
    left = (done - config.warmup_epochs) / max(1e-9, config.epochs - config.warmup_epochs)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, left)))
