"""One program that is connected: its bytes become requests, its replies become bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from math import inf
from typing import Protocol

from tracer_async.protocol import Frame, FrameDecoder
from tracer_async.sharing._hub import Asked

__all__ = ["Owner", "Program"]

# The same log as for the bytes on the line to the controller.
_wire = logging.getLogger("tracer_async.wire")

# Seconds of silence after which a partly received request is discarded. Otherwise a damaged length byte would take the
# next requests for data.
_PARTIAL_REQUEST_TIMEOUT = 0.2

# Bytes a second that a program may send, and bytes that it may send at once. A line of 9600 baud has 960 bytes/s. More
# is read later: a program that sends garbage at full speed must not take the time of others.
_MAX_RATE = 8192
_BURST = 1024

# Seconds within which bytes that waited are read, once reading goes on. It is longer than a blocked event loop can go
# unnoticed.
_AFTER_PAUSE = 0.2


class Owner(Protocol):
    """What a program needs of the place where it is served."""

    def ask(self, program: Program, frame: Frame, received_at: float, not_before: float) -> None:
        """Take a request. It arrived between *not_before* and *received_at*."""

    def not_before(self, now: float) -> float:
        """Return the earliest time at which bytes can have arrived that are read now, if none were left unread."""

    def remove(self, program: Program) -> None:
        """Forget the program and its request."""


class Program:
    """A program that is connected. *send* must not raise; *close* ends the connection.

    With *may_be_idle* it is not disconnected for sending no requests.
    """

    def __init__(
        self,
        owner: Owner,
        name: str,
        send: Callable[[bytes], None],
        close: Callable[[], None],
        *,
        may_be_idle: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self.name: str = name
        self._send = send
        self._close = close
        self.may_be_idle: bool = may_be_idle
        self._decoder = FrameDecoder()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._gone = False
        # What may have come before `_old_until` can have waited unread since `_unread_since`.
        self._unread_since, self._old_until = self._loop.time(), -inf
        # When it may send more without exceeding `_MAX_RATE`.
        self._paid_at = self._loop.time()
        self.asked: Asked | None = None
        """See `Asker`."""
        self.asked_at: float | None = None
        """When its last request came. None: it has sent none."""
        self.connected_at: float = self._loop.time()

    def received(self, data: bytes, *, is_all: bool) -> float:
        """Take bytes. Return for how many seconds no more may be read from the program; usually 0.

        :param is_all: Whether nothing was left unread.
        """
        now = self._loop.time()
        if _wire.isEnabledFor(logging.DEBUG):
            _wire.debug("%s: %s %s", self.name, "sent", data.hex(" "))
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        not_before = self._owner.not_before(now)
        if not_before < self._old_until:
            not_before = min(not_before, self._unread_since)
        events = self._decoder.feed(data)
        self._ask([event for event in events if isinstance(event, Frame)], now, not_before)
        if self._decoder.pending:
            self._flush_timer = self._loop.call_later(_PARTIAL_REQUEST_TIMEOUT, self._flush, now, not_before)
        self._paid_at = max(self._paid_at, now - _BURST / _MAX_RATE) + len(data) / _MAX_RATE
        wait = max(0.0, self._paid_at - now)
        # What is left unread can be as old as what was read. During a pause, more can arrive.
        self._unread_since = now if is_all else not_before
        self._old_until = now + wait + _AFTER_PAUSE if wait > 0 or not is_all else -inf
        return wait

    def _flush(self, received_at: float, not_before: float) -> None:
        self._flush_timer = None
        requests = [event for event in self._decoder.flush() if isinstance(event, Frame)]
        # The machine may have been suspended since they were received.
        self._ask(requests, received_at, min(not_before, self._owner.not_before(received_at)))

    def _ask(self, requests: list[Frame], now: float, not_before: float) -> None:
        if requests and not self._gone:
            self.asked_at = now
            # A newer request replaces an older one, so only the last one counts.
            self._owner.ask(self, requests[-1], now, not_before)

    def reply(self, data: bytes) -> None:
        """See `Asker`."""
        if not self._gone:
            if _wire.isEnabledFor(logging.DEBUG):
                _wire.debug("%s: %s %s", self.name, "received", data.hex(" "))
            self._send(data)

    def close(self) -> None:
        """Disconnect the program."""
        self.left()
        self._close()

    def left(self) -> None:
        """Record that the program has disconnected. Its request is cancelled."""
        if not self._gone:
            self._gone = True
            if self._flush_timer is not None:
                self._flush_timer.cancel()
                self._flush_timer = None
            self._owner.remove(self)
