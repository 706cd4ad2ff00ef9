"""A machine with GPUs that are not there: what the doubles of PyCUDA, cuda-bindings and TensorRT share."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.double_memory import Block, DeviceMemory, HostMemory, MisuseError
from tests.double_streams import Capture, Step, Stream, Streams, Touch, Work

Profile = dict[str, tuple[tuple[int, ...], ...]]
"""Smallest, likeliest and largest shape of each input."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of an engine, by a plain call or by the launch of a graph."""

    shapes: dict[str, tuple[int, ...]]
    by_graph: bool


@dataclass(slots=True)
class Options:
    """What the machine is, and what goes wrong on it. May be changed while it is in use."""

    gpus: int = 1
    compute_capability: tuple[int, int] = (8, 7)
    integrated: bool = False
    name: str = "Double of a GPU"
    memory_bytes: int = 1 << 30
    """Of each GPU."""
    tensorrt_version: str = "10.3.0"
    scratch_bytes: int = 4096
    """Device memory that an execution context of any engine works in."""
    init_error: str = ""
    """What PyCUDA says at ``init``, where the driver does not start."""
    plan_error: str = ""
    """What TensorRT logs of any plan, which it then refuses to load."""
    context_error: str = ""
    """What TensorRT logs when it is asked for an execution context, which it then does not make."""
    execute_error: str = ""
    """What TensorRT logs when it is asked for a run, which it then refuses."""
    capture_fails: str = ""
    """``begin``, ``enqueue`` (TensorRT refuses and breaks the capture), ``end`` or ``instantiate``."""
    seed: int | None = None
    """None runs work as late as it can be; a number runs it at odd moments and in an odd order."""


@dataclass(eq=False)
class Machine:
    """The state of every double, and what tests ask of it."""

    options: Options = field(default_factory=Options)
    faults: list[str] = field(default_factory=list)
    """Every misuse, also where the code under test swallowed the error or none could be raised."""
    counts: Counter[str] = field(default_factory=Counter)
    """Calls by name, and ``captures``, ``launches``, ``executions``."""
    history: list[tuple[int, str]] = field(default_factory=list)
    """Handle of the stream and label of everything that was put on a stream, in order."""
    runs: list[Run] = field(default_factory=list)
    """Executions in the order in which they were put on streams; captures are none."""
    plans: dict[str, tuple[Path, Profile]] = field(default_factory=dict)
    """Registered plans by the SHA-256 of their bytes."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self.initialised = False
        self.memory = [DeviceMemory(self.options.memory_bytes) for _ in range(self.options.gpus)]
        self.host = HostMemory()
        self.streams = Streams(self.options.seed)
        self.events = 0
        """Events that are alive."""
        self.graphs = 0
        """Graphs that are alive, executable or not."""
        self._stacks: dict[threading.Thread, list[int]] = {}

    def register_plan(self, plan: bytes, onnx_path: Path, profile: Profile) -> None:
        """Let TensorRT's double load a plan that another builder made, and compute by the ONNX it was made of."""
        self.plans[hashlib.sha256(plan).hexdigest()] = (Path(onnx_path), profile)

    def fault(self, words: str) -> MisuseError:
        """Keep a misuse; gives the error to raise."""
        self.faults.append(words)
        return MisuseError(words)

    @property
    def stack(self) -> list[int]:
        """GPUs whose contexts this thread has pushed, the current one last."""
        return self._stacks.setdefault(threading.current_thread(), [])

    @contextmanager
    def call(self, name: str) -> Iterator[int]:
        """A call of a library: gives the current GPU; a misuse inside is kept."""
        with self.lock:
            self.counts[name] += 1
            if not self.stack:
                raise self.fault(f"{name}: no context is current in {threading.current_thread().name}")
            try:
                yield self.stack[-1]
            except MisuseError as error:
                if str(error) in self.faults:
                    raise
                raise self.fault(f"{name}: {error}") from error

    def captures(self, anywhere: bool = False) -> list[Capture]:
        """Captures that this thread has begun, or all."""
        found = [stream.capture for stream in self.streams.created() if stream.capture is not None]
        return [capture for capture in found if anywhere or capture.thread == threading.get_ident()]

    def put(self, stream: Stream, step: Step, after: Work | None = None) -> Work | None:
        """Put a step on a stream."""
        self.history.append((stream.handle, step.label))
        return self.streams.put(stream, step, after)

    def device_bytes(self, gpu: int, address: int, size: int) -> NDArray[np.uint8]:
        """Live bytes of a GPU. Raises MisuseError."""
        return self.memory[gpu].view(address, size)

    def release_device(self, gpu: int, block: Block) -> None:
        """Give device memory back."""
        if users := self.streams.users(block.address, block.data.nbytes):
            self.fault(f"device memory is freed while '{users[0].step.label}' may still use it")
        self.memory[gpu].release(block)

    def release_host(self, block: Block) -> None:
        """Page-locked memory is gone."""
        with self.lock:
            del self.host.blocks[block.address]
            if self.closed:
                return
            if not self.stack:
                self.fault("page-locked memory is freed where no context is current")
            if users := self.streams.users(block.address, block.data.nbytes):
                self.fault(f"page-locked memory is freed while '{users[0].step.label}' may still use it")

    def leaks(self) -> list[str]:
        """What is still there, in words; nothing after a clean end."""
        found = {
            "allocations of device memory": sum(len(memory.blocks) for memory in self.memory),
            "bytes that TensorRT holds": sum(memory.reserved for memory in self.memory),
            "arrays of page-locked memory": len(self.host.blocks),
            "streams": len(self.streams.created()),
            "events": self.events,
            "graphs": self.graphs,
            "contexts on a thread's stack": sum(map(len, self._stacks.values())),
            "pieces of work that nobody waited for": len(self.streams.unknown),
        }
        return [f"{count} {what}" for what, count in found.items() if count]


_active: list[Machine] = []


def machine() -> Machine:
    """The machine that is installed."""
    if not _active:
        raise RuntimeError("no double is installed")
    return _active[-1]


def activate(new: Machine | None) -> None:
    """Install a machine, or none."""
    for old in _active:
        old.closed = True
    _active[:] = [] if new is None else [new]


def reads(address: int, size: int) -> Touch:
    return Touch(address, size, False)


def writes(address: int, size: int) -> Touch:
    return Touch(address, size, True)
