"""Simulated controllers on bad lines: adapters that echo, bridges that deliver twice, outages of a whole site.

A line has one controller and one adapter or bridge. It handles one request at a time, in order, and sends each reply
to the client that is connected at that moment. So a late reply can arrive on a later connection.

The library's promises have bounds: a reply is at most `LATE_REPLY_WINDOW` late, and of two replies to one request the
second follows within `DUPLICATE_WINDOW`. A line stays well within these bounds, whatever its faults and the load of the
machine: it drops a reply that it would have to send later. It counts the replies that it still sends too late, measured
on the controllers' clock. There is a third bound. A reading may be one exchange older than it claims if a line begins
to duplicate replies, the copy arrives after the next request, and the reply to that request comes after the window. A
line drops such replies, too.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple, Protocol

from stress.clock import fast_time
from tracer_async.protocol import DUPLICATE_WINDOW, LATE_REPLY_WINDOW, OVERHEAD, Frame, FrameDecoder
from tracer_async.simulator import Faults
from tracer_async.simulator._faulty_port import make_port
from tracer_async.simulator._port import PARTIAL_REQUEST_TIMEOUT, Discard, Ending, Step, Wait
from tracer_async.simulator.device import SimulatedTracer

__all__ = ["Habits", "Line", "Site"]

# Seconds after the request: the earliest time at which a reply is sent, and the time after which it is dropped.
_WAITS = LATE_REPLY_WINDOW - 1.0
_TOO_LATE = LATE_REPLY_WINDOW - 0.5

# The same for a copy, behind the reply.
_COPY_WAITS = DUPLICATE_WINDOW - 0.15
_COPY_TOO_LATE = DUPLICATE_WINDOW - 0.1

# Seconds for which a bridge delivers each reply twice, and then once. Longer than the library remembers duplicates.
_DOUBLING = 90.0

# How likely any other reply is to be delivered twice, some time apart.
_COPIED = 0.003


class Habits(NamedTuple):
    """The permanent faults of a line."""

    echoes: bool = False
    """The adapter returns what is sent."""
    doubles: bool = False
    """The bridge delivers each reply twice, in one half of the time."""


class Wire(Protocol):
    """What a line sends to."""

    deaf: bool

    def send(self, data: bytes) -> None:
        """Hand *data* to the kernel."""

    def hang_up(self) -> None:
        """Close the connection, if there is one."""

    def pause(self) -> None:
        """Stop reading."""

    def resume(self) -> None:
        """Read what has arrived, and continue reading."""


class Site:
    """The faults that affect all lines of a process at the same time."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.late: list[str] = []
        """Replies that were handed to the kernel later than the bounds of the library's promises."""
        self.lost = False
        """Whether everything that is sent gets lost."""
        self.cut = False
        """Whether no connection can be made, or be kept."""
        self.blocked_since: float | None = None
        """Time since which nothing has been read. Requests sent in that time are answered afterwards."""
        self.wires: set[Wire] = set()

    async def outage(self, random: Random) -> None:
        """Start one outage that lasts some seconds, and end it."""
        kind = random.choice(("blocked", "cut", "lost"))
        self.counts[f"outage ({kind})"] += 1
        try:
            if kind == "blocked":
                self.blocked_since = fast_time()
                for wire in self.wires:
                    wire.pause()
                await asyncio.sleep(random.uniform(1.0, 6.0))
                for wire in self.wires:
                    wire.resume()
                for _ in range(2):  # turns of the loop, until everything that had arrived is read
                    await asyncio.sleep(0)
            else:
                self.lost, self.cut = True, kind == "cut"
                if self.cut:
                    for wire in list(self.wires):
                        wire.hang_up()
                await asyncio.sleep(random.uniform(2.0, 12.0))
        finally:
            if self.blocked_since is not None:
                for wire in self.wires:
                    wire.resume()
            self.blocked_since = None
            self.lost = self.cut = False


class Line:
    """One controller, and the adapter or bridge between it and the client."""

    def __init__(
        self, tracer: SimulatedTracer, number: int, site: Site, habits: Habits, *, faults: Faults, random: Random
    ) -> None:
        self._number = number
        self._tracer = tracer
        self._site = site
        self._habits = habits
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._port = make_port(tracer, faults)
        self._wire: Wire | None = None
        # What was received, and when at the earliest.
        self._inbox: deque[tuple[float, bytes]] = deque()
        self._arrived = 0.0
        self._steps: Iterator[Step] = iter(())
        self._waiting: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._lost_until = 0.0
        # When the last copy was sent.
        self._copied_at = 0.0
        # When the first good frame for a request was handed over, and how many requests had been followed by then: any
        # other one with the same number is a copy, or a reply to another master.
        self._sent = FrameDecoder()
        self._last: tuple[float, int] | None = None
        self.followed = 0

    def heal(self) -> None:
        """Stop all random faults. The permanent faults of the line stay."""
        self._port = make_port(self._tracer, None)

    def greet(self) -> Iterable[Step]:
        """Return what happens to a client that connects."""
        return self._port.greet()

    def connect(self, wire: Wire) -> None:
        """Accept a new client, which replaces the previous one."""
        before, self._wire = self._wire, wire
        if before is not None:
            before.hang_up()

    def disconnect(self, wire: Wire) -> None:
        """Handle the loss of a client."""
        if self._wire is wire:
            self._wire = None

    def receive(self, data: bytes, wire: Wire) -> None:
        """Take what a client sent."""
        site, now = self._site, fast_time()
        if site.lost or wire.deaf or now < self._lost_until:
            return
        if self._habits.echoes:
            wire.send(data)
            site.counts["echo"] += 1
        self._inbox.append((now if site.blocked_since is None else site.blocked_since, data))
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting is None:
            step = next(self._steps, None)
            if step is None:
                if not self._feed():
                    return
            elif isinstance(step, bytes):
                self._send(step)
            elif isinstance(step, Wait):
                seconds = min(step.seconds, self._arrived + _WAITS - fast_time())
                if seconds > 0:
                    self._waiting = self._loop.call_later(seconds, self._resume)
            elif isinstance(step, Discard):
                self._inbox.clear()
                self._lost_until = fast_time() + step.seconds
            elif self._wire is not None:
                if step is Ending.HANG_UP:
                    self._wire.hang_up()
                else:
                    self._wire.deaf = True

    def _resume(self) -> None:
        self._waiting = None
        self._go_on()

    def _feed(self) -> bool:
        """Take the next input; return whether there was any."""
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if not self._inbox:
            if self._port.pending:
                self._quiet = self._loop.call_later(PARTIAL_REQUEST_TIMEOUT, self._flush)
            return False
        self._arrived, data = self._inbox.popleft()
        self._steps = iter(self._port.feed(data))
        return True

    def _flush(self) -> None:
        self._quiet = None
        self._steps = iter(self._port.flush())
        self._go_on()

    # What the controller sends.

    def _send(self, data: bytes) -> None:
        now = fast_time()
        counts = self._site.counts
        if now > self._arrived + _TOO_LATE:
            counts["replies lost, or they would be too late"] += 1
            return
        if self._wire is None or self._site.lost:
            return
        if self._arrived < self._copied_at < now - _COPY_TOO_LATE:
            counts["late replies lost behind a copy"] += 1
            return
        first = self._note_frames(data, now)
        if first is not None and now > first + _COPY_TOO_LATE:
            counts["copies lost, or they would be too late"] += 1
            return
        self._wire.send(data)
        self._check("reply", self._arrived + LATE_REPLY_WINDOW)
        if first is not None:
            if first < now:
                self._copied_at = now
                self._check("copy", first + DUPLICATE_WINDOW)
            if len(data) >= OVERHEAD and self._doubles(now):
                self._loop.call_later(self._random.uniform(0.0, _COPY_WAITS), self._send_copy, data, first, self._wire)

    def _doubles(self, now: float) -> bool:
        return (self._habits.doubles and int(now / _DOUBLING) % 2 == 1) or self._random.random() < _COPIED

    def _note_frames(self, data: bytes, now: float) -> float | None:
        """Note what is sent; if it ends a good frame, return when the first one for the same request was sent."""
        first = None
        for frame in self._sent.feed(data):
            if isinstance(frame, Frame):
                last = self._last
                if last is not None and last[1] == self.followed:
                    first = last[0]
                else:
                    self._last = (now, self.followed)
                    first = now
        return first

    def _send_copy(self, data: bytes, first: float, wire: Wire) -> None:
        counts = self._site.counts
        if self._site.lost or wire is not self._wire:
            return
        if fast_time() > first + _COPY_TOO_LATE:
            counts["copies lost, or they would be too late"] += 1
            return
        self._copied_at = fast_time()
        wire.send(data)
        counts["copy"] += 1
        self._check("copy", first + DUPLICATE_WINDOW)

    def _check(self, what: str, latest: float) -> None:
        """Count what was sent too late because the machine is busy."""
        now = fast_time()
        if now > latest:
            self._site.late.append(f"controller {self._number}: a {what} {now - latest:.3f} s too late at {now:.3f}")
