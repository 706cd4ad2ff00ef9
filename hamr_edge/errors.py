"""The errors that hamr-edge raises on purpose. Each carries the exit code that the command line gives it."""

from __future__ import annotations


class HamrEdgeError(Exception):
    """Base of every deliberate error; the message says what was expected, what came and what to do."""

    exit_code = 1


class InputError(HamrEdgeError, ValueError):
    """An argument, a file or a data set is not what is expected."""

    exit_code = 2


class ArtifactError(InputError):
    """An artifact has no sidecar, or one that does not belong to it."""


class GateError(HamrEdgeError):
    """A check of quality failed (parity, retrieval or speed); nothing was published."""

    exit_code = 3


class UnavailableError(HamrEdgeError):
    """The device or library asked for is not there."""

    exit_code = 4


class OverloadError(HamrEdgeError):
    """More work came than could be done in time: a request was dropped or rejected, as the queue's rule says."""
