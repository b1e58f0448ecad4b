"""Drives a session by its two rules in virtual time, and judges all that it does by the model."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Any

from tests.protocol.session_model import (
    A0,
    AA,
    AD,
    HEALTHY,
    LATEST_COPY,
    Arrival,
    Controller,
    Fate,
    Sent,
    Wire,
    request_of,
)
from tracer_async import (
    AmbiguousReplyError,
    BatteryType,
    ControlSettings,
    EchoError,
    LinkClosedError,
    LinkLostError,
    LinkTimeoutError,
    LoadMode,
    LoadRefusedError,
    LoadState,
    LoadUnknownError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol import (
    Answer,
    Answered,
    Command,
    Frame,
    LinkFailed,
    ManualControl,
    ReadRealtime,
    RealtimeData,
    Request,
    Session,
    SessionEvent,
    SessionOptions,
    WriteSettings,
)

TIMEOUT = 1.0
LINK_TIMEOUT = 5.0


@dataclass(frozen=True)
class OwnRead(ReadRealtime):
    """A custom reading that equals no other."""

    number: int = 0

    def to_bytes(self) -> bytes:
        return bytes([self.number & 0xFF])


def settings_number(number: int) -> WriteSettings:
    """A write that differs from all others in a sequence."""
    return WriteSettings(
        ControlSettings(
            battery_type=BatteryType.SEALED,
            battery_capacity=10 * (1 + number % 255),
            temperature_compensation=3,
            load_mode_1=LoadMode.MANUAL,
            load_mode_2=LoadMode.OFF,
        )
    )


@dataclass(frozen=True)
class Flapping:
    """A bridge that closes each connection early, and accepts another one."""

    after_connect: float | None = None
    """Seconds after which it closes a connection. None: not for that reason."""
    after_reply: float | None = None
    """Seconds after a reply."""
    back_after: float = 3 / 8
    """Seconds until the next connection."""
    keeps: bool = False
    """Whether it delivers on the next connection what arrives while there is none."""
    greeting: bytes | None = b""
    """What it sends on each new connection. None: an unsolicited reading."""


@dataclass(eq=False)
class Posted:
    """A request as the judge sees it."""

    request: Request
    command: Command[Any]
    switch: bool
    number: int
    waiters: int = 1
    adopted: bool = False
    """Whether it was the session's own reading before a caller joined it."""
    may_be_own: bool = False
    """Whether it may have been queued earlier than it was posted, as the reading before a command."""
    connection: int = 0
    """Number of the connection on which it was sent last; before that, of the last one when it was posted."""
    sent: list[Sent] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        assert isinstance(self.command, ManualControl)
        return bool(self.command.load)


class Driver:
    """Drives a session by its two rules, and judges all that it does by the model."""

    def __init__(self, options: SessionOptions, controller: Controller, *, echoes: bool) -> None:
        self.now = 100.0
        self.options = options
        self.controller = controller
        self.wire = Wire(controller, echoes=echoes)
        self.session = Session(options, self.now)
        self.empty_at = self.now
        self.down_since = self.now
        self.fates: deque[Fate] = deque()
        self.chunk = 4096
        self.outstanding: list[Posted] = []
        self.by_request: dict[Request, Posted] = {}
        self.flight: Sent | None = None
        self.flight_of: Posted | None = None
        self.readings: list[Sent] = []
        self.good: deque[Arrival] = deque()
        self.origin: Arrival | None = None
        self.transaction: Posted | None = None
        self.closed = False
        self.frames = 0
        self.flapping: Flapping | None = None
        self.connections = 0
        self.disconnect_at = self.connect_at = inf
        # Readings of callers who have cancelled them. The session still needs them, so another caller may join them.
        self.continued: dict[Request, int] = {}

    # What callers do.

    def post(self, command: Command[Any], *, join: bool = False) -> None:
        self._note(self.session.post(command, self.now, join=join), command, join=join)

    def switch(self, load: LoadState) -> None:
        self._note(self.session.switch_load(load, self.now), ManualControl(load), switch=True)

    def _note(self, request: Request, command: Command[Any], *, switch: bool = False, join: bool = False) -> None:
        known = self.by_request.get(request)
        if known is not None:
            assert known in self.outstanding
            assert known.command == command
            known.waiters += 1
            return
        posted = Posted(request, command, switch, len(self.by_request), adopted=bool(request.attempts))
        posted.connection = self.continued.get(request, self.connections)
        posted.may_be_own = join and any(other.command.urgent for other in self.outstanding)
        if posted.adopted and self.flight_of is None and self.flight is not None and not self.flight_is_over:
            self.flight_of = posted
            posted.sent.append(self.flight)
        self.by_request[request] = posted
        self.outstanding.append(posted)

    def cancel(self, posted: Posted) -> None:
        """One of the waiting callers abandons the request."""
        posted.waiters -= 1
        if not posted.waiters:
            self.outstanding.remove(posted)
            events = self.session.cancel(posted.request, self.now)
            # As an asyncio connection does. It must not depend on whether all input is read.
            self.session.has_unanswered_command(self.now)
            if posted.request.internal:
                # It continues as the session's own reading, before a waiting command.
                assert any(other.switch or other.command.code != A0 for other in self.outstanding)
                del self.by_request[posted.request]
                self.continued[posted.request] = posted.connection
                if self.flight_of is posted:
                    self.flight_of = None
                return
            if self.flight_of is posted:
                self._abandon()
            if self.transaction is posted:
                self.transaction = None
            self._judge(events)

    def cancel_oldest(self) -> None:
        if self.outstanding:
            self.cancel(self.outstanding[0])

    def close(self) -> None:
        self.closed = True
        events = self.session.close(self.now)
        self._judge(events)
        assert not self.outstanding

    # What the connection does.

    def connect(self) -> None:
        self.connections += 1
        self.session.link_up(self.now)
        self.empty_at = self.now
        self.wire.connect(self.now)
        self.connect_at = inf
        if self.flapping is not None:
            if self.flapping.after_connect is not None:
                self.disconnect_at = self.now + self.flapping.after_connect
            if self.flapping.greeting:
                self.wire.put_bytes(self.flapping.greeting, self.now)
            elif self.flapping.greeting is None and self.wire.idle:
                self.wire.put_foreign(self.controller.reading(self.now), self.now)
            self.wire.process(self.now)

    def disconnect(self, cause: Exception | None, *, keeps: bool) -> None:
        self.wire.disconnect(keeps=keeps)
        self.down_since = self.now
        self.disconnect_at = inf
        if self.flapping is not None:
            self.connect_at = self.now + self.flapping.back_after
        # A reply behind the beginning of another frame is received now. What is in flight after that is abandoned.
        self._judge(self.session.link_down(self.now, cause))
        self._abandon()
        assert not self.good
        assert self.session.next_request(self.now) is None
        for posted in self.outstanding:
            # Each reading that verifies a switch may wait for that many connections, and so may the command after it.
            most = 2 * self.options.retries + 1 if posted.switch else self.options.retries
            assert self._losses(posted) <= most, "a request waits for connection after connection"

    def _losses(self, posted: Posted) -> int:
        """Return how many connections came and were lost while a request waited."""
        return self.connections - posted.connection

    def _abandon(self) -> None:
        if self.flight is not None and not self.flight.replied and self.flight.abandoned_at is None:
            self.flight.abandoned_at = self.now

    @property
    def flight_is_over(self) -> bool:
        flight = self.flight
        return flight is None or flight.replied or flight.abandoned_at is not None

    # The two rules.

    def run(self) -> None:
        """Receive all that has arrived, do what is due, send what may be sent."""
        wire = self.wire
        if wire.up and wire.unread:
            raw = b"".join(arrival.raw for arrival in wire.unread)
            self.good += [arrival for arrival in wire.unread if arrival.frame is not None]
            wire.unread.clear()
            for at in range(0, len(raw), self.chunk):
                self._judge(self.session.receive(raw[at : at + self.chunk], self.now, self.empty_at))
            self.empty_at = self.now
        due = self.session.deadline(self.now)
        if due is not None and due <= self.now:
            self.empty_at = self.now
            self._tick()
        if wire.up and self.session.next_request(self.now) is not None:
            self.empty_at = self.now
            self._send()
        due = self.session.deadline(self.now)
        assert due is None or due > self.now, "the session asks to be called, and does nothing"
        if self.outstanding and not self.closed:
            assert due is not None, "a request waits for nothing"

    def _tick(self) -> None:
        timeouts = self.session.stats.timeouts
        flight = self.flight
        events = self.session.tick(self.now)
        if self.session.stats.timeouts != timeouts:
            assert flight is not None
            assert not flight.answered or flight.frame.command == AA
            assert self.now >= flight.at + TIMEOUT
            flight.abandoned_at = self.now
        self._judge(events)

    def _send(self) -> None:
        before = {posted: posted.request.attempts for posted in self.outstanding}
        raw = self.session.data_to_send(self.now)
        assert raw
        assert not self.session.data_to_send(self.now), "a second request is sent while one is in flight"
        frame = request_of(raw)
        changed = [posted for posted, attempts in before.items() if posted.request.attempts != attempts]
        assert len(changed) <= 1
        self._judge_pause()
        posted = changed[0] if changed else None
        self._judge_order(posted, frame)
        sent = Sent(frame, self.now, self.fates.popleft() if self.fates else HEALTHY)
        self.flight, self.flight_of = sent, posted
        if frame.command == A0:
            self.readings.append(sent)
        if posted is not None:
            posted.sent.append(sent)
            posted.connection = self.connections
            self._judge_attempts(posted)
            if posted.switch and frame.command == AA:
                self.transaction = posted
        self.wire.send(sent)

    # Judging what is sent.

    def _judge_pause(self) -> None:
        """One request in flight, and the fence after one that was abandoned."""
        last = self.flight
        if last is not None and not last.replied and not last.echoed:
            assert last.abandoned_at is not None, "a second request is sent while one is in flight"
            assert self.now >= last.abandoned_at + self.options.fence, "the fence"
        half = self.wire.half_arrived(self.now)
        assert half is None or self.now >= half + 0.25, "a reply is just being received"

    def _judge_order(self, posted: Posted | None, frame: Frame) -> None:
        urgent = [other for other in self.outstanding if other.command.urgent]
        if posted is None:
            assert frame.command == A0, "only a reading may be the session's own"
            assert urgent, "no command waits for a reading"
        elif posted.command.urgent:
            assert posted is urgent[0], "commands are sent in their order"
            if not (posted.switch and frame.command == A0):
                assert frame == Frame(0x16, posted.command.code, posted.command.to_bytes())
        else:
            assert frame == Frame(0x16, A0, posted.command.to_bytes())
            if urgent:
                assert type(posted.command) is ReadRealtime, "commands overtake readings"
            else:
                before = [other for other in self.outstanding if other.number < posted.number]
                assert not before or posted.sent or posted.adopted or posted.may_be_own, (
                    "readings are sent in their order"
                )
        if self.transaction is not None and frame.command != A0:
            assert posted is self.transaction, "only readings are sent during a load switch"

    def _judge_attempts(self, posted: Posted) -> None:
        most = self.options.retries + 1
        commands = [sent for sent in posted.sent if sent.frame.command != A0]
        readings = [sent for sent in posted.sent if sent.frame.command == A0 and not sent.answered]
        assert len(commands) <= (most if posted.command.repeatable else 1)
        assert len(readings) <= (most * most if posted.switch else most)

    # Judging the outcomes.

    def _judge(self, events: list[SessionEvent]) -> None:
        failed = None
        for event in events:
            if isinstance(event, Frame):
                self._judge_frame(event)
            elif isinstance(event, LinkFailed):
                assert str(event.error).startswith(f"{self.options.name}: ")
                failed = event
            else:
                posted = self.by_request.get(event.request)
                if posted is None:
                    assert event.request.command == ReadRealtime()
                else:
                    assert posted in self.outstanding, "one outcome for each request that is still waited for"
                    self.outstanding.remove(posted)
                    if self.transaction is posted:
                        self.transaction = None
                if isinstance(event, Answered):
                    self._judge_answer(posted, event.answer)
                else:
                    assert str(event.error).startswith(f"{self.options.name}: ")
                    if posted is not None:
                        self._judge_error(posted, event.error)
        if failed is not None and not self.closed:
            assert self.options.max_timeouts is not None
            self.disconnect(failed.error, keeps=False)

    def _judge_frame(self, frame: Frame) -> None:
        self.frames += 1
        self.origin = self.good.popleft()
        if self.flapping is not None and self.flapping.after_reply is not None:
            self.disconnect_at = min(self.disconnect_at, self.now + self.flapping.after_reply)
        assert frame == self.origin.frame
        flight = self.flight
        if flight is None or frame.command != flight.frame.command:
            return
        if self.origin.kind == "echo":
            flight.echoed = frame.command == AA
            return
        if not flight.replied and flight.abandoned_at is None:
            flight.answered = True
            flight.answered_by = self.origin.sent
        flight.replied = True

    def _judge_answer(self, posted: Posted | None, answer: Answer[Any]) -> None:
        origin, flight = self.origin, self.flight
        assert origin is not None
        assert flight is not None
        assert answer.frame == origin.frame
        assert origin.kind != "echo" or answer.ambiguous
        assert answer.received_at == self.now
        assert answer.since <= flight.at
        own = origin.sent is flight
        if answer.frame.command != A0:
            assert posted is not None
            assert own, "the reply to another request confirms a command"
            assert not answer.ambiguous
            self._judge_command(posted, flight, answer)
            return
        measured = self.controller.measured[int.from_bytes(answer.frame.data[:2], "little")]
        assert measured <= self.now
        strict = posted is not None and posted.switch
        origin.behind = self._is_behind(origin)
        if not strict and origin.behind:
            assert answer.since <= measured + LATEST_COPY + TIMEOUT, "older than the documented limit"
        else:
            assert answer.ambiguous or own, "not the request's own reply, but not marked as ambiguous"
            assert answer.since <= measured, "older than it is said to be"
        if posted is None:
            return
        if posted.switch:
            assert isinstance(answer.value, LoadState)
            assert bool(answer.value) is posted.wanted
            assert measured >= [sent for sent in posted.sent if sent.frame.command == AA][-1].at
            self._judge_switched(posted)
        else:
            assert isinstance(answer.value, RealtimeData)
            assert answer.value.to_bytes() == answer.frame.data

    def _is_behind(self, origin: Arrival) -> bool:
        """Return whether this is the documented exception: copies answered the last readings, a reply to one comes now.

        Several readings, because a reply may have several copies. Such a late reply may have a copy too.
        """
        if origin.original is not None and origin.original.behind:
            return True
        for sent in reversed(self.readings[:-1]):
            if not sent.answered or sent.answered_by is sent:
                return False
            if sent is origin.sent:
                return True
        return False

    def _judge_command(self, posted: Posted, sent: Sent, answer: Answer[Any]) -> None:
        assert sent in posted.sent
        assert sent.executed_at is not None, "the controller never received it"
        if posted.command.code == AD:
            assert answer.value is None
            assert len(posted.sent) == 1
        else:
            assert answer.value == sent.load_after
            if posted.switch:
                self._judge_switched(posted)

    def _judge_switched(self, posted: Posted) -> None:
        assert self.controller.had_load(posted.wanted, posted.sent[0].at), "the load was never in the state"

    def _judge_error(self, posted: Posted, error: TracerError) -> None:
        commands = [sent for sent in posted.sent if sent.frame.command != A0]
        assert not isinstance(error, LinkClosedError) or self.closed
        assert not isinstance(error, LoadRefusedError | LoadUnknownError) or error.wanted is posted.wanted
        if isinstance(error, LoadRefusedError):
            assert any(sent.load_after is (not posted.wanted) for sent in commands), "it was not refused"
            assert error.reading.load_on is not posted.wanted
            self._judge_later_reading(error.reading, commands[-1])
        elif isinstance(error, LoadUnknownError):
            assert error.sent is bool(commands)
            if error.reading is not None:
                assert error.reading.load_on is not posted.wanted
                self._judge_later_reading(error.reading, commands[-1])
            if commands:
                assert not error.answered or commands[-1].answered_by is commands[-1]
        elif isinstance(error, AmbiguousReplyError):
            assert commands
            assert not posted.switch
        elif isinstance(error, ResponseTimeoutError):
            assert not isinstance(error, EchoError) or self.wire.echoes
            if error.unsent is not None:
                assert not posted.sent, "it was sent"
            elif not posted.adopted and not posted.command.urgent:
                unanswered = [sent for sent in posted.sent if not sent.answered]
                assert len(unanswered) == self.options.retries + 1
        elif isinstance(error, LinkTimeoutError):
            assert not self.wire.up
            assert self.now >= self.down_since + LINK_TIMEOUT or self._losses(posted) > self.options.retries
        elif isinstance(error, LinkLostError):
            assert posted.sent or posted.adopted
            assert not self.wire.up
            assert posted.request.attempts_left == 0
        else:
            assert isinstance(error, LinkClosedError), error

    def _judge_later_reading(self, reading: RealtimeData, sent: Sent) -> None:
        number = round(reading.battery_voltage * 100)
        assert self.controller.measured[number] >= sent.at, "the reading is from before the command"

    # Time.

    def advance(self, seconds: float) -> None:
        """Let time pass. The driver does immediately what is due."""
        until = self.now + seconds
        while True:
            self.run()
            due = self.session.deadline(self.now)
            now = min(until, self.wire.next_event(), until if due is None else due)
            now = min(now, self.disconnect_at if self.wire.up else self.connect_at)
            self.now = max(now, self.now)
            self.wire.process(self.now)
            self._flap()
            if self.now >= until:
                break
        self.run()

    def _flap(self) -> None:
        if self.flapping is None or self.closed:
            return
        if self.wire.up and self.now >= self.disconnect_at:
            self.run()
            if self.wire.up:
                self.disconnect(None, keeps=self.flapping.keeps)
        elif not self.wire.up and self.now >= self.connect_at:
            self.connect()

    def stall(self, seconds: float) -> None:
        """Let time pass while the driver does nothing."""
        self.now += seconds
        self.wire.process(self.now)
