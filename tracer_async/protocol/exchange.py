"""The rules of one request in flight: match, deadline, fence. Time is an argument, in seconds on any steady clock.

The protocol has no transaction ID, so a late reply looks like an answer. What can be relied on: a controller answers
each request at most once, in order, and a reply repeats its request's command. From that follow the rules:

1. A request that is given up (timed out, cancelled, cut off by a lost link) is *owed* a reply. Until that reply has
   come and been thrown away, or a bounded time (the fence) has passed, no other request is sent.
2. A reply to another command than the one in flight is never its answer.
3. A reply settles every request owed before the one it answers, because replies keep their order.
4. A reply later than its fence could be taken for the answer to a later request of the same command. Nothing on the
   wire decides that: for `HORIZON` seconds such an answer is *in doubt*, and `Exchange.since` says how old it may be.
5. Some bridges deliver a reply twice. So an answer is also in doubt within `ECHO` seconds of the reply before it, and a
   late reply within that time settles nothing. While something is owed, and for `WARY` seconds after a reply too many,
   nothing is sent within that time of a reply.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

__all__ = ["ECHO", "HORIZON", "WARY", "Exchange", "Match"]

HORIZON = 10.0
"""Seconds after which a reply that has not come is taken never to come."""

ECHO = 0.25
"""Seconds within which a reply could come a second time."""

WARY = 60.0
"""Seconds for which a line is taken for one that doubles replies, after it was seen to."""


# A line that never answers must not fill the memory.
_MOST_OWED = 64


class Match(Enum):
    """What a received reply is."""

    ANSWER = auto()
    """The answer to the request in flight."""
    LATE = auto()
    """The reply to a request that was given up: to be thrown away."""
    UNASKED = auto()
    """No request's: a doubled reply, or one to another master on the line."""


class _Sent(NamedTuple):
    command: int
    at: float


class _Owed(NamedTuple):
    command: int
    at: float
    forget: float


class Exchange:
    """One request in flight, and the replies that may still come to those before it."""

    __slots__ = ("_echo", "_fence", "_flight", "_owed", "_wary_until", "deadline", "free_at", "since")

    def __init__(self, fence: float) -> None:
        if not fence >= 0:
            raise ValueError(f"fence must be 0 seconds or more, not {fence}")
        self._fence = fence
        self._flight: _Sent | None = None
        # Oldest first.
        self._owed: list[_Owed] = []
        # The request whose reply came last.
        self._echo = _Owed(-1, 0.0, 0.0)
        self._wary_until = 0.0
        self.free_at = 0.0
        """Before when nothing may be sent; may lie in the past."""
        self.deadline: float | None = None
        """When the request in flight will have waited too long; None while there is none."""
        self.since = 0.0
        """When the oldest request was sent that the last answer may belong to."""

    def owes(self, command: int, now: float) -> bool:
        """Whether the next reply to *command* may belong to an earlier request: whether an answer would be in doubt."""
        self._forget(now)
        return self._echoes(command, now) or self._oldest(command) is not None

    def is_free(self, now: float) -> bool:
        """Whether a request may be sent."""
        return self._flight is None and now >= self.free_at

    def start(self, command: int, now: float, timeout: float) -> None:
        """Note that a request is sent. Raises RuntimeError unless `is_free`."""
        if self._flight is not None or now < self.free_at:
            raise RuntimeError("a request is in flight, or a reply is owed")
        self._flight = _Sent(command, now)
        self.deadline = now + timeout

    def give_up(self, now: float) -> None:
        """Stop waiting for the request in flight, if there is one; its reply is owed from here on."""
        if self._flight is not None:
            self._owe(self._flight, now)
            self.free_at = max(now + self._fence, self._echo.forget)
            self._flight = self.deadline = None

    def receive(self, command: int, now: float) -> Match:
        """Say what a good frame with this command is; for an answer, set `since`."""
        if self._owed:
            self._forget(now)
        doubled = self._echoes(command, now)
        flight = self._flight
        if flight is None or flight.command != command:
            if doubled:
                # Perhaps the same reply once more, perhaps one that is owed: nothing is settled by it.
                self._wary_until = now + WARY
                return Match.LATE if self._oldest(command) is not None else Match.UNASKED
            older = self._settle(command)
            if older is None:
                self._wary_until = now + WARY
                return Match.UNASKED
            self._echo = _Owed(command, older.at, now + ECHO)
            pause = self._pause(now)
            self.free_at = max(self.free_at, pause) if self._owed else pause
            return Match.LATE
        older = self._settle(command) if self._owed else None
        if older is None:
            self._owed.clear()
            self.since = min(flight.at, self._echo.at) if doubled else flight.at
        else:
            # Either another one's reply, and this one's is still to come; or the other one's will never come.
            self._owe(flight, now)
            self.since = older.at
        self._flight = self.deadline = None
        self._echo = _Owed(command, flight.at, now + ECHO)
        self.free_at = self._pause(now)
        return Match.ANSWER

    def _pause(self, now: float) -> float:
        """Return when the next request may go: in doubt, not before the line has been quiet behind a reply."""
        return now + ECHO if self._owed or now < self._wary_until else now

    def _echoes(self, command: int, now: float) -> bool:
        return self._echo.command == command and now < self._echo.forget

    def _owe(self, sent: _Sent, now: float) -> None:
        del self._owed[: -_MOST_OWED + 1]
        self._owed.append(_Owed(sent.command, sent.at, now + max(self._fence, HORIZON)))

    def _forget(self, now: float) -> None:
        owed = self._owed
        while owed and now >= owed[0].forget:
            del owed[0]

    def _oldest(self, command: int) -> _Owed | None:
        return next((owed for owed in self._owed if owed.command == command), None)

    def _settle(self, command: int) -> _Owed | None:
        """Strike off the oldest request owed for *command*, with all that were owed before it."""
        oldest = self._oldest(command)
        if oldest is not None:
            del self._owed[: self._owed.index(oldest) + 1]
        return oldest
