"""A simulated controller in the same process, without an event loop: reading and writing executes its steps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from math import inf

from tracer_async.simulator._port import PARTIAL_REQUEST_TIMEOUT, Discard, Ending, Idle, Port, Step

__all__ = ["SimWire"]


class SimWire:
    """A connection to *port*. See `Wire` for its methods."""

    __slots__ = ("_discarding", "_end", "_flush_at", "_idle", "_port", "_received", "_resume_at", "_steps", "_waiting")

    descriptor = -1
    unsent = b""

    def __init__(self, port: Port) -> None:
        self._port = port
        # What the client has to read, and what the port has to process after the present step.
        self._received = bytearray()
        self._waiting: list[bytes] = []
        self._steps: Iterator[Step] = iter(())
        # When the present step ends; -inf if there is none. And whether it ends when bytes are written.
        self._resume_at = -inf
        self._idle = False
        self._discarding = False
        self._end = False
        self._flush_at = inf
        self._execute(port.greet(), time.monotonic())

    def read(self) -> tuple[bytes, bool]:
        """See `Wire`."""
        self._run(time.monotonic())
        data = bytes(self._received)
        self._received.clear()
        if self._end and not data:
            raise EOFError
        return data, True

    def write(self, data: bytes) -> None:
        """See `Wire`."""
        now = time.monotonic()
        self._run(now)
        if self._idle:
            # This step ends, and the steps after it are left out.
            self._steps = iter(())
            self._resume_at = -inf
            self._idle = False
        if not self._discarding:
            self._waiting.append(data)
        self._run(now)

    def next_input(self, now: float) -> float | None:
        """See `Wire`."""
        if self._received or self._end:
            return now
        due = min(self._flush_at, self._resume_at if self._resume_at > -inf else inf)
        return due if due < inf else None

    def discard_output(self) -> bool:
        """See `Wire`."""
        return False

    def close(self, *, discard: bool) -> None:
        """See `Wire`."""

    def _run(self, now: float) -> None:
        """Execute what is due."""
        while now >= self._resume_at:
            if self._resume_at > -inf:
                self._discarding = self._idle = False
                resumed, self._resume_at = self._resume_at, -inf
                self._execute(self._steps, resumed)
            elif self._waiting:
                # Only after the last step: the bytes after a request wait until that one is answered.
                self._execute(self._port.feed(self._waiting.pop(0)), now)
            elif now >= self._flush_at:
                self._execute(self._port.flush(), now)
            else:
                return

    def _execute(self, steps: Iterable[Step], now: float) -> None:
        """Execute *steps* until one takes time."""
        self._steps = iter(steps)
        self._flush_at = inf
        for step in self._steps:
            if isinstance(step, bytes):
                self._received += step
                continue
            if isinstance(step, Ending):
                self._discarding = True
                self._end = step is Ending.HANG_UP
                self._resume_at = inf
            else:
                self._discarding = isinstance(step, Discard)
                self._idle = isinstance(step, Idle)
                self._resume_at = now + step.seconds
            if self._discarding:
                self._waiting.clear()
            return
        if self._port.pending:
            self._flush_at = now + PARTIAL_REQUEST_TIMEOUT
