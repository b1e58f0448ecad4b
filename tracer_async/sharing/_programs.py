"""All programs that are connected: limits on their number and idle time, and when their requests arrived."""

from __future__ import annotations

import asyncio
import logging
from math import inf

from tracer_async.client._suspend import SuspendWatch
from tracer_async.protocol import Frame
from tracer_async.sharing._hub import Hub, SharingStats
from tracer_async.sharing._program import Program

__all__ = ["Programs"]

_log = logging.getLogger("tracer_async.sharing")

# Seconds between two looks at the clock. Also while no program is connected: one may connect while the event loop is
# blocked.
_BEAT = 0.05
# If there are too many programs, one that has sent no request for this many seconds makes room for a new one.
_MAKES_ROOM_AFTER = 10.0
# Seconds for which requests are read that had arrived while the event loop was blocked.
_AFTER_STALL = 0.05
# Seconds after a suspend of the machine for which requests may be any time old.
_AFTER_SUSPEND = 1.0
# Minimum seconds between two warnings about refused programs: anyone on the network can connect very often.
_WARNING_INTERVAL = 60.0


class Programs:
    """The programs that are connected to one hub."""

    def __init__(self, hub: Hub, *, max_clients: int, idle_timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._hub = hub
        self._max_clients = max_clients
        self._idle_timeout = idle_timeout
        self._programs: set[Program] = set()
        self._closed = False
        # When the event loop was last known to run, and the last time for which it was blocked.
        self._beat_at = self._loop.time()
        self._stall = (0.0, 0.0)
        self._timer = self._loop.call_later(_BEAT, self._beat)
        self._suspends = SuspendWatch()
        self._suspect_until = -inf
        self._refused = 0
        # When a refusal was last logged as a warning, and how many there had been.
        self._warned_at = -inf
        self._warned = 0

    @property
    def stats(self) -> SharingStats:
        """The present counters."""
        hub = self._hub
        return SharingStats(len(self._programs), self._refused, hub.requests, hub.replies, hub.cached)

    def add(self, program: Program) -> bool:
        """Add a program that has connected. Return False if there are too many."""
        if self._closed or (len(self._programs) >= self._max_clients and not self._make_room()):
            self.refuse(program.name, "there are too many programs")
            return False
        self._programs.add(program)
        return True

    def refuse(self, name: str, reason: str) -> None:
        """Count a program that may not connect."""
        self._refused += 1
        now = self._loop.time()
        if now - self._warned_at < _WARNING_INTERVAL:
            _log.info("%s: refused: %s", name, reason)
            return
        more = self._refused - self._warned - 1
        since = f"; {more} more since the last warning" if more else ""
        _log.warning("%s: refused: %s%s", name, reason, since)
        self._warned_at, self._warned = now, self._refused

    def remove(self, program: Program) -> None:
        """See `Owner`."""
        self._programs.discard(program)
        self._hub.forget(program)

    def ask(self, program: Program, frame: Frame, received_at: float, not_before: float) -> None:
        """See `Owner`."""
        self._hub.ask(program, frame, received_at, not_before)

    def close(self) -> None:
        """Disconnect all programs."""
        self._closed = True
        self._timer.cancel()
        for program in list(self._programs):
            program.close()

    def _make_room(self) -> bool:
        """Disconnect the program that has been idle for the longest time, if it has been for long enough."""
        idle = self._idle_for(_MAKES_ROOM_AFTER)
        if idle:
            min(idle, key=_active_at).close()
        return bool(idle)

    def _idle_for(self, seconds: float) -> list[Program]:
        since = self._loop.time() - seconds
        return [program for program in self._programs if not program.may_be_idle and _active_at(program) <= since]

    # A blocked event loop, and a suspend of the machine.

    def not_before(self, now: float) -> float:
        """See `Owner`.

        If the process was stopped or its event loop was blocked, requests have waited. Their programs count from the
        time at which they sent them. After a suspend that time is unknown: the clock of the event loop stood still.
        """
        self._look_for_suspend(now)
        if now < self._suspect_until:
            return -inf
        if now - self._beat_at > 2 * _BEAT:
            return self._beat_at
        # Some event loops run timers before they read.
        begun, read_by = self._stall
        return begun if now < read_by else now

    def _beat(self) -> None:
        now = self._loop.time()
        if now - self._beat_at > 2 * _BEAT:
            self._stall = (self._beat_at, now + _AFTER_STALL)
        self._beat_at = now
        self._look_for_suspend(now)
        for program in self._idle_for(self._idle_timeout):
            _log.info("%s: disconnected: no request for %g s", program.name, self._idle_timeout)
            program.close()
        self._timer = self._loop.call_later(_BEAT, self._beat)

    def _look_for_suspend(self, now: float) -> None:
        """If the machine was suspended, drop all requests from before that, and those that are read just after it."""
        if self._suspends.noticed():
            self._suspends.restart()
            self._suspect_until = now + _AFTER_SUSPEND
            for program in self._programs:
                self._hub.forget(program)


def _active_at(program: Program) -> float:
    return program.connected_at if program.asked_at is None else program.asked_at
