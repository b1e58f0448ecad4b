"""One session and its link, driven in the thread of the caller.

All input that has arrived is received before a request is sent, and before anything times out. The application may not
have called for minutes.
"""

from __future__ import annotations

import time
from typing import Any

from tracer_async.client._retrying import Retrying
from tracer_async.client._status import ConnectionState
from tracer_async.client._suspend import SuspendWatch
from tracer_async.client._trace import Trace
from tracer_async.errors import LinkClosedError, LinkError, TracerError
from tracer_async.protocol import (
    Answer,
    Answered,
    CommandCode,
    Failed,
    LinkFailed,
    ReadRealtime,
    RealtimeData,
    Request,
    Session,
    SessionEvent,
    SessionOptions,
)
from tracer_async.sync._bell import Bell
from tracer_async.sync._opening import Opener, open_wire
from tracer_async.sync._wires import Wire
from tracer_async.transport._link import FRESH

__all__ = ["Conversation"]

_READ = ReadRealtime()
_READ_REALTIME = int(CommandCode.READ_REALTIME)


class Conversation:
    """One session and its link. `Driver` says which thread may call it, and what an interrupt means."""

    def __init__(self, options: SessionOptions, opener: Opener, retrying: Retrying, bell: Bell, trace: Trace) -> None:
        self._options = options
        self._opener = opener
        self._retrying = retrying
        self._bell = bell
        self._trace = trace
        now = time.monotonic()
        self.session = Session(options, now)
        self.session.frame_events = False
        self._wire: Wire | None = None
        self._frames_before = 0
        self.reset_address: tuple[Any, ...] | None = None
        """The local address whose port the next link must use. See `Wire.close`."""
        self._suspends = SuspendWatch()
        # When the input was last known to be empty, and when to connect again.
        self._empty_at = self._retry_at = now
        self.waiting = False
        """Whether it waits. Only then nothing is lost if the call is interrupted."""
        self._request: Request | None = None
        self._outcome: Answer[Any] | TracerError | None = None
        self.last: Answer[RealtimeData] | None = None
        """The last answer with a reading."""
        self.state = ConnectionState.CONNECTING
        """The state of the link. Not CLOSED: when its bell is rung, the conversation ends."""

    @property
    def suspended(self) -> bool:
        """Whether the machine was suspended since the link was opened."""
        return self._suspends.noticed()

    def perform(self, request: Request) -> Answer[Any] | TracerError:
        """Drive the session until the outcome of *request* is known."""
        self._request = request
        while (outcome := self._outcome) is None:
            self._advance(request)
        self._request = self._outcome = None
        return outcome

    def forsake(self) -> None:
        """Cancel the request of a call that was interrupted while it waited."""
        request = self._request
        if request is not None:
            self._deliver(self.session.cancel(request, time.monotonic()))
            self._discard_undelivered()
        self._request = self._outcome = None

    def close(self, *, discard: bool = False) -> None:
        """Close the link, between two calls. With *discard*, nothing is sent later."""
        now = time.monotonic()
        self.session.close(now)
        wire, self._wire = self._wire, None
        if wire is not None:
            self._bell.attach(-1)
            self._trace.link_down(now, by_client=True)
            self.reset_address = wire.close(discard=discard or self.session.has_unanswered_command(now))

    def succeed(self, before: Conversation, asked: float) -> None:
        """Take the place of a conversation that was given up during a call that began at *asked*.

        The reply to a request of it may still come. A session knows that if the request was sent by itself, so this one
        gets such a request, which is not sent.
        """
        self.reset_address = before.reset_address
        self.state = ConnectionState.DOWN
        if before.session.stats.requests:
            session, now = self.session, time.monotonic()
            session.link_up(asked)
            request = session.post(_READ, asked)
            session.data_to_send(asked)
            session.cancel(request, now)
            session.link_down(now, None)

    # Driving the session.

    def _advance(self, request: Request) -> None:
        """Send the next request if it may be sent, wait, and process what has come."""
        if self._request is not request:
            raise RuntimeError(f"{self._options.name}: a signal handler has used the client during this call")
        now = time.monotonic()
        session, wire = self.session, self._wire
        if self._bell.is_rung:
            session.close(now)
            self._outcome = LinkClosedError(self._options.name, "the client was closed")
            return
        if wire is None:
            self._reconnect(now)
            return
        due = session.next_request(now)
        if due is not None and now - self._empty_at >= FRESH:
            if self.suspended:
                self._drop_suspended()
                return
            self._receive(wire)
            if self._wire is not wire or self._outcome is not None:
                return
            now = self._empty_at
            self._deliver(session.tick(now))
            due = session.next_request(now) if self._wire is wire else None
        if due is not None:
            self._write(wire, session.send(due, now))
        if self._wire is wire and self._outcome is None:
            self._wait_for_input(wire, now)

    def _wait_for_input(self, wire: Wire, now: float) -> None:
        session = self.session
        until = session.deadline(now)
        look_at = wire.next_input(now)
        if look_at is not None:
            until = look_at if until is None else min(until, look_at)
        self._wait(until, now, output=bool(wire.unsent))
        if self._wire is not wire:
            return
        if wire.unsent:
            self._write(wire, b"")
        self._receive(wire)
        if until is not None and self._empty_at >= until and self._wire is wire:
            self._deliver(session.tick(self._empty_at))

    def _wait(self, until: float | None, now: float, *, output: bool = False) -> None:
        if until is None:
            raise RuntimeError(f"{self._options.name}: a request waits for nothing")  # a bug, and not an endless wait
        self.waiting = True
        self._bell.wait(until - now, output=output)
        self.waiting = False

    def _write(self, wire: Wire, data: bytes) -> None:
        if self._trace.active and data:
            self._trace.sent(data, time.monotonic())
        try:
            wire.write(data)
        except OSError as error:
            self._lose_link(error)

    def _receive(self, wire: Wire) -> None:
        """Process all input that has arrived."""
        all_read = False
        while not all_read and self._wire is wire:
            read_at = time.monotonic()
            try:
                data, all_read = wire.read()
            except (EOFError, OSError) as error:
                self._lose_link(error if isinstance(error, OSError) else None)
                return
            not_before = self._empty_at
            if all_read:
                self._empty_at = read_at
            if not data:
                return
            now = time.monotonic()
            if self._trace.active:
                self._trace.received(data, now)
            # No controller answers within `FRESH` after the input was empty: as in the asyncio driver.
            if now - not_before > FRESH and self.suspended:
                self._drop_suspended()
                return
            events = self.session.receive(data, now, not_before)
            if events:
                self._deliver(events)

    def _deliver(self, events: list[SessionEvent]) -> None:
        for event in events:
            if isinstance(event, Answered):
                request, answer = event
                if type(answer.value) is RealtimeData:
                    self.last = answer
                self.reset_address = None
                if request is self._request:
                    self._outcome = answer
            elif isinstance(event, Failed):
                if event.request.command.code != _READ_REALTIME or event.request.switch is not None:
                    self._discard_undelivered()
                if event.request is self._request:
                    self._outcome = event.error
            elif isinstance(event, LinkFailed):
                self._lose_link(event.error)

    # The link.

    def _reconnect(self, now: float) -> None:
        """Wait until an attempt to connect is due, then make it."""
        session = self.session
        self._deliver(session.tick(now))
        if self._outcome is not None:
            return
        until = session.deadline(now)
        if now < self._retry_at:
            self._wait(self._retry_at if until is None else min(until, self._retry_at), now)
            return
        limit = self._options.link_timeout
        try:
            self.connect(limit if until is None else min(limit, max(0.001, round(until - now, 3))))
        except TracerError as error:
            now = time.monotonic()
            session.note_down(error)
            self._retry_at = now + self._retrying.not_opened(error, now)
            self.state = ConnectionState.DOWN

    def connect(self, timeout: float) -> None:
        """Open the link. Raises a `LinkError`."""
        begun = time.monotonic()
        address = self._retrying.local_address(self.reset_address, begun)
        wire = open_wire(self._options.name, self._opener, timeout, address)
        self._bell.attach(wire.descriptor)
        self._wire = wire
        # No byte can have come before that.
        self._empty_at = begun
        if self.suspended:
            self.last = None  # its age is not known
        self._suspends.restart()
        self._frames_before = self.session.stats.frames
        now = time.monotonic()
        self._trace.link_up(now)
        self.session.link_up(now)
        self._retrying.opened()
        self.state = ConnectionState.UP

    def _lose_link(self, cause: Exception | None) -> None:
        """Close the link. If a command is unanswered, it is discarded: it must not arrive after this."""
        wire, self._wire = self._wire, None
        if wire is None:
            return
        now = time.monotonic()
        self._bell.attach(-1)
        self._trace.link_down(now, by_client=isinstance(cause, LinkError), cause=cause)
        discard = self.session.has_unanswered_command(now)
        # Kept until a controller answers, because the next attempts may fail.
        self.reset_address = wire.close(discard=discard) or self.reset_address
        self._deliver(self.session.link_down(now, cause))
        good_frames = self.session.stats.frames > self._frames_before
        # The link may have been lost long ago: then the next attempt is due now.
        self._retry_at = self._empty_at + self._retrying.lost(cause, now, good_frames=good_frames)
        self.state = ConnectionState.DOWN

    def _drop_suspended(self) -> None:
        # After a suspend, the age of received bytes is unknown.
        self.last = None
        self._lose_link(LinkError(self._options.name, "the machine was suspended"))

    def _discard_undelivered(self) -> None:
        """Discard a command whose caller is told that it failed, if it has not left this machine."""
        wire = self._wire
        if wire is not None and self.session.has_unanswered_command(time.monotonic()) and wire.discard_output():
            self._lose_link(LinkError(self._options.name, "a command could not be delivered and was discarded"))
