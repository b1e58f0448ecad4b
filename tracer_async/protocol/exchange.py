"""The rules of one request in flight: match, deadline, fence. Time is an argument, in seconds on any steady clock.

The protocol has no transaction ID, so a late reply looks like an answer. What can be relied on: a controller answers
each request at most once, in order, and a reply repeats its request's command. From that follow the rules:

1. A request that is given up (timed out, cancelled, cut off by a lost link) is *owed* a reply. Until that reply has
   come and been thrown away, or a bounded time (the fence) has passed, no other request is sent.
2. A reply to another command than the one in flight is never its answer.
3. A reply settles every request owed before the one it answers, because replies keep their order.
4. A reply later than its fence could be taken for the answer to a later request of the same command. Nothing on the
   wire decides that: for `HORIZON` seconds such an answer is *in doubt*, and `Exchange.since` says how old it may be.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import NamedTuple

__all__ = ["HORIZON", "Exchange", "Match"]

HORIZON = 10.0
"""Seconds after which a reply that has not come is taken never to come."""


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

    __slots__ = ("_fence", "_fenced_until", "_flight", "_owed", "deadline", "since")

    def __init__(self, fence: float) -> None:
        if not fence >= 0:
            raise ValueError(f"fence must be 0 seconds or more, not {fence}")
        self._fence = fence
        self._fenced_until = 0.0
        self._flight: _Sent | None = None
        # Oldest first. Bounded: a line that never answers must not fill the memory.
        self._owed: deque[_Owed] = deque(maxlen=64)
        self.deadline: float | None = None
        """When the request in flight will have waited too long; None while there is none."""
        self.since = 0.0
        """When the oldest request was sent that the last answer may belong to."""

    @property
    def fenced_until(self) -> float | None:
        """Until when nothing may be sent, because a reply is owed; None if none is. May lie in the past."""
        return self._fenced_until if self._owed else None

    def owes(self, command: int, now: float) -> bool:
        """Whether the next reply to *command* may belong to an earlier request: whether an answer is in doubt."""
        self._forget(now)
        return any(owed.command == command for owed in self._owed)

    def is_free(self, now: float) -> bool:
        """Whether a request may be sent."""
        return self._flight is None and (not self._owed or now >= self._fenced_until)

    def start(self, command: int, now: float, timeout: float) -> None:
        """Note that a request is sent. Raises RuntimeError unless `is_free`."""
        if not self.is_free(now):
            raise RuntimeError("a request is in flight, or a reply is owed")
        self._flight = _Sent(command, now)
        self.deadline = now + timeout

    def give_up(self, now: float) -> None:
        """Stop waiting for the request in flight, if there is one; its reply is owed from here on."""
        if self._flight is not None:
            self._owe(self._flight, now)
            self._fenced_until = now + self._fence
            self._flight = self.deadline = None

    def receive(self, command: int, now: float) -> Match:
        """Say what a good frame with this command is; for an answer, set `since`."""
        if self._owed:
            self._forget(now)
        flight = self._flight
        if flight is None or flight.command != command:
            return Match.LATE if self._settle(command) else Match.UNASKED
        self._flight = self.deadline = None
        older = self._settle(command) if self._owed else None
        if older is None:
            self._owed.clear()
            self.since = flight.at
        else:
            # Either the older request's reply, and this one's is still to come; or the older one was never answered.
            self._owe(flight, now)
            self.since = older.at
        return Match.ANSWER

    def _owe(self, sent: _Sent, now: float) -> None:
        self._owed.append(_Owed(sent.command, sent.at, now + max(self._fence, HORIZON)))

    def _forget(self, now: float) -> None:
        owed = self._owed
        while owed and now >= owed[0].forget:
            owed.popleft()

    def _settle(self, command: int) -> _Owed | None:
        """Strike off the oldest request owed for *command*, with all that were owed before it."""
        for index, owed in enumerate(self._owed):
            if owed.command == command:
                for _ in range(index + 1):
                    self._owed.popleft()
                return owed
        return None
