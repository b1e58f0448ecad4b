"""The conversation with one controller, without I/O and without a clock.

Two rules:

1. A driver tells the session what happened and when (`post`, `cancel`, `receive`, `tick`, `link_up`, `link_down`). It
   writes the bytes of `data_to_send`, calls `tick` at `deadline`, and passes the events on to the callers.
2. The driver calls `receive` with all input that has arrived before it calls `data_to_send` or `tick`. So no request
   times out while its answer waits unread, and no request is sent before a reply that has already arrived is processed.

`Exchange` decides which reply answers which request, `Reception` when the line is quiet, `LoadSwitch` which steps a
switch of the load takes. The session decides which request is sent next, how often it is sent, and how long it waits
for a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from tracer_async.errors import (
    AmbiguousReplyError,
    LinkClosedError,
    LinkError,
    LinkFloodedError,
    MalformedReplyError,
    TracerError,
)
from tracer_async.protocol._answer import Answer
from tracer_async.protocol._failures import (
    early_losses,
    lost_error,
    not_sent_error,
    timeout_error,
    unlinked_error,
)
from tracer_async.protocol._load_switch import LoadSwitch
from tracer_async.protocol._numbers import check_number, check_whole
from tracer_async.protocol._reception import FLOOD_RATE, Reception
from tracer_async.protocol._request import Request, RequestQueue
from tracer_async.protocol.commands import Command, ManualControl, ReadRealtime
from tracer_async.protocol.decoder import Event
from tracer_async.protocol.exchange import Exchange, Match
from tracer_async.protocol.frame import OVERHEAD, CommandCode, Frame
from tracer_async.protocol.values import LoadState

__all__ = ["Answered", "Failed", "LinkFailed", "Session", "SessionEvent", "SessionOptions", "SessionStats"]

_READ = ReadRealtime()
_READ_REALTIME = int(CommandCode.READ_REALTIME)

# The constructor of a NamedTuple calls this. Calling it directly takes half the time.
_new = tuple.__new__

# Accessing a member through its class takes as long as much of the other work for an answer (Python 3.11).
_ANSWER = Match.ANSWER
_LATE = Match.LATE
_ECHO = Match.ECHO


class Answered(NamedTuple):
    """A request was answered."""

    request: Request
    answer: Answer[Any]


class Failed(NamedTuple):
    """A request failed."""

    request: Request
    error: TracerError


class LinkFailed(NamedTuple):
    """The connection does not work. The driver must close it and call `Session.link_down`."""

    error: LinkError


SessionEvent = Answered | Failed | LinkFailed | Frame
"""An event. A `Frame` is any good frame that was received, also if it answers no request."""


class SessionStats(NamedTuple):
    """The counters of a session since it was created."""

    requests: int
    """Requests sent, including retries."""
    answers: int
    """Requests answered."""
    timeouts: int
    """Requests that were not answered in time. A request that is sent again counts each time."""
    late: int
    """Replies discarded because their request had been abandoned."""
    unsolicited: int
    """Good frames that answer no request: duplicates, and replies to another master."""
    echoes: int
    """Echoes of own requests."""
    frames: int
    """Good frames received."""
    corrupt_frames: int
    """Damaged frames received."""
    noise_bytes: int
    """Bytes received that belong to no frame."""
    links: int
    """Number of connections that were established."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """The options of a session. `TracerClient` describes those that it has too.

    Raises TypeError for a value that is not a number, ValueError for a number out of range (``docs/ranges.md``).
    """

    name: str
    """The name of the controller in errors: its URL."""
    controller_id: int = 0x16
    start_up: bool = True
    timeout: float = 1.0
    retries: int = 2
    fence: float = 1.0
    link_timeout: float = 5.0
    """Seconds that a request waits for a connection."""
    max_timeouts: int | None = None
    """Timeouts in a row after which the connection is given up. None: it is never given up for that reason."""

    def __post_init__(self) -> None:
        # The checked values are kept, because a subclass of int or float may have its own arithmetic.
        for name in ("timeout", "fence", "link_timeout"):
            object.__setattr__(self, name, check_number(name, getattr(self, name)))  # the dataclass is frozen
        for name in ("controller_id", "retries", "max_timeouts"):
            if name != "max_timeouts" or self.max_timeouts is not None:
                object.__setattr__(self, name, check_whole(name, getattr(self, name)))


class Session:
    """The requests to one controller, one in flight at a time. See the two rules of the module."""

    # There may be thousands of sessions: without slots each would take twice the memory.
    __slots__ = (
        "_answers",
        "_closed",
        "_deadline_extended",
        "_down_cause",
        "_down_since",
        "_echo_count",
        "_exchange",
        "_in_flight",
        "_late",
        "_options",
        "_queue",
        "_reception",
        "_requests",
        "_silent_since",
        "_timeouts",
        "_unanswered_in_a_row",
        "_unsolicited",
        "_up",
        "frame_events",
        "last_command_sent",
    )

    def __init__(self, options: SessionOptions, now: float) -> None:
        self._options = options
        self._queue = RequestQueue(options.controller_id, start_up=options.start_up)
        self._exchange = Exchange(options.fence)
        self._reception = Reception()
        self._in_flight: Request | None = None
        self._deadline_extended = False
        self._up = False
        self._closed = False
        self._down_since = now
        self._down_cause: Exception | None = None
        # Requests in flight that timed out or were cancelled, and when the first of them was sent.
        self._unanswered_in_a_row = 0
        self._silent_since = 0.0
        self.last_command_sent: float = -inf
        """When a command other than a reading was sent last. Older measurements may be wrong now."""
        self._requests = self._answers = self._timeouts = 0
        self._late = self._unsolicited = self._echo_count = 0
        self.frame_events: bool = True
        """Whether each good frame is an event. A driver that does not use these events sets it to False."""

    @property
    def stats(self) -> SessionStats:
        """The present counters."""
        decoder = self._reception.decoder.stats
        return SessionStats(
            requests=self._requests,
            answers=self._answers,
            timeouts=self._timeouts,
            late=self._late,
            unsolicited=self._unsolicited,
            echoes=self._echo_count,
            frames=decoder.frames,
            corrupt_frames=decoder.corrupt_frames,
            noise_bytes=decoder.noise_bytes,
            links=self._queue.links,
        )

    # Requests of callers.

    def post(self, command: Command[Any], now: float, *, join: bool = False, send_by: float = inf) -> Request:
        """Queue a request. With *join*, return an equal request that is not answered yet, if there is one.

        With *send_by*, an urgent command is not sent after that time. It is then dropped without an event, so the
        driver needs a timer of its own, and calls `withdraw`.

        A command other than a reading is sent only when its reply cannot be confused with an earlier one: see
        `Exchange.clear_from`. Raises LinkClosedError if the session is closed, and the errors of ``command.to_bytes``.
        """
        if self._closed:
            raise self._closed_error()
        if join:
            request = self._in_flight
            if request is None or request.command != command or request.switch is not None:
                request = self._queue.find(command) if self._queue.requests else None
            if request is not None:
                request.internal = False
                return request
        request = self._queue.put(command, self._options.retries + 1 if command.repeatable else 1, now)
        request.send_by = send_by
        return request

    def post_fresh(self, now: float) -> Request:
        """Queue a reading that is certainly taken after *now*, or join a queued one that was never sent.

        A reading in flight is not joined: the controller may have taken it before. If the answer may be the reply to an
        earlier reading or a copy of one, the reading is sent again. So it is sent at the earliest `DUPLICATE_WINDOW`
        after the last reply to a reading. Raises LinkClosedError if the session is closed.
        """
        if self._closed:
            raise self._closed_error()
        request = self._queue.find_unsent_reading()
        if request is None:
            request = self._queue.put(_READ, self._options.retries + 1, now)
        request.internal = False
        request.fresh = True
        request.measured_after = now
        return request

    def withdraw(self, request: Request) -> None:
        """Remove a request for which nobody waits from the queue.

        Unlike `cancel`, this leaves a request in flight until it is answered: to abandon it would delay the requests of
        other callers by the fence.
        """
        if self._queue.is_needed(request):
            request.internal = True
        elif request is not self._in_flight:
            self._queue.remove(request)
            self._queue.end_probe(request)

    def switch_load(self, load: LoadState, now: float) -> Request:
        """Queue a switch of the load. It ends when its outcome is known: see `LoadSwitch`.

        Between its command and its end only readings are sent. Raises LinkClosedError if the session is closed.
        """
        if self._closed:
            raise self._closed_error()
        switch = LoadSwitch(self._options.name, load, self._options.retries + 1)
        return self._queue.put(ManualControl(load), 1, now, switch)

    def cancel(self, request: Request, now: float) -> list[SessionEvent]:
        """Cancel a request for which nobody waits. If it is in flight, it is abandoned: its reply may still come."""
        events: list[SessionEvent] = []
        if self._queue.is_needed(request):
            request.internal = True  # a command that waits still needs this reading
            return events
        if request is self._in_flight:
            self._in_flight = None
            self._exchange.abandon(now)
            self._note_unanswered(now, events)
        else:
            self._queue.remove(request)
        self._queue.end_probe(request)
        return events

    def close(self, now: float) -> list[SessionEvent]:
        """Fail all requests, now and from now on."""
        self._closed = True
        self._exchange.abandon(now)
        requests = ([self._in_flight] if self._in_flight is not None else []) + self._queue.clear()
        self._in_flight = None
        return [Failed(request, LinkClosedError(self._options.name, "the client was closed")) for request in requests]

    def _closed_error(self) -> LinkClosedError:
        return LinkClosedError(self._options.name, "the client is closed")

    # The connection.

    def link_up(self, now: float) -> None:
        """Begin a new connection. Its input is empty."""
        self._up = True
        self._queue.links += 1
        self._unanswered_in_a_row = 0
        self._exchange.connect(now)
        self._reception.connect(now)

    def link_down(self, now: float, cause: Exception | None) -> list[SessionEvent]:
        """End the connection. A request in flight is sent again on the next connection, if it may be repeated."""
        self._up = False
        self._down_since = now
        self._down_cause = cause
        events: list[SessionEvent] = []
        self._take(events, *self._reception.disconnect(), now)
        self._exchange.abandon(now)
        request, self._in_flight = self._in_flight, None
        # Before the retry: if the probe was in flight, the command that needs it stays queued for the next connection,
        # and does not fail with the probe.
        self._queue.drop_probe()
        if request is not None and not request.internal:
            self._retry(request, lost_error(self._options.name, request, cause), events)
        self._limit_losses(events)
        return events

    def _limit_losses(self, events: list[SessionEvent]) -> None:
        """Fail the requests for which more than `SessionOptions.retries` connections came and were lost too early.

        Otherwise they would wait forever. A command is sent 0.25 s after a reading was answered, so a bridge that hangs
        up after each reply lets no command pass.
        """
        for request in self._queue.requests.copy():
            losses = self._queue.losses(request)
            if losses > self._options.retries:
                self._fail_waiting(request, early_losses(request, losses), events)

    def note_down(self, cause: Exception) -> None:
        """Record why a connection could not be established."""
        self._down_cause = cause

    def receive(self, data: bytes | memoryview, now: float, not_before: float) -> list[SessionEvent]:
        """Process bytes that came between *not_before*, when the input was last known to be empty, and *now*."""
        events: list[SessionEvent] = []
        reception = self._reception
        received, came_after = reception.feed(data, now, not_before)
        if received:
            self._take(events, received, came_after, now)
        if reception.flooded:
            error = f"received more than {FLOOD_RATE // 1024} KiB/s of unsolicited bytes. Is this a serial bridge?"
            events.append(LinkFailed(LinkFloodedError(self._options.name, error)))
        return events

    def has_unanswered_command(self, now: float) -> bool:
        """Return whether a load or settings command is unanswered.

        If the connection is given up now, the driver must discard its bytes: otherwise the command could be executed
        after its caller was told that it failed.
        """
        return self._exchange.has_unanswered_command(now)

    # Deadlines.

    def deadline(self, now: float) -> float | None:
        """Return when the driver must call `tick` and `data_to_send`. None: not before something else happens."""
        if self._in_flight is not None:
            due = self._exchange.deadline
        elif self._up:
            request, when = self._next(now) if self._queue.requests else (None, 0.0)
            due = None if request is None else when
        else:
            due = self._queue.earliest(self._down_since)
            if due is not None:
                due += self._options.link_timeout
        if not self._reception.pending:
            return due
        when = self._reception.deadline()
        return when if due is None else min(when, due)

    def tick(self, now: float) -> list[SessionEvent]:
        """Process what is due: pauses within frames, timeouts, requests that waited too long for a connection."""
        events: list[SessionEvent] = []
        received, not_before = self._reception.tick(now)
        if received:
            self._take(events, received, not_before, now)
        deadline = self._exchange.deadline
        if deadline is not None and now >= deadline:
            self._time_out(now, events)
        if not self._up:
            self._expire(now, events)
        return events

    def is_idle(self) -> bool:
        """Whether no request waits and no frame is incomplete, so that `deadline` is None."""
        return self._in_flight is None and not self._queue.requests and not self._reception.pending

    def data_to_send(self, now: float) -> bytes:
        """Return the bytes to write now: one request, or nothing. The driver must read all input before it calls it."""
        request = self.next_request(now)
        return b"" if request is None else self.send(request, now)

    def next_request(self, now: float) -> Request | None:
        """Return the request that may be sent now; None if there is none. See `data_to_send`."""
        queue = self._queue
        if self._in_flight is not None or not self._up or not queue.requests:
            return None
        if queue.requests[0].send_by < now:
            queue.drop_overdue(now)
            if not queue.requests:
                return None
        request, when = self._next(now)
        return request if when <= now else None

    def send(self, request: Request, now: float) -> bytes:
        """Return the bytes to write for what `next_request` has returned just before."""
        self._queue.requests.remove(request)
        self._reception.blocked_since = None
        if not request.attempts:
            request.first_sent = now
            decoder = self._reception.decoder
            stray_bytes = decoder.corrupt_bytes + decoder.noise_bytes
            request.received_before = decoder.frames, decoder.corrupt_frames, stray_bytes
        request.attempts += 1
        request.attempts_left -= 1
        if not request.reading:
            self.last_command_sent = now
        if request.switch is not None:
            request.switch.sent()
            if not request.reading:
                # The reading that verifies the switch must have been taken after this.
                request.measured_after = now
        self._requests += 1
        self._in_flight = request
        self._deadline_extended = False
        self._exchange.start(request.frame, now, self._options.timeout)
        return request.data

    # Which request is sent next.

    def _next(self, now: float) -> tuple[Request | None, float]:
        """Return the next request and the time from which it may be sent. The queue must not be empty.

        There are three reasons to wait: the pause after the last reply (`Exchange.free_at`), an incomplete frame, and
        for a command rule 8 of `exchange`. A command that is not clear yet is preceded by the probe.
        """
        request = self._queue.requests[0]
        exchange = self._exchange
        when = exchange.free_at
        if self._reception.pending:
            when = max(when, self._reception.quiet_from(now, self._options.timeout))
        if not request.reading:
            # A switch of the load is read back if its answer is not certain, so equal commands need no reading between
            # them. Only the connection must be clear.
            clear_from = exchange.clear_from(None if request.switch is not None else request.command.code)
            if clear_from is not None:
                self._queue.drop_probe()  # not needed any more: another reading was answered
                return request, max(when, clear_from)
            request = self._queue.probe(now, self._options.retries + 1)
        elif request.internal and not self._queue.has_command:
            self._queue.drop_probe()  # the command that needed it was cancelled
            if not self._queue.requests:
                return None, when
            request = self._queue.requests[0]
        if request.measured_after is not None:
            when = max(when, exchange.copies_until(_READ_REALTIME))
        return request, when

    # Received frames.

    def _take(self, events: list[SessionEvent], received: list[Event], not_before: float, now: float) -> None:
        """Process received events. The next request is sent only after the whole batch: frames that arrived together
        with an answer cannot answer a request sent later.
        """
        exchange = self._exchange
        for frame in received:
            if not isinstance(frame, Frame):
                self._reception.count_unsolicited(len(frame.raw), now, not_before)
                continue
            if self.frame_events:
                events.append(frame)
            match = exchange.receive(frame, now, not_before)
            if match is _ANSWER:
                request, self._in_flight = self._in_flight, None
                assert request is not None  # noqa: S101  # the exchange and the session agree on what is in flight
                self._unanswered_in_a_row = 0
                self._answer(request, frame, now, events)
                continue
            self._reception.count_unsolicited(OVERHEAD + len(frame.data), now, not_before)
            if match is _LATE:
                self._unanswered_in_a_row = 0
                self._late += 1
            elif match is _ECHO:
                self._echo_count += 1
                if self._in_flight is not None and self._in_flight.frame == frame:
                    self._in_flight.echoes += 1
            else:
                self._unsolicited += 1

    def _answer(self, request: Request, frame: Frame, now: float, events: list[SessionEvent]) -> None:
        exchange = self._exchange
        since = exchange.since
        if (
            request.measured_after is not None
            and frame.command == _READ_REALTIME
            and exchange.certain_since < request.measured_after
        ):
            # It may have been taken too early, for example because it is the reply to an earlier reading. Read again.
            request.attempts_left += 1
            self._queue.put_back(request)
            return
        self._answers += 1
        if exchange.ambiguous and frame.command != _READ_REALTIME and request.switch is None:
            self._finish(request, AmbiguousReplyError(self._options.name, frame.command, frame.data), events)
            return
        try:
            value = request.command.decode_reply(frame.data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # a custom command may raise anything
            malformed = MalformedReplyError(self._options.name, frame.command, frame.data, str(error) or repr(error))
            malformed.__cause__ = error
            self._finish(request, malformed, events)
            return
        answer = _new(Answer, (value, frame, since, now, exchange.ambiguous))
        if request.switch is None and request.measured_after is None:
            events.append(_new(Answered, (request, answer)))  # as `_finish` does for all but a few answers
        else:
            self._finish(request, answer, events)

    def _finish(self, request: Request, outcome: Answer[Any] | TracerError, events: list[SessionEvent]) -> None:
        """End a request, or queue the next step of a switch of the load."""
        switch = request.switch
        if switch is not None:
            end = switch.after(outcome)
            if end is None:
                reading = switch.step == _READ
                self._queue.put_step(request, switch.step, self._options.retries + 1 if reading else 1)
                return
            outcome = end
        # Only a reading with `measured_after` can be the probe, so most requests skip the call.
        was_probe = request.measured_after is not None and self._queue.end_probe(request)
        if isinstance(outcome, Answer):
            events.append(_new(Answered, (request, outcome)))
            return
        events.append(Failed(request, outcome))
        blocked = self._queue.requests[0] if was_probe and self._queue.requests else None
        if blocked is not None and not blocked.reading:
            # The command that needed this reading cannot be sent. Its error has the same evidence.
            self._queue.remove(blocked)
            self._finish(blocked, not_sent_error(outcome, request, blocked), events)

    # Missing replies.

    def _time_out(self, now: float, events: list[SessionEvent]) -> None:
        request = self._in_flight
        assert request is not None  # noqa: S101  # it has a deadline
        completes_by = self._reception.completes_by(request.command.code)
        if completes_by is not None and now < completes_by and not self._deadline_extended:
            # Its answer may be arriving: a good reply must not be lost because of a pause within it. Only once, so that
            # noise cannot extend the deadline again and again.
            self._deadline_extended = True
            self._exchange.deadline = completes_by
            return
        self._exchange.abandon(now)
        self._in_flight = None
        self._timeouts += 1
        self._retry(request, timeout_error(self._options.name, request, self._reception.decoder, now), events)
        self._note_unanswered(now, events)

    def _note_unanswered(self, now: float, events: list[SessionEvent]) -> None:
        """Count a request in flight that timed out or was cancelled. Too many in a row end the connection.

        The other side may have disappeared without closing the connection, which only a new connection can show. The
        limit also needs the time of that many timeouts: callers that cancel early must not end a good connection.
        """
        if not self._unanswered_in_a_row:
            self._silent_since = self._exchange.sent_at
        self._unanswered_in_a_row += 1
        most = self._options.max_timeouts
        if most is None or not self._up or self._unanswered_in_a_row < most:
            return
        if now >= self._silent_since + most * self._options.timeout:
            text = f"{self._unanswered_in_a_row} requests in a row were not answered"
            events.append(LinkFailed(LinkError(self._options.name, text)))

    def _retry(self, request: Request, error: TracerError, events: list[SessionEvent]) -> None:
        """Queue a request again if it may be repeated. Otherwise it fails."""
        if request.attempts_left > 0:
            self._queue.put_back(request)
        else:
            self._finish(request, error, events)

    def _expire(self, now: float, events: list[SessionEvent]) -> None:
        """Fail the requests that waited too long for a connection."""
        timeout = self._options.link_timeout
        for request in self._queue.expired(self._down_since, now, timeout):
            self._fail_waiting(request, f"no connection within {timeout:g} s", events)

    def _fail_waiting(self, request: Request, text: str, events: list[SessionEvent]) -> None:
        """Fail a queued request, because there is no connection on which it can be sent."""
        self._queue.remove(request)
        self._finish(request, unlinked_error(self._options.name, text, self._down_cause), events)
