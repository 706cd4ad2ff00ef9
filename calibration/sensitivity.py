"""What each block loses when it is quantised alone, and which blocks to give back until a budget holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from hamr_edge.calibration.blocks import Block
from hamr_edge.calibration.budget import Budget
from hamr_edge.calibration.held_out import Loss

_LEAST_COST = 1e-3
"""A byte is more, and less than a microsecond an image is noise of the clock."""


@dataclass(frozen=True, slots=True)
class BlockLoss:
    """One block quantised, everything else float32."""

    block: Block
    loss: Loss
    cost: float
    """What giving it back costs where everything else is quantised: bytes, or milliseconds an image."""

    @property
    def points(self) -> float:
        """Loss in percentage points: of mAP, and of mean cosine.

        On few queries mAP is coarse and moves both ways by chance; the cosine then tells blocks apart.
        """
        return max(self.loss.map_drop, 0.0) + 100 * (1 - self.loss.mean_cosine)

    @property
    def worth(self) -> float:
        """Points recovered for each unit of cost when the block is given back."""
        return self.points / max(self.cost, _LEAST_COST)


@dataclass(frozen=True, slots=True)
class Step:
    """One state of the search."""

    given_back: str | None
    """The block that was given back last; None at the start."""
    loss: Loss


def hold_budget(
    losses: Sequence[BlockLoss],
    quantised: Sequence[Block],
    measure: Callable[[Collection[str]], Loss],
    budget: Budget,
    queries: int,
) -> tuple[tuple[Block, ...], tuple[Step, ...]]:
    """Give blocks back, that of most worth first, until the budget holds.

    Args:
        losses: Of every block alone.
        quantised: The blocks to begin with.
        measure: The loss with the named sites quantised.
        budget: What may be lost.
        queries: Queries that losses are measured on.

    Returns:
        The blocks that stay quantised, none where the budget cannot be held; and the steps on the way there.
    """
    worth = {item.block.name: item.worth for item in losses}
    left = sorted(quantised, key=lambda block: worth[block.name])
    steps = [Step(None, measure(sites_of(left)))]
    while left and any(budget.misses(steps[-1].loss, queries)):
        given_back = left.pop()
        if left:
            steps.append(Step(given_back.name, measure(sites_of(left))))
    return tuple(block for block in quantised if block in left), tuple(steps)


def sites_of(blocks: Sequence[Block]) -> frozenset[str]:
    """Names of all sites of some blocks."""
    return frozenset(site for block in blocks for site in block.sites)
