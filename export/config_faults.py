"""What is wrong in a configuration of another tool that goes with an artifact."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hamr_edge.errors import GateError


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One field of a configuration that contradicts the artifact, or that the tool would take amiss."""

    field: str
    message: str
    """What is wrong and what was expected."""
    is_error: bool = True
    """The tool refuses it, or computes something else without a word. Otherwise it may go wrong."""


def raise_faults(faults: Iterable[ConfigFault], path: Path) -> None:
    """Pass where no fault is an error.

    Args:
        faults: Of the configuration.
        path: The configuration's, or the one it is about to get.

    Raises:
        GateError: The message lists every error.
    """
    wrong = [fault.message for fault in faults if fault.is_error]
    if wrong:
        raise GateError(f"{path} contradicts its artifact: {'; '.join(wrong)}")
