"""Distinguishes replies from echoes: of an adapter that returns what is sent, or of TX wired to RX.

A frame that equals a request sent within the late-reply window is an echo. Only the reply to AA can equal its request,
if the controller copies the ID. So the first reading of a connection decides: if it is answered without an echo, the
line does not echo, and the ID in the reply shows whether the controller copies it. If the line echoes, the first equal
frame after each request is the echo, and a second one may be the reply.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from tracer_async.protocol._windows import LATE_REPLY_WINDOW
from tracer_async.protocol.frame import CommandCode, Frame

__all__ = ["Echo", "EchoFilter"]

# Limit for the memory.
_MAX_SENT_FRAMES = 16

_READ_REALTIME = int(CommandCode.READ_REALTIME)
# The replies to these have another length than the requests (protocol document), so an equal frame is an echo.
_NEVER_EQUAL = frozenset((_READ_REALTIME, int(CommandCode.WRITE_SETTINGS)))


class _SentRequest(NamedTuple):
    """A recent request, whose echo may come."""

    frame: Frame
    at: float
    """When it was sent last."""
    echo_due: bool
    """Whether its echo has not come, on a line that may echo."""


class Echo(Enum):
    """Whether a frame is an echo."""

    NO = auto()
    PERHAPS = auto()
    YES = auto()


class EchoFilter:
    """Distinguishes replies from echoes. See the rules of the module. Times are in seconds."""

    __slots__ = ("_copies_id", "_echoes", "_reading_sent", "longest", "requests", "unchanged")

    def __init__(self) -> None:
        # A tuple, because there may be thousands of lines, each with one request.
        self.requests: tuple[_SentRequest, ...] = ()
        """The requests that were sent lately, in the order in which they were sent last."""
        self.longest = 0
        """Largest number of data bytes in a request."""
        self.unchanged: Frame | None = None
        """The reading that was sent last, on a line that does not echo. If it is sent again, `sent` need not be called:
        only its time changes, and the exchange knows that time."""
        self._echoes: bool | None = None
        self._reading_sent = False
        self._copies_id = False

    def connect(self, last_sent: float) -> None:
        """Begin a new connection. It may be another line, so nothing is known about echoes.

        *last_sent* is when the last request was sent.
        """
        self._note_time(last_sent)
        self._echoes = None
        self._reading_sent = False

    def sent(self, frame: Frame, now: float, last_sent: float) -> None:
        """Record that a request is sent. The one before it was sent at *last_sent*."""
        self._note_time(last_sent)
        may_echo = self._echoes is not False
        others = [request for request in self.requests if request.frame != frame]
        self.requests = (*others[-_MAX_SENT_FRAMES + 1 :], _SentRequest(frame, now, may_echo))
        self.longest = max(self.longest, len(frame.data))
        if frame.command == _READ_REALTIME:
            if may_echo:
                self._reading_sent = True
            else:
                self.unchanged = frame

    def reading_answered(self, *, copies_id: bool) -> None:
        """Record that a reading was answered. On a line that echoes, its echo would have come before."""
        if self._echoes is None and self._reading_sent:
            self._echoes = False
            self._copies_id = copies_id
            self.requests = tuple(request._replace(echo_due=False) for request in self.requests)

    @property
    def known(self) -> bool:
        """Whether it is known whether the line echoes."""
        return self._echoes is not None

    def judge(self, frame: Frame, not_before: float, last_sent: float) -> Echo:
        """Return whether a frame is the echo of a request. *last_sent* is when the last request was sent."""
        self._note_time(last_sent)
        request = next((request for request in self.requests if request.frame == frame), None)
        if request is None:
            return Echo.NO
        if frame.command in _NEVER_EQUAL:
            self._echoes = True
            return Echo.YES
        if not_before >= request.at + LATE_REPLY_WINDOW:
            return Echo.NO
        if self._echoes is False:
            # If the controller does not copy the ID, its reply cannot equal the request: the line has begun to echo.
            return Echo.NO if self._copies_id else Echo.YES
        if request.echo_due:
            self.requests = tuple(
                request._replace(echo_due=False) if request.frame == frame else request for request in self.requests
            )
            return Echo.YES
        return Echo.PERHAPS

    def _note_time(self, last_sent: float) -> None:
        """Update the time of the reading `unchanged`, for which `sent` was not called."""
        if self.unchanged is not None:
            self.unchanged = None
            *others, reading = self.requests
            self.requests = (*others, reading._replace(at=last_sent))
