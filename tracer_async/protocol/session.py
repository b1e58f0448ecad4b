"""The whole conversation with one controller, without I/O and without a clock.

Two rules explain it:

1. A driver tells the session what happened (`post`, `cancel`, `receive`, `tick`, `link_up`, `link_down`) and when, and
   does what it says: it writes `data_to_send`, calls `tick` at `deadline`, and hands out the events.
2. Whatever had arrived is received before `data_to_send` or `tick` is called. So nothing times out while its answer
   waits unread, and no request is sent in front of a reply that is already there.

`Exchange` decides which reply answers which request, `Reception` when the line is quiet, `LoadSwitch` what switching
the load takes. The session decides which request comes next, how often, and until when it waits for a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from tracer_async.errors import (
    AmbiguousReplyError,
    EchoError,
    LinkClosedError,
    LinkError,
    LinkFloodedError,
    LinkLostError,
    LinkTimeoutError,
    MalformedReplyError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol._answer import Answer
from tracer_async.protocol._load_switch import LoadSwitch
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

# What a NamedTuple's own constructor calls, in half its time.
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
    """The connection is of no use: the driver closes it and calls `Session.link_down`."""

    error: LinkError


SessionEvent = Answered | Failed | LinkFailed | Frame
"""What happened; a `Frame` is a good frame that was received, whatever it is."""


class SessionStats(NamedTuple):
    """What has happened since the session was made."""

    requests: int
    """Requests sent, retries included."""
    answers: int
    """Requests answered."""
    timeouts: int
    """Requests that were not answered in time, each time they were sent."""
    late: int
    """Replies discarded because their request had been abandoned."""
    unsolicited: int
    """Good frames that belong to no request: duplicates, and replies to another master."""
    echoes: int
    """Own requests that came back."""
    frames: int
    """Good frames received."""
    corrupt_frames: int
    """Damaged frames received."""
    noise_bytes: int
    """Bytes received that belong to no frame."""
    links: int
    """How often a connection was established."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What a session needs to know of its controller. Checked by the driver; see the parameters of `TracerClient`."""

    name: str
    """How errors call the controller: its URL."""
    controller_id: int = 0x16
    start_up: bool = True
    timeout: float = 1.0
    retries: int = 2
    fence: float = 1.0
    link_timeout: float = 5.0
    """Seconds that a request waits for a connection."""
    max_timeouts: int | None = None
    """Timeouts in a row after which the connection is given up; None: it never is."""


class Session:
    """The requests to one controller, one in flight at a time. See the module's two rules."""

    # There may be thousands of sessions: without slots each would take twice the memory.
    __slots__ = (
        "_answers",
        "_closed",
        "_deadline_extended",
        "_down_cause",
        "_down_since",
        "_echo_count",
        "_exchange",
        "_flight",
        "_late",
        "_links",
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
        self._flight: Request | None = None
        self._deadline_extended = False
        self._up = False
        self._closed = False
        self._down_since = now
        self._down_cause: Exception | None = None
        # Requests in flight that timed out or were cancelled, and when the first of them was sent.
        self._unanswered_in_a_row = 0
        self._silent_since = 0.0
        self.last_command_sent: float = -inf
        """When a command other than a reading was last sent. What was measured before may not be so any more."""
        self._requests = self._answers = self._timeouts = 0
        self._late = self._unsolicited = self._echo_count = self._links = 0
        self.frame_events: bool = True
        """Whether each good frame is an event. A driver that has no use for them sets it to False."""

    @property
    def stats(self) -> SessionStats:
        """The counters, as they stand now."""
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
            links=self._links,
        )

    # What callers want.

    def post(self, command: Command[Any], now: float, *, join: bool = False) -> Request:
        """Queue a request; with *join*, join an equal one that is not answered yet.

        A command other than a reading is sent only when its reply cannot be confused with an earlier one's: see
        `Exchange.clear_from`. Raises LinkClosedError once the session is closed, and whatever ``command.to_bytes``
        raises.
        """
        if self._closed:
            raise self._closed_error()
        if join:
            request = self._flight
            if request is None or request.command != command or request.switch is not None:
                request = self._queue.find(command)
            if request is not None:
                request.internal = False
                return request
        return self._queue.put(command, self._options.retries + 1 if command.repeatable else 1, now)

    def switch_load(self, load: LoadState, now: float) -> Request:
        """Queue a switching of the load, which ends only when its outcome is known: see `LoadSwitch`.

        Nothing but readings is sent between its command and its end. Raises LinkClosedError once the session is closed.
        """
        if self._closed:
            raise self._closed_error()
        switch = LoadSwitch(self._options.name, load, self._options.retries + 1)
        return self._queue.put(ManualControl(load), 1, now, switch)

    def cancel(self, request: Request, now: float) -> list[SessionEvent]:
        """Note that nobody waits for *request* any more. In flight, it is abandoned."""
        events: list[SessionEvent] = []
        if self._queue.is_needed(request):
            request.internal = True  # a command that waits still needs this reading
            return events
        if request is self._flight:
            self._flight = None
            self._exchange.abandon(now)
            self._note_unanswered(request, now, events)
        else:
            self._queue.remove(request)
        self._queue.end_probe(request)
        return events

    def close(self, now: float) -> list[SessionEvent]:
        """Fail all requests, now and from now on."""
        self._closed = True
        self._exchange.abandon(now)
        requests = ([self._flight] if self._flight is not None else []) + self._queue.clear()
        self._flight = None
        return [Failed(request, LinkClosedError(self._options.name, "the client was closed")) for request in requests]

    def _closed_error(self) -> LinkClosedError:
        return LinkClosedError(self._options.name, "the client is closed")

    # What the connection does.

    def link_up(self, now: float) -> None:
        """Begin a new connection, whose input is empty."""
        self._up = True
        self._links += 1
        self._unanswered_in_a_row = 0
        self._exchange.connect(now)
        self._reception.connect(now)

    def link_down(self, now: float, cause: Exception | None) -> list[SessionEvent]:
        """End the connection. A request in flight is sent again on the next one, if it may be."""
        self._up = False
        self._down_since = now
        self._down_cause = cause
        events: list[SessionEvent] = []
        self._take(events, *self._reception.disconnect(), now)
        self._exchange.abandon(now)
        request, self._flight = self._flight, None
        # Before the retry: a command whose reading fails with the connection waits for the next connection.
        self._queue.drop_probe()
        if request is not None and not request.internal:
            self._retry(request, LinkLostError(self._options.name, f"connection lost{_because(cause)}"), events)
        return events

    def note_down(self, cause: Exception) -> None:
        """Note why a connection could not be established."""
        self._down_cause = cause

    def receive(self, data: bytes | memoryview, now: float, not_before: float) -> list[SessionEvent]:
        """Take bytes that came between *not_before*, when the input was last known to be empty, and *now*."""
        events: list[SessionEvent] = []
        reception = self._reception
        received, came_after = reception.feed(data, now, not_before)
        if received:
            self._take(events, received, came_after, now)
        if reception.flooded:
            error = f"more than {FLOOD_RATE // 1024} KiB/s came that nobody asked for. Is this a serial bridge?"
            events.append(LinkFailed(LinkFloodedError(self._options.name, error)))
        return events

    def has_unanswered_command(self, now: float) -> bool:
        """Return whether a load or settings command is unanswered, whose bytes must not outlive the connection."""
        return self._exchange.has_unanswered_command(now)

    # What is due.

    def deadline(self, now: float) -> float | None:
        """Return when `tick` or `data_to_send` has something to do at the latest; None: when something happens."""
        if self._flight is not None:
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
        """Do what has become due: the end of pauses, timeouts, requests that waited too long for a connection."""
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
        """Whether no request waits and nothing is being received, so that nothing becomes due."""
        return self._flight is None and not self._queue.requests and not self._reception.pending

    def may_send(self, now: float) -> bool:
        """Return whether `data_to_send` has anything. The driver then makes sure that all input is received."""
        if self._flight is not None or not self._up or not self._queue.requests:
            return False
        request, when = self._next(now)
        return request is not None and when <= now

    def data_to_send(self, now: float) -> bytes:
        """Return the bytes to write now: one request, or nothing."""
        requests = self._queue.requests
        if self._flight is not None or not self._up or not requests:
            return b""
        request, when = self._next(now)
        if request is None or when > now:
            return b""
        requests.remove(request)
        self._reception.blocked_since = None
        if not request.attempts:
            request.first_sent = now
            request.received_before = self._reception.decoder.stats
        request.last_sent = now
        request.attempts += 1
        request.attempts_left -= 1
        if request.command.code != _READ_REALTIME:
            self.last_command_sent = now
        if request.switch is not None:
            request.switch.sent()
            if request.command.code != _READ_REALTIME:
                # The reading that verifies it must have been taken later.
                request.measured_after = now
        self._requests += 1
        self._flight = request
        self._deadline_extended = False
        self._exchange.start(request.frame, now, self._options.timeout)
        return request.data

    # Which request comes next.

    def _next(self, now: float) -> tuple[Request | None, float]:
        """Return the request to be sent next, if there is one, and when it may be. At least one must wait."""
        request = self._queue.requests[0]
        exchange = self._exchange
        when = exchange.free_at
        if self._reception.pending:
            when = max(when, self._reception.quiet_from(now, self._options.timeout))
        if request.command.code != _READ_REALTIME:
            # A switched load is read back where its answer proves nothing, so only the connection must be clear.
            clear_from = exchange.clear_from(None if request.switch is not None else request.command.code)
            if clear_from is not None:
                self._queue.drop_probe()  # another reading was answered before it
                return request, max(when, clear_from)
            request = self._queue.probe(now, self._options.retries + 1)
        elif request.internal and not self._queue.has_command:
            self._queue.drop_probe()  # nobody waits for the command that it had to come before
            if not self._queue.requests:
                return None, when
            request = self._queue.requests[0]
        if request.measured_after is not None:
            when = max(when, exchange.copies_until(_READ_REALTIME))
        return request, when

    # What came.

    def _take(self, events: list[SessionEvent], received: list[Event], not_before: float, now: float) -> None:
        """Take what was received. The next request is sent only after all of it: frames that arrived together with an
        answer cannot answer a request that is sent later.
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
                request, self._flight = self._flight, None
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
                if self._flight is not None and self._flight.frame == frame:
                    self._flight.echoes += 1
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
            # It may be from before: the next answer settles it.
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
        except BaseException as error:  # noqa: BLE001  # a command of the user's own may raise anything
            malformed = MalformedReplyError(self._options.name, frame.command, frame.data, str(error) or repr(error))
            malformed.__cause__ = error
            self._finish(request, malformed, events)
            return
        self._finish(request, _new(Answer, (value, frame, since, now, exchange.ambiguous)), events)

    def _finish(self, request: Request, outcome: Answer[Any] | TracerError, events: list[SessionEvent]) -> None:
        """End a request, or take the next step of switching the load."""
        switch = request.switch
        if switch is not None:
            end = switch.after(outcome)
            if end is None:
                reading = switch.step == _READ
                self._queue.put_step(request, switch.step, self._options.retries + 1 if reading else 1)
                return
            outcome = end
        # A probe is a reading that must have been taken after a certain time.
        was_probe = request.measured_after is not None and self._queue.end_probe(request)
        if isinstance(outcome, Answer):
            events.append(_new(Answered, (request, outcome)))
            return
        events.append(Failed(request, outcome))
        blocked = self._queue.requests[0] if was_probe and self._queue.requests else None
        if blocked is not None and blocked.command.code != _READ_REALTIME:
            # The command that the reading had to come before cannot be sent.
            self._queue.remove(blocked)
            self._finish(blocked, _not_sent(outcome, request, blocked), events)

    # What did not come.

    def _time_out(self, now: float, events: list[SessionEvent]) -> None:
        request = self._flight
        assert request is not None  # noqa: S101  # it has a deadline
        completes_by = self._reception.completes_by(request.command.code)
        if completes_by is not None and now < completes_by and not self._deadline_extended:
            # What may be its answer is coming in: an undamaged reply must not be lost to a pause within it.
            self._deadline_extended = True
            self._exchange.deadline = completes_by
            return
        self._exchange.abandon(now)
        self._flight = None
        self._timeouts += 1
        self._retry(request, self._timeout_error(request, now), events)
        self._note_unanswered(request, now, events)

    def _note_unanswered(self, request: Request, now: float, events: list[SessionEvent]) -> None:
        """Count a request in flight that timed out or was cancelled; too many in a row end the connection.

        A peer that vanished without a word looks like this; only a new connection can tell. Callers that are cancelled
        early prove it only together: they must have waited as long as the timeouts would have taken.
        """
        if not self._unanswered_in_a_row:
            self._silent_since = request.last_sent
        self._unanswered_in_a_row += 1
        most = self._options.max_timeouts
        if most is None or not self._up or self._unanswered_in_a_row < most:
            return
        if now >= self._silent_since + most * self._options.timeout:
            text = f"{self._unanswered_in_a_row} requests in a row were not answered"
            events.append(LinkFailed(LinkError(self._options.name, text)))

    def _timeout_error(self, request: Request, now: float) -> ResponseTimeoutError:
        """Return the error of a request without an answer, with what was received instead."""
        decoder = self._reception.decoder
        after, before = decoder.stats, request.received_before
        assert before is not None  # noqa: S101  # it was sent
        kind = EchoError if request.echoes else ResponseTimeoutError
        return kind(
            self._options.name,
            request.command.code,
            now - request.first_sent,
            request.attempts,
            frames=after.frames - before.frames,
            damaged_frames=after.corrupt_frames - before.corrupt_frames,
            stray_bytes=after.noise_bytes
            - before.noise_bytes
            + after.corrupt_bytes
            - before.corrupt_bytes
            + decoder.pending,
        )

    def _retry(self, request: Request, error: TracerError, events: list[SessionEvent]) -> None:
        """Send a request again, if it may be; else it fails."""
        if request.attempts_left > 0:
            self._queue.put_back(request)
        else:
            self._finish(request, error, events)

    def _expire(self, now: float, events: list[SessionEvent]) -> None:
        """Fail the requests that waited too long for a connection."""
        timeout = self._options.link_timeout
        for request in self._queue.expired(self._down_since, now, timeout):
            self._queue.remove(request)
            cause = self._down_cause
            because = f": {cause.reason}" if isinstance(cause, LinkError) else _because(cause)
            text = f"not connected, and no connection within {timeout:g} s{because}"
            error = LinkTimeoutError(self._options.name, text)
            error.__cause__ = cause
            self._finish(request, error, events)


def _not_sent(error: TracerError, probe: Request, blocked: Request) -> TracerError:
    """Return the error of a command for that of the reading that had to come before it."""
    if not isinstance(error, ResponseTimeoutError):
        return error
    evidence = {name: getattr(error, name) for name in ("frames", "damaged_frames", "stray_bytes")}
    if blocked.attempts:  # it was to be sent again
        waited = probe.first_sent + error.waited - blocked.first_sent
        return type(error)(error.address, blocked.command.code, waited, blocked.attempts, **evidence)
    unsent = int(blocked.command.code)
    return type(error)(error.address, error.command, error.waited, error.attempts, unsent=unsent, **evidence)


def _because(cause: Exception | None) -> str:
    return f" ({cause})" if cause is not None and str(cause) else ""
