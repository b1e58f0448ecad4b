"""A program with a signal handler that closes its client, at each line of a call.

``python -m tests.sync.closing_program KIND CALL STRIDE``. It fails if a call fails in another way than it may.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from tempfile import TemporaryFile
from types import FrameType
from typing import Any

from tests.promise.stamping_lines import Line, line_of
from tests.sync.lines import client
from tracer_async import LinkClosedError

# How each call may end: it was finished, or the client was closed.
OUTCOMES = {
    "open": {"done", "LinkClosedError"},
    "read": {"done", "LinkClosedError"},
    "set_load": {"done", "LinkClosedError"},
    "poll": {"done", "StopIteration"},
    "close": {"done"},
}


class SignalAt:
    """Sends a signal to this process before one line of any Python code, counted from the begin."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
        return self


class Told:
    """A recorder that keeps what the client tells it last."""

    def __init__(self) -> None:
        self.last: list[str] = []
        self.ups = 0

    def begin(self, recorded: str, now: float, *, timeout: float | None = None) -> None:
        self._told("begin")

    def record(self, sender: str, data: bytes | memoryview, now: float, /) -> None:
        self._told("record")

    def record_link(self, now: float, *, up: bool, by_client: bool = False, cause: str = "") -> None:
        self.ups += 1 if up else -1
        self._told("up" if up else "down")

    def end(self) -> None:
        self._told("end")

    def close(self) -> None:
        self._told("close")

    def _told(self, what: str) -> None:
        self.last = [*self.last[-2:], what]


def outcome(call: Callable[[], object]) -> str:
    """Call, and return how that ended."""
    try:
        call()
    except (LinkClosedError, StopIteration) as error:
        return type(error).__name__
    return "done"


def is_interrupted(line: Line, name: str, at: int) -> bool:
    """Close the client before one line of a call, and check all that can be seen. Return whether it still ran."""
    told = Told()
    files: list[Any] = []

    def handle(*_: object) -> None:
        tracer.close()
        # They get the numbers of descriptors that the client has closed.
        files.extend(TemporaryFile() for _ in range(6))  # noqa: SIM115  # they are closed below

    signal.signal(signal.SIGUSR1, handle)
    tracer = client(line, fence=0.01, recorder=told)
    readings = None
    if name != "open":
        tracer.open()
        readings = tracer.poll(0.001)
        assert next(readings).ok
    calls: dict[str, Callable[[], object]] = {
        "open": tracer.open,
        "read": tracer.read,
        "set_load": lambda: tracer.set_load(True),
        "poll": lambda: next(readings) if readings else None,
        "close": tracer.close,
    }
    sys.settrace(SignalAt(at))
    ended = outcome(calls[name])
    sys.settrace(None)
    if files:
        assert ended in OUTCOMES[name], (at, ended)
        assert str(tracer.state) == "closed", at
        assert outcome(tracer.read) == "LinkClosedError", at
        # The client has closed its link, and then its recorder.
        assert told.ups == 0, at
        assert told.last[-2:] == ["end", "close"] or not told.last, (at, told.last)
        assert readings is None or outcome(lambda: next(readings)) == "StopIteration", at
        # The client writes nothing into a descriptor that belongs to others.
        assert all(file.seek(0, os.SEEK_END) == 0 for file in files), at
        for file in files:
            file.close()
    tracer.close()
    return bool(files)


def main(kind: str, name: str, stride: int) -> None:
    """Interrupt the call at every line, or at each one of *stride* lines."""
    with line_of(kind) as line:
        at = 1
        while is_interrupted(line, name, at):
            at += stride
    sys.stdout.write(f"{at}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
