"""Passes the requests of many programs to one controller, and each reply to the programs that asked for it.

The rules:

1. A program has at most one request. A newer one replaces it, as the program has given the older one up.
2. Programs share an answered reading only if it was sent after the request of each of them had arrived. The session
   guarantees that the answer is not the reply to an earlier reading (`Session.post_fresh`).
3. All other commands are sent before readings, each one once and for one program only.
4. After `reply_within` a request gets no answer any more. A command that was not sent until then is never sent. A
   request from before a suspend of the machine is too old.
5. There is no answer if the controller gives none, if its reply is malformed (a flag of 2, a reading of another length
   than 24 bytes), or if it cannot be told whether it belongs to the request.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from tracer_async.client._connection import Connection
from tracer_async.client._suspend import SuspendWatch
from tracer_async.errors import TracerError
from tracer_async.protocol import Answer, Command, CommandCode, Frame, LoadState, Request

__all__ = ["Asker", "Hub", "SharingStats"]

_READ_REALTIME = int(CommandCode.READ_REALTIME)
_MANUAL_CONTROL = int(CommandCode.MANUAL_CONTROL)


class SharingStats(NamedTuple):
    """The counters of a shared controller since its start. Its client counts what is sent to the controller."""

    programs: int
    """Programs that are connected now."""
    refused: int
    """Connections that were refused: by ``allow``, or because there were too many."""
    requests: int
    """Requests of programs."""
    replies: int
    """Requests that were answered."""
    cached: int
    """Those of them that were answered with a reading not older than ``max_age``."""


class Asker(Protocol):
    """A program, as the hub sees it."""

    asked: Asked | None
    """Its request that waits for an answer."""

    def reply(self, data: bytes) -> None:
        """Send the bytes of a reply. Must not raise, and must not call the hub."""


@dataclass(frozen=True, slots=True)
class _Relayed(Command[bytes]):
    """A command of a program, with its data as it came. It is sent once."""

    code: int  # type: ignore[misc]  # a class variable of the other commands
    data: bytes
    repeatable = False
    urgent = True

    def to_bytes(self) -> bytes:
        """Return the data of the program's request."""
        return self.data

    def decode_reply(self, data: bytes) -> bytes:
        """Return *data*. Raise ValueError if the reply is known to be invalid."""
        if self.code == _MANUAL_CONTROL:
            LoadState.from_bytes(data)
        return data


class Asked:
    """A request of a program that waits for an answer."""

    __slots__ = ("_hub", "answer_by", "asker", "received_at", "request", "timer")

    def __init__(self, hub: Hub, asker: Asker, received_at: float, answer_by: float) -> None:
        self._hub = hub
        self.asker: Asker = asker
        self.received_at: float = received_at
        self.answer_by: float = answer_by
        self.request: Request | None = None
        self.timer: asyncio.TimerHandle | None = None

    def done(self) -> bool:
        """See `Waiter`."""
        return self.asker.asked is not self

    def set_result(self, answer: Answer[Any], /) -> None:
        """See `Waiter`."""
        self._hub.answered(self, answer)

    def set_exception(self, exception: TracerError, /) -> None:  # noqa: ARG002  # the program gets silence
        """See `Waiter`."""
        self._hub.settle(self)


class Hub:
    """The requests of all programs to one controller. It belongs to the event loop of its connection."""

    def __init__(self, connection: Connection, *, max_age: float, reply_within: float, read_only: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._max_age = max_age
        self._reply_within = reply_within
        self._read_only = read_only
        # The last reading, its `Answer.since`, and whether the machine was suspended after it.
        self._last: tuple[bytes, float, SuspendWatch] | None = None
        self.requests: int = 0
        self.replies: int = 0
        self.cached: int = 0

    def ask(self, asker: Asker, frame: Frame, received_at: float, not_before: float) -> None:
        """Take a request, in place of the asker's earlier one. It arrived between *not_before* and *received_at*."""
        self.forget(asker)
        self.requests += 1
        reading = frame.command == _READ_REALTIME
        if self._read_only and not reading:
            return
        asked = Asked(self, asker, received_at, not_before + self._reply_within)
        if received_at > asked.answer_by:
            return
        cached = self._cached() if reading else None
        if cached is not None:
            self.cached += 1
            self.replies += 1
            asker.reply(cached)
            return
        asker.asked = asked
        try:
            if reading:
                asked.request = self._connection.post_fresh(asked)
            else:
                self._last = None
                command = _Relayed(frame.command, frame.data)
                asked.request = self._connection.post(command, asked, send_by=asked.answer_by)
        except TracerError:  # the client was closed
            asker.asked = None
            return
        if not asked.done():
            asked.timer = self._loop.call_at(asked.answer_by, self.forget, asker)

    def _cached(self) -> bytes | None:
        """Return the last reading if it may still be given to a program."""
        if self._last is None or self._max_age <= 0:
            return None
        data, since, suspends = self._last
        # The connection does not tell it any more once it is open again.
        if suspends.noticed():
            return None
        return data if self._connection.is_recent(since, self._max_age) else None

    def forget(self, asker: Asker) -> None:
        """Cancel the request of *asker*, if it has one: it left, has a newer request, or has waited too long."""
        asked = asker.asked
        if asked is not None:
            self.settle(asked)
            if asked.request is not None:
                self._connection.withdraw(asked.request, asked)

    def settle(self, asked: Asked) -> None:
        """End a request."""
        asked.asker.asked = None
        if asked.timer is not None:
            asked.timer.cancel()

    def answered(self, asked: Asked, answer: Answer[Any]) -> None:
        """Pass a reply on, unless it comes too late or may be older than the request."""
        self.settle(asked)
        data = answer.frame.encode(start_up=False)
        if answer.frame.command == _READ_REALTIME:
            self._last = data, answer.since, SuspendWatch()
        if answer.since >= asked.received_at and self._loop.time() <= asked.answer_by:
            self.replies += 1
            asked.asker.reply(data)
