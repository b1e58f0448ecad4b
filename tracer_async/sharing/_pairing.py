"""Pairs the requests of another master with the replies to them. Pure: no I/O and no clock.

A listener does not know who sent a frame if both directions share one wire. The length of the data tells it for A0 and
AD. A frame with any other command is the reply if a request with this command waits, or if a request was damaged just
before, and else a request.

1. A reply answers the oldest request with its command that waits. Requests before it stay without a reply.
2. A request waits for `timeout` seconds. A reply that was read later still answers it if it can have come in time: the
   caller may have been unable to read.
3. As many damaged bytes as a frame could have after a request were its reply. It waits no longer: otherwise the reply
   to the next request would answer it. Fewer bytes are noise, which often comes before a reply.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from tracer_async.protocol import CommandCode, Frame

__all__ = ["Pair", "Pairing", "has_lost_its_id", "sender_of"]

_COMMANDS = frozenset(map(int, CommandCode))
_READ_REALTIME = int(CommandCode.READ_REALTIME)
_WRITE_SETTINGS = int(CommandCode.WRITE_SETTINGS)

# Seconds within which a reply may be read before its request, if they come on two ports. The next request cannot come
# so soon: it takes 12.5 ms on the wire.
_SWAPPED = 0.01

# From this number of damaged bytes on they may have been a frame: half of the smallest one.
_FRAME_LIKE = 6

# Limit for the requests that wait. A master sends one at a time; only garbage in the form of frames gets here.
_MOST_WAITING = 64


class Pair(NamedTuple):
    """A request and its reply; None for what was not received. Times are those of the clock of the caller."""

    request: Frame | None
    reply: Frame | None
    asked_at: float
    replied_at: float
    since: float = -inf
    """The request cannot have come before."""
    damaged: bool = False
    """Whether damaged bytes came in place of the reply."""


class _Waiting(NamedTuple):
    frame: Frame
    at: float
    since: float


def sender_of(frame: Frame) -> str | None:
    """Return who has sent a frame, ``client`` or ``controller``, by its data. None if both can have sent it."""
    if frame.command == _READ_REALTIME:
        return "controller" if len(frame.data) > 1 else "client"
    if frame.command == _WRITE_SETTINGS:
        return "client" if frame.data else "controller"
    return None


def has_lost_its_id(frame: Frame) -> bool:
    """Return whether a frame has lost its controller ID, 0, so that its command byte is in the place of the ID.

    The CRC begins with 0, so it does not cover an ID of 0. The reply to "load off" then still has a good CRC.
    """
    return frame.controller_id in _COMMANDS and frame.command not in _COMMANDS


class Pairing:
    """The requests that wait for a reply, and on two ports the replies that wait for their request."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._requests: list[_Waiting] = []
        self._early: list[_Waiting] = []
        # The damaged bytes since the last good frame, and when the last of them came.
        self._damage = 0
        self._damaged_at = -inf
        # When the latest request that was given up would have been too old for a reply.
        self._given_up_at = -inf
        # When a request was damaged that no reply has answered.
        self._lost_request_at = -inf

    @property
    def turn(self) -> str:
        """Who sends next: ``controller`` if a request waits, else ``client``."""
        return "controller" if self._requests else "client"

    def sender(self, frame: Frame, port: str | None, since: float, now: float) -> str:
        """Return who has sent a frame, ``client`` or ``controller``. *port* is who sends on its port, if one does.

        It is read *now*, and cannot have come before *since*.
        """
        known = sender_of(frame) or port
        if known is None:
            waiting = [each.at for each in self._requests if each.frame.command == frame.command]
            can_answer = any(since < at + self._timeout for at in waiting)
            answers = can_answer or now < self._lost_request_at + self._timeout
            known = "controller" if answers else "client"
        return known

    def receive(self, frame: Frame, sender: str, since: float, now: float, *, may_be_early: bool) -> list[Pair]:
        """Take a frame from *sender*, ``client`` or ``controller``. Return the pairs that are complete.

        It is read *now*, and cannot have come before *since*. *may_be_early* is whether requests come on another port.
        """
        done = self.tick(now, since if sender == "controller" else inf)
        self._damage = 0
        self._lost_request_at = -inf
        if sender == "controller":
            return done + self._take_reply(frame, now, may_be_early=may_be_early)
        for early in self._early:
            if early.frame.command == frame.command:
                self._early.remove(early)
                return [*done, Pair(frame, early.frame, now, now, since)]
        if len(self._requests) >= _MOST_WAITING:
            done.append(self._give_up(now))
        self._requests.append(_Waiting(frame, now, since))
        return done

    def _waits(self, frame: Frame) -> bool:
        return any(waiting.frame.command == frame.command for waiting in self._requests)

    def _give_up(self, now: float) -> Pair:
        """Complete the oldest request without a reply."""
        oldest = self._requests.pop(0)
        return Pair(oldest.frame, None, oldest.at, now)

    def _take_reply(self, frame: Frame, now: float, *, may_be_early: bool) -> list[Pair]:
        done: list[Pair] = []
        if self._waits(frame):
            while self._requests[0].frame.command != frame.command:
                done.append(self._give_up(now))
            asked = self._requests.pop(0)
            done.append(Pair(asked.frame, frame, asked.at, now, asked.since))
        elif may_be_early and len(self._early) < _MOST_WAITING:
            self._early.append(_Waiting(frame, now, now))
        else:
            done.append(Pair(None, frame, now, now))
        return done

    def damaged(self, size: int, since: float, at: float) -> list[Pair]:
        """Record *size* damaged bytes that came until *at*, from the controller or from an unknown sender.

        The last of them cannot have come before *since*.
        """
        done = self.tick(at, since)
        before = self._damage if at <= self._damaged_at + self._timeout else 0
        self._damage = before + size
        self._damaged_at = at
        if before >= _FRAME_LIKE or self._damage < _FRAME_LIKE:
            return done
        if self._requests:
            done.append(self._give_up(at)._replace(damaged=True))
        elif at > self._given_up_at:
            self._lost_request_at = at
        return done

    def deadline(self) -> float | None:
        """Return when `tick` must be called. None: not before the next frame."""
        ends = [waiting.at + self._timeout for waiting in self._requests[:1]]
        ends += [waiting.at + _SWAPPED for waiting in self._early[:1]]
        return min(ends, default=None)

    def tick(self, now: float, reply_since: float = inf) -> list[Pair]:
        """Return the requests and the early replies that have waited long enough.

        With *reply_since*, a reply that cannot have come before that time is read *now*.
        """
        done = [Pair(None, early.frame, early.at, early.at) for early in self._early if now >= early.at + _SWAPPED]
        self._early = [early for early in self._early if now < early.at + _SWAPPED]
        while self._requests and min(now, reply_since) >= self._requests[0].at + self._timeout:
            self._given_up_at = self._requests[0].at + self._timeout
            done.append(self._give_up(now))
        return done
