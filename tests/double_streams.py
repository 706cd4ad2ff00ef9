"""Streams of a GPU that is not there: work waits until the host asks for it.

Work is a graph: each piece comes after the one before it on its stream, and after the events that its stream waits
for. Nothing else orders it, so two pieces that touch the same bytes without such an order are reported, whatever the
order in which they happen to run.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.double_memory import MisuseError


@dataclass(frozen=True, slots=True)
class Touch:
    """Bytes that a piece of work reads or writes; an execution context counts as a byte that is written."""

    start: int
    size: int
    write: bool

    def meets(self, other: Touch) -> bool:
        overlap = self.start < other.start + other.size and other.start < self.start + self.size
        return overlap and (self.write or other.write)


@dataclass(slots=True, eq=False)
class Step:
    """What a call puts on a stream."""

    label: str
    run: Callable[[], None]
    touches: tuple[Touch, ...] = ()
    fault: Callable[[], str] = str
    """Why it must not be launched again from a graph, in words; nothing where it may."""
    on_launch: Callable[[], None] = bool
    """Called when a graph that holds it is launched."""


@dataclass(slots=True, eq=False)
class Work:
    """A step on a stream, until the host knows that it is done."""

    step: Step
    stream: Stream
    after: list[Work]
    done: bool = False
    known: bool = False
    """The host has waited for it."""

    def ancestors(self) -> list[Work]:
        """What comes before it and is not known to be done, and itself, in an order to run them in."""
        order: list[Work] = []
        seen: set[int] = set()
        stack = [(self, False)]
        while stack:
            work, expanded = stack.pop()
            if expanded:
                order.append(work)
            elif not work.known and id(work) not in seen:
                seen.add(id(work))
                stack.append((work, True))
                stack.extend((earlier, False) for earlier in work.after)
        return order


@dataclass(slots=True, eq=False)
class Capture:
    """What was put on a stream while it was captured."""

    thread: int
    steps: list[Step] = field(default_factory=list)
    broken: str = ""
    """What made it invalid."""


@dataclass(slots=True, eq=False)
class Stream:
    """A stream of one GPU; handle 0 is the default stream, and 2 the one that each thread has of its own."""

    handle: int
    gpu: int
    blocking: bool
    """It and the default stream wait for each other."""
    tail: Work | None = None
    capture: Capture | None = None


_DONE = Step("done", bool)


class Streams:
    """Every stream, and all work that the host has not waited for.

    Args:
        seed: None runs work as late as it can be; a number runs what is ready at odd moments and in an odd order.
    """

    def __init__(self, seed: int | None) -> None:
        self._random = None if seed is None else random.Random(seed)
        self._alive: dict[object, Stream] = {}
        self._next_handle = 0x1000
        self.unknown: list[Work] = []
        """Work that the host has not waited for, in the order in which it came."""

    def create(self, gpu: int, blocking: bool) -> Stream:
        self._next_handle += 0x10
        stream = self._alive[self._next_handle] = Stream(self._next_handle, gpu, blocking)
        return stream

    def destroy(self, stream: Stream) -> None:
        del self._alive[stream.handle]

    def created(self) -> list[Stream]:
        return [stream for stream in self._alive.values() if stream.handle > 2]

    def find(self, handle: int, gpu: int) -> Stream:
        """The stream of a handle: 0 and 1 are the default stream. Raises MisuseError if it is none of this GPU."""
        if handle in (0, 1, 2):
            key = (gpu, threading.get_ident() if handle == 2 else None)
            return self._alive.setdefault(key, Stream(2 if handle == 2 else 0, gpu, True))
        stream = self._alive.get(handle)
        if stream is None:
            raise MisuseError(f"{handle:#x} is the handle of no stream that is alive")
        if stream.gpu != gpu:
            raise MisuseError(
                f"stream {handle:#x} belongs to GPU {stream.gpu}, and the context of GPU {gpu} is current"
            )
        return stream

    def put(self, stream: Stream, step: Step, after: Work | None = None) -> Work | None:
        """Put a step on a stream, or into its capture; gives the work, or None where it is captured.

        Raises:
            MisuseError: Other work on the same bytes is not known to be done before.
        """
        if stream.capture is not None:
            stream.capture.steps.append(step)
            return None
        earlier = [work for work in (*self._before(stream), after) if work is not None and not work.known]
        work = Work(step, stream, earlier)
        before = {id(other) for other in work.ancestors()}
        for other in self.unknown:
            if id(other) not in before and (clash := _clash(step, other.step)):
                raise MisuseError(
                    f"'{step.label}' on stream {stream.handle:#x} and '{other.step.label}' on stream "
                    f"{other.stream.handle:#x} both touch {clash}, and neither waits for the other"
                )
        stream.tail = work
        self.unknown.append(work)
        self._run_some()
        return work

    def wait(self, work: Work | None) -> None:
        """Return when a piece of work is done, as the host does; raises what it raises."""
        if work is None or work.known:
            return
        while self._random is not None and not work.done:
            self._run(self._random.choice(self._ready()))
        ancestors = work.ancestors()
        for earlier in ancestors:
            self._run(earlier)
        for earlier in ancestors:
            earlier.known = True
            # What it held, host arrays among it, may go.
            earlier.after, earlier.step = [], _DONE
            if earlier.stream.tail is earlier:
                earlier.stream.tail = None
        self.unknown = [other for other in self.unknown if not other.known]

    def users(self, start: int, size: int) -> list[Work]:
        """Work that may still touch these bytes."""
        span = Touch(start, size, True)
        return [work for work in self.unknown if any(span.meets(touch) for touch in work.step.touches)]

    def _before(self, stream: Stream) -> Iterator[Work | None]:
        yield stream.tail
        if stream.blocking:
            for other in self._alive.values():
                one_is_default = (stream.handle == 0) != (other.handle == 0)
                if other.gpu == stream.gpu and other.blocking and one_is_default:
                    yield other.tail

    def _run_some(self) -> None:
        while self._random is not None and self._random.random() < 0.5 and (ready := self._ready()):
            self._run(self._random.choice(ready))

    def _ready(self) -> list[Work]:
        return [work for work in self.unknown if not work.done and all(earlier.done for earlier in work.after)]

    def _run(self, work: Work) -> None:
        if not work.done:
            work.done = True
            work.step.run()


def _clash(step: Step, other: Step) -> str:
    for one in step.touches:
        for two in other.touches:
            if one.meets(two):
                return f"{one.size} bytes at {one.start:#x}" if one.size > 1 else "one execution context"
    return ""
