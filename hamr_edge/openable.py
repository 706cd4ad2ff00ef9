"""What is opened and closed, by a ``with`` statement or by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

_O = TypeVar("_O", bound="Openable")


class Openable(ABC):
    """A context manager over :meth:`open` and :meth:`close`: building it is cheap, resources are taken on entry."""

    def __enter__(self: _O) -> _O:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def open(self) -> None:
        """Take the resources; a second call does nothing."""

    @abstractmethod
    def close(self) -> None:
        """Give the resources back; a second call does nothing."""
