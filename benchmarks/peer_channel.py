"""A process that answers lines of JSON on its stdout to lines of JSON on its stdin."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from hamr_edge.errors import HamrEdgeError, InputError, UnavailableError

_README = "benchmarks/peers/README.md"
_ERRORS: dict[int, type[HamrEdgeError]] = {2: InputError, 4: UnavailableError}
"""By the exit code of a peer that did not start."""
READY = "ready"
"""Not asked: what a peer says first."""
_GRACE_S = 5.0
_LAST_LINES = 4


class PeerChannel:
    """A running process; building it starts it.

    Args:
        name: What errors call it.
        command: Words; no shell runs them.
        stderr: File for what it says beside its answers.

    Raises:
        UnavailableError: The command is not there.
    """

    def __init__(self, name: str, command: Sequence[str], stderr: Path) -> None:
        self._name, self._stderr = name, stderr
        # Its libraries are its own; ours must not be found in their place.
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            with stderr.open("wb") as said:
                # A session of its own: Ctrl-C reaches us alone, and we end it with all that it started.
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=environment,
                    start_new_session=True,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                )
        except OSError as error:
            raise UnavailableError(
                f"peer {name}: {command[0]} cannot be started ({error.strerror}); make its environment as {_README} "
                "says, and name its Python"
            ) from error
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._forward_lines, daemon=True)
        self._reader.start()

    def ask(self, what: str, words: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Put a question and wait for its answer; raises as :meth:`read`."""
        with contextlib.suppress(BrokenPipeError):  # reading tells why
            stdin = _pipe(self._process.stdin)
            stdin.write(json.dumps({"do": what, **words}) + "\n")
            stdin.flush()
        return self.read(what, timeout_s)

    def read(self, what: str, timeout_s: float) -> dict[str, Any]:
        """The next answer.

        Args:
            what: The question, for errors.
            timeout_s: How long it may take.

        Raises:
            InputError: The process ended since its arguments are wrong.
            UnavailableError: It ended since a library is not there.
            HamrEdgeError: It ended otherwise, took too long, answered no line of JSON, or says that it failed.
        """
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise HamrEdgeError(
                f"peer {self._name} gave no answer to '{what}' within {timeout_s:g} s; its last words: "
                f"{self._last_words()}"
            ) from None
        if line is None:
            raise self._ended(what)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise HamrEdgeError(
                f"peer {self._name} answered {line.strip()[:80]!r} to '{what}', which is no JSON object on a line; its "
                f"stdout is for answers alone, what libraries print must go to stderr ({_README})"
            )
        if "error" in answer:
            raise HamrEdgeError(
                f"peer {self._name} failed at '{what}': {answer['error']}; its last words: {self._last_words()}"
            )
        return answer

    def end(self) -> None:
        """Close its stdin, which tells it to end, and wait a little; then end it and all that it started."""
        with contextlib.suppress(OSError):  # it may be gone already
            _pipe(self._process.stdin).close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()
        self._reader.join(_GRACE_S)
        if not self._reader.is_alive():  # a process that outlived its parent may hold the other end
            _pipe(self._process.stdout).close()

    def _ended(self, what: str) -> HamrEdgeError:
        """It closed its stdout, as its end does."""
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_GRACE_S)
        how = "closed its stdout" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was ended by signal {-code} (out of memory, or a library's fault)"
        kind = _ERRORS.get(code or 0, HamrEdgeError) if what == READY else HamrEdgeError
        return kind(f"peer {self._name} {how} before it answered '{what}'; its last words: {self._last_words()}")

    def _last_words(self) -> str:
        said = self._stderr.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return " | ".join(lines[-_LAST_LINES:]) or "nothing"

    def _forward_lines(self) -> None:
        """Read on a thread, so that waiting for an answer can time out; None says that there will be no more."""
        with contextlib.suppress(OSError, ValueError):
            for line in _pipe(self._process.stdout):
                self._answers.put(line)
        self._answers.put(None)


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise HamrEdgeError("a peer was started without a pipe")
    return stream
