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


# Looking a member up in its class takes as long as much of what else is done for an answer (Python 3.11).
_ANSWER, _LATE, _UNASKED = Match


class _Owed(NamedTuple):
    command: int
    sent: float
    forget: float


class Exchange:
    """One request in flight, and the replies that may still come to those before it."""

    __slots__ = (
        "_command",
        "_echo_command",
        "_echo_sent",
        "_echo_until",
        "_fence",
        "_held_until",
        "_owed",
        "_sent",
        "_wary_until",
        "deadline",
        "free_at",
        "since",
    )

    def __init__(self, fence: float) -> None:
        if not fence >= 0:
            raise ValueError(f"fence must be 0 seconds or more, not {fence}")
        self._fence = fence
        # The request in flight, and when it was sent.
        self._command: int | None = None
        self._sent = 0.0
        # Oldest first.
        self._owed: list[_Owed] = []
        # The request whose reply came last, when it was sent, and until when that reply could come again.
        self._echo_command: int | None = None
        self._echo_sent = 0.0
        self._echo_until = 0.0
        self._wary_until = 0.0
        # The longest that replies too many may keep the line shut, since the first behind a request; 0 before that.
        self._held_until = 0.0
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
        return self._command is None and now >= self.free_at

    def start(self, command: int, now: float, timeout: float) -> None:
        """Note that a request is sent. Raises RuntimeError unless `is_free`."""
        if self._command is not None or now < self.free_at:
            raise RuntimeError("a request is in flight, or a reply is owed")
        self._command = command
        self._sent = now
        self._held_until = 0.0
        self.deadline = now + timeout

    def give_up(self, now: float) -> None:
        """Stop waiting for the request in flight, if there is one; its reply is owed from here on."""
        if self._command is not None:
            self._owe(self._command, now)
            self.free_at = max(self.free_at, now + self._fence, self._echo_until)
            self._command = self.deadline = None

    def receive(self, command: int, now: float) -> Match:
        """Say what a good frame with this command is; for an answer, set `since`."""
        if self._owed:
            self._forget(now)
        doubled = self._echoes(command, now)
        older = None
        if command != self._command:
            if doubled:
                # Perhaps the same reply once more, perhaps one that is owed: nothing is settled by it.
                self._one_too_many(now)
                return _LATE if self._oldest(command) is not None else _UNASKED
            older = self._settle(command)
            if older is None:
                self._one_too_many(now)
                return _UNASKED
            self._echo(command, older.sent, now)
            pause = self._pause(now)
            self.free_at = max(self.free_at, pause) if self._owed else pause
            return _LATE
        if self._owed:
            older = self._settle(command)
        if older is None:
            self._owed.clear()
            self.since = min(self._sent, self._echo_sent) if doubled else self._sent
        else:
            # Either another one's reply, and this one's is still to come; or the other one's will never come.
            self._owe(command, now)
            self.since = older.sent
        self._command = self.deadline = None
        self._echo(command, self._sent, now)
        self.free_at = self._pause(now)
        return _ANSWER

    def _one_too_many(self, now: float) -> None:
        self._wary_until = now + WARY
        # It may come again, unless it is too late to be a reply to a request of ours. A stream of another master's
        # replies must not keep the line shut: there is room for one reply behind another, and their copies.
        if now < self._sent + HORIZON + ECHO:
            if not self._held_until:
                self._held_until = now + 2 * ECHO
            self.free_at = max(self.free_at, min(now + ECHO, self._held_until))

    def _pause(self, now: float) -> float:
        """Return when the next request may go: in doubt, not before the line has been quiet behind a reply."""
        return now + ECHO if self._owed or now < self._wary_until else now

    def _echo(self, command: int, sent: float, now: float) -> None:
        """Note what a reply answered that has just come: it could come once more."""
        self._echo_command = command
        self._echo_sent = sent
        self._echo_until = now + ECHO

    def _echoes(self, command: int, now: float) -> bool:
        return self._echo_command == command and now < self._echo_until

    def _owe(self, command: int, now: float) -> None:
        """Note that the request in flight is owed its reply."""
        del self._owed[: -_MOST_OWED + 1]
        self._owed.append(_Owed(command, self._sent, now + max(self._fence, HORIZON)))

    def _forget(self, now: float) -> None:
        owed = self._owed
        while owed and now >= owed[0].forget:
            del owed[0]

    def _oldest(self, command: int) -> _Owed | None:
        for owed in self._owed:
            if owed.command == command:
                return owed
        return None

    def _settle(self, command: int) -> _Owed | None:
        """Strike off the oldest request owed for *command*, with all that were owed before it."""
        oldest = self._oldest(command)
        if oldest is not None:
            del self._owed[: self._owed.index(oldest) + 1]
        return oldest
