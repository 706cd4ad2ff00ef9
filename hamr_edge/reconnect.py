"""When to try again after a stream broke off: delays that grow, with a little chance in them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from hamr_edge.errors import InputError


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Exponential back-off. The first attempt waits too: what just broke off is rarely back at once."""

    first_delay_s: float = 1.0
    """Before the first attempt."""
    factor: float = 2.0
    """Each delay over the one before it."""
    longest_delay_s: float = 30.0
    attempts: int | None = None
    """Attempts in a row that may fail; endless when None."""
    jitter: float = 0.2
    """The share of a delay, 0 to 1, that chance may take off: cameras that fell together do not come back together."""

    def __post_init__(self) -> None:
        if not (0 <= self.first_delay_s <= self.longest_delay_s < math.inf):
            raise InputError(
                "delays must have 0 <= first_delay_s <= longest_delay_s, finite, got "
                f"{self.first_delay_s:g} and {self.longest_delay_s:g}"
            )
        if not 1 <= self.factor < math.inf:
            raise InputError(f"factor must be at least 1 and finite, got {self.factor:g}")
        if self.attempts is not None and self.attempts < 1:
            raise InputError(f"attempts must be at least 1, or None for endless ones, got {self.attempts}")
        if not 0 <= self.jitter <= 1:
            raise InputError(f"jitter must be from 0 to 1, got {self.jitter:g}")

    def delay_s(self, attempt: int, chance: float = 0.0) -> float:
        """Seconds to wait before an attempt.

        Args:
            attempt: In a row, from 1.
            chance: A random number, 0 to 1: how much of the jitter is taken off.
        """
        delay_s = self.first_delay_s
        if delay_s > 0:  # by logarithms, as the power of an endless count would overflow
            growth = math.log(delay_s) + (attempt - 1) * math.log(self.factor)
            delay_s = math.exp(min(growth, math.log(self.longest_delay_s)))
        delay_s = min(max(delay_s, self.first_delay_s), self.longest_delay_s)
        return delay_s * (1 - self.jitter * chance)


class ReconnectAttempts:
    """Counts the attempts in a row of one source.

    Args:
        rule: None for no attempts at all.
    """

    def __init__(self, rule: Reconnect | None) -> None:
        self.count = 0
        self._rule = rule

    def take_next(self, frames_came_for_s: float) -> bool:
        """Whether another attempt is allowed; then it is counted.

        Args:
            frames_came_for_s: How long the source gave frames before it broke off, 0 for not at all. The row ends where
                that is longer than the last delay: a stream that breaks off soon each time has not recovered.
        """
        if self._rule is None:
            return False
        if frames_came_for_s > self._rule.delay_s(max(self.count, 1)):
            self.count = 0
        if self._rule.attempts is not None and self.count >= self._rule.attempts:
            return False
        self.count += 1
        return True

    def delay_s(self) -> float:
        """Seconds to wait before the attempt that was taken, 0 when there was none; differs from call to call."""
        return 0.0 if self._rule is None or not self.count else self._rule.delay_s(self.count, random.random())
