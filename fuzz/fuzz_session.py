"""The whole conversation, driven by a sequence of operations: the pure `Session`, and what its driver does with it.

The fuzzer plays the callers, the wire, the clock, the application that blocks and, within the rules of the protocol or
beyond them, the controller. Time is a number, and there is no event loop.

Invariant: for every sequence of events,

* nothing raises but `LinkClosedError` on a closed session, and requests fail with a `TracerError`;
* each request has exactly one outcome, and a cancelled one has none;
* at most one request is in flight, and the next is sent only once it is answered, or the fence has passed;
* settings are sent at most once for each request, other commands at most once more than there are retries;
* commands go in order and before readings, but behind the reading that makes their reply distinguishable;
* from the command of a load switch to its end, no other command is sent;
* an equal request is joined if that is asked for, and never otherwise;
* an answer is its request's, or since then: `Answer.since` is no later than the request that the controller answered,
  and what the controller did is between `since` and `received_at`;
* a command succeeds only by the reply to it, and no echo is an answer: else it fails with `AmbiguousReplyError`;
* a load switch succeeds only if the load had that state since the call, and is refused only if the controller
  answered this command with the other state;
* no request times out whose reply had arrived in time, however late the application reads it;
* the session says when it has to be called next; without new events each request ends within a bounded time; on closing
  it ends immediately;
* each good frame is an event, the counters agree with the events, and memory is bounded.

The judgement of answers (items 8 to 10) holds for a controller and a wire as `tracer_async.protocol.exchange` describes
them. It ends in a run in which something beyond that has come: see `AnswerJudge`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from fuzz.answers import AnswerJudge
from fuzz.controller import ModelController
from fuzz.requests import Open, RequestJudge
from fuzz.wire import Passage, Wire
from tracer_async.errors import LinkClosedError, LinkError, TracerError
from tracer_async.protocol import (
    END,
    MAX_DATA,
    OVERHEAD,
    Answer,
    Answered,
    BatteryType,
    Command,
    CommandCode,
    ControlSettings,
    Failed,
    Frame,
    LinkFailed,
    LoadMode,
    LoadState,
    ManualControl,
    ReadRealtime,
    Request,
    Session,
    SessionEvent,
    SessionOptions,
    WriteSettings,
)

__all__ = ["DELAYS", "OPERATIONS", "check"]

SETTINGS = ControlSettings(
    battery_type=BatteryType.SEALED,
    battery_capacity=100,
    temperature_compensation=3,
    load_mode_1=LoadMode.MANUAL,
    load_mode_2=LoadMode.OFF,
)


@dataclass(frozen=True, slots=True)
class OwnCommand(Command[None]):
    """A custom command that may raise any error for a reply."""

    code: ClassVar[int] = 0x55

    def to_bytes(self) -> bytes:
        """Return no bytes."""
        return b""

    def decode_reply(self, data: bytes) -> None:
        """Raise an error as faulty user code does."""
        if data:
            raise KeyError(data)


COMMANDS: tuple[Command[Any], ...] = (
    ReadRealtime(),
    ManualControl(LoadState.ON),
    ManualControl(LoadState.OFF),
    WriteSettings(SETTINGS),
)
OWN = OwnCommand()
OPERATIONS = (
    *("post", "switch", "cancel", "close"),
    *("reply", "foreign", "garbage", "arrive", "trickle"),
    *("wait", "next_deadline", "stall", "resume"),
    *("connect", "lose", "note_down"),
)
"""An operation is a byte: its name's place in here in the low half, its argument in the high half."""

DELAYS = (0.0, 0.001, 0.02, 0.049, 0.06, 0.1, 0.26, 0.5, 0.99, 1.0, 1.01, 2.0, 4.9, 5.1, 9.0, 11.0)
TIMEOUT = 1.0
FENCES = (0.0, 0.3, 1.0, 3.0)
MAX_TIMEOUTS = (None, 1, 3, 1000)

# Maximum of unanswered requests that the exchange remembers, and that a reply's number can count.
MOST_REQUESTS = 64


def check(data: bytes) -> None:
    """Raise AssertionError if *data*, two bytes of options and then operations, breaks the invariant of this module."""
    options, script = data[:2].ljust(2, b"\x00"), data[2:]
    Scene(options).play(script)


class Scene:
    """The session, its driver, the callers and the controller, and what has to hold for them."""

    def __init__(self, options: bytes) -> None:
        self.now = 100.0
        fence = FENCES[options[0] & 3]
        retries = options[0] >> 2 & 3
        self.close_early = bool(options[0] & 0x40)
        # Whether the driver knows at each moment that the input is empty, or only when it looks.
        self.polls_always = bool(options[0] & 0x80)
        self.keeps_bytes = bool(options[1] & 1)  # as a bridge does, over a lost connection
        self.echoes = bool(options[1] & 2)
        self.start_up = not options[1] & 8
        self.session = Session(
            SessionOptions(
                name="fuzz",
                start_up=self.start_up,
                timeout=TIMEOUT,
                retries=retries,
                fence=fence,
                max_timeouts=MAX_TIMEOUTS[options[0] >> 4 & 3],
            ),
            self.now,
        )
        self.controller = ModelController(self.now, copies_id=bool(options[1] & 4))
        self.wire = Wire()
        self.judge = RequestJudge(retries)
        self.answers = AnswerJudge(self.controller, self.wire, timeout=TIMEOUT, fence=fence, echoes=self.echoes)
        self.callers: list[Request] = []
        self.up = self.stalled = self.closed = False
        self.empty_at = self.now
        self.last_reply: Passage | None = None
        self.flight: Request | None = None
        self.frames = self.requests = 0

    # The driver: it connects the session with the operations.

    def pump(self) -> None:
        """Send what may be sent. All input has been read."""
        if self.stalled:
            return
        may_send = self.session.next_request(self.now) is not None
        data = self.session.data_to_send(self.now)
        assert bool(data) == may_send
        if data:
            self.empty_at = self.now
            self._sent(data)
        assert self.session.next_request(self.now) is None, "two requests in flight"
        if not self.closed:
            when = self.session.deadline(self.now)
            assert when is None or when > self.now, "due already, and nothing is done"

    def due(self) -> None:
        """Do what has become due."""
        self.empty_at = self.now
        events = self.session.tick(self.now)
        self.wire.give_up(self.session._reception.decoder.pending)
        self.deliver(events)
        self.pump()

    def advance(self, until: float) -> None:
        """Let the time become *until*, and do on the way what becomes due, unless the application blocks."""
        for _ in range(1000):
            when = self.session.deadline(self.now)
            if when is None or when > until or self.stalled or self.closed:
                break
            self.now = when
            self.due()
        else:
            raise AssertionError(f"a thousand deadlines within {until - self.now} s")
        self.now = until

    def deliver(self, events: list[SessionEvent]) -> None:
        """Take what happened."""
        for event in events:
            if isinstance(event, Frame):
                self._decoded(event)
            elif isinstance(event, Answered):
                self._answered(event.request, event.answer)
            elif isinstance(event, Failed):
                self._failed(event.request, event.error)
            else:
                assert isinstance(event, LinkFailed)
                assert isinstance(event.error, LinkError)
                if self.up:
                    self._lose(event.error)

    def read(self, number: int) -> None:
        """Read input: it came at any moment since the input was last known to be empty."""
        data = self.wire.read(number)
        if data:
            self.deliver(self.session.receive(data, self.now, self.empty_at))

    # What the session does.

    def _sent(self, data: bytes) -> None:
        """A request is on its way to the controller."""
        now = self.now
        assert self.up, "sent without a connection"
        assert not self.closed, "sent on a closed session"
        self.answers.sending(now, self.session.stats.timeouts)
        self.flight = self.session._in_flight
        assert self.flight is not None
        self.requests += 1
        asked = self.controller.request(data, now)
        self.judge.sent(self.flight, asked, now)
        if self.echoes:
            self.wire.put(asked.frame, asked, start_up=self.start_up, is_echo=True)

    def _decoded(self, frame: Frame) -> None:
        """A good frame has come through."""
        self.frames += 1
        reading = self.answers.decoded(frame, self.session.stats.timeouts)
        if reading is not None:
            self.judge.reading_came(reading, self.now)

    def _answered(self, request: Request, answer: Answer[Any]) -> None:
        """A request is answered."""
        entry = self._end(request)
        if answer.frame.command == CommandCode.READ_REALTIME:
            self.judge.reading_answered(answer.since)
        self.answers.answered(entry, answer, self.now)

    def _failed(self, request: Request, error: TracerError) -> None:
        """A request has failed."""
        entry = self._end(request)
        assert isinstance(error, TracerError), f"a caller gets {error!r}"
        if entry is not None:
            self.answers.failed(entry, error)

    def _end(self, request: Request) -> Open | None:
        """A request has its outcome, and so do its callers."""
        entry = self.judge.end(request)
        if entry is None:
            assert request.command.code == CommandCode.READ_REALTIME, "a second outcome, or one of a cancelled request"
            assert request.switch is None, "a second outcome, or one of a cancelled request"
            assert request not in self.callers
        else:
            assert self.callers.count(request) == entry.callers
            self.callers = [caller for caller in self.callers if caller is not request]
        return entry

    # The operations. Each takes a number from 0 to 15.

    def play(self, script: bytes) -> None:
        """Carry out the operations, then let the requests come to their end, and close."""
        at = 0
        while at < len(script) and len(self.controller.asked) < MOST_REQUESTS:
            name, argument = OPERATIONS[script[at] & 0x0F], script[at] >> 4
            at += 1
            if name == "garbage":
                self.garbage(script[at : at + argument + 1])
                at += argument + 1
            else:
                getattr(self, name)(argument)
            self.look()
        if not self.close_early:
            self.resume(0)
            end = self.now + 150.0 * (1 + len(self.judge.open))
            for _ in range(10_000):
                if not self.judge.open:
                    break
                assert self.closed or self.session.deadline(self.now) is not None, "a request waits for nothing"
                self.next_deadline(0)
                self.look()
            assert not self.judge.open, "a request waits forever"
            assert self.now <= end, "a request waits for too long"
        self.close(0)
        self.look()

    def post(self, argument: int) -> None:
        """A caller asks."""
        command = OWN if argument & 8 else COMMANDS[argument & 3]
        join = bool(argument & 4)
        probe = self.session._queue._probe
        try:
            request = self.session.post(command, self.now, join=join)
        except LinkClosedError:
            assert self.closed
            return
        assert not self.closed
        self.judge.post(request, command, self.now, join=join, probe=probe)
        self.callers.append(request)
        self.pump()

    def switch(self, argument: int) -> None:
        """A caller switches the load."""
        load = LoadState(argument & 1)
        try:
            request = self.session.switch_load(load, self.now)
        except LinkClosedError:
            assert self.closed
            return
        assert not self.closed
        self.judge.switch_load(request, load, self.now)
        self.callers.append(request)
        self.pump()

    def cancel(self, argument: int) -> None:
        """A caller is cancelled; its request may be in flight."""
        if self.callers:
            request = self.callers.pop(argument % len(self.callers))
            if request in self.callers:
                self.judge.open[request].callers -= 1
                return
            self.judge.end(request)
            if request is self.flight:
                self.answers.abandoned(self.now)
            self.session.cancel(request, self.now)
            self.pump()

    def reply(self, argument: int) -> None:
        """The controller replies."""
        reply = self.controller.reply(
            self.now,
            lost=argument & 3,
            never_received=argument & 12 == 8,
            obeys=not argument & 4,
            malformed=argument & 12 == 12,
        )
        if reply is not None:
            asked, frame = reply
            self.last_reply = self.wire.put(frame, asked)

    def foreign(self, argument: int) -> None:
        """A reply comes twice, or to another master's request."""
        if not argument & 4:
            frame = Frame(0xFF, COMMANDS[argument & 3].code, bytes(24))
            self.wire.put_bytes(frame.encode(start_up=False))
        elif self.last_reply is not None:
            original = self.last_reply
            self.wire.put(original.frame, original.asked, original=original)

    def garbage(self, data: bytes) -> None:
        """Bytes arrive that are no frame. If they do complete one, the library promises nothing about it."""
        self.answers.has_garbage = True
        if END in data:
            self.answers.within_promise = False
        self.wire.put_bytes(data)

    def arrive(self, argument: int) -> None:  # noqa: ARG002
        """All bytes on the wire arrive."""
        self._arrive(self.wire.in_the_air)

    def trickle(self, argument: int) -> None:
        """Some of the bytes on the wire arrive."""
        self._arrive(argument + 1)

    def _arrive(self, number: int) -> None:
        if not self.up:
            return
        self.wire.arrive(number, self.now)
        if not self.stalled:
            self._read_all()

    def _read_all(self) -> None:
        self.read(self.wire.unread)
        self.empty_at = self.now
        self.pump()

    def wait(self, argument: int) -> None:
        """Time passes."""
        self._look_at_input()
        self.advance(self.now + DELAYS[argument])
        self._look_at_input()

    def next_deadline(self, argument: int) -> None:  # noqa: ARG002
        """Time passes until something is due, to the moment."""
        when = self.session.deadline(self.now)
        if when is not None and not self.closed:
            self.advance(max(when, self.now))

    def _look_at_input(self) -> None:
        if self.polls_always and not self.stalled:
            self.empty_at = self.now

    def stall(self, argument: int) -> None:  # noqa: ARG002
        """The application begins to block."""
        self._look_at_input()
        self.stalled = True

    def resume(self, argument: int) -> None:
        """The application reads: a part of the input before it blocks again, or all."""
        if not self.stalled:
            return
        if argument & 1:
            self.read(argument)
            return
        self.stalled = False
        self.read(self.wire.unread)
        self.due()

    def connect(self, argument: int) -> None:  # noqa: ARG002
        """The link is up again."""
        self.resume(0)
        if not self.up and not self.closed:
            self.up = True
            self.empty_at = self.now
            self.judge.connect(self.now)
            self.session.link_up(self.now)
            self.pump()

    def lose(self, argument: int) -> None:
        """The link is lost, with a reason or without."""
        self.resume(0)
        if self.up:
            self._lose(OSError("unplugged") if argument & 1 else None)
            self.pump()

    def _lose(self, cause: Exception | None) -> None:
        self.up = False
        self.answers.abandoned(self.now)
        self.deliver(self.session.link_down(self.now, cause))
        if self.keeps_bytes:
            self.answers.has_garbage = True  # a part of a frame may be left
        self.wire.lose(keeps_bytes=self.keeps_bytes)

    def note_down(self, argument: int) -> None:
        """An attempt to connect fails."""
        if not self.up:
            self.session.note_down(LinkError("fuzz", "nobody listens") if argument & 1 else OSError())

    def close(self, argument: int) -> None:  # noqa: ARG002
        """The client is closed."""
        if not self.closed:
            self.deliver(self.session.close(self.now))
            self.closed, self.up, self.stalled = True, False, False
            assert not self.judge.open, "a request has no outcome although the session is closed"
            assert self.session.data_to_send(self.now) == b""
        else:
            assert self.session.close(self.now) == []

    # What holds between two operations.

    def look(self) -> None:
        """Check what has to hold between two operations."""
        session = self.session
        exchange, queue, stats = session._exchange, session._queue, session.stats
        assert (exchange.deadline is not None) == (session._in_flight is not None) == exchange.in_flight
        assert stats.requests == self.requests
        assert stats.frames == self.frames
        assert stats.answers + stats.late + stats.unsolicited + stats.echoes <= stats.frames
        assert session._reception.decoder.pending < OVERHEAD + MAX_DATA, "more than one frame is held"
        assert len(exchange._unanswered) <= MOST_REQUESTS
        assert len(exchange._replies) <= MOST_REQUESTS * 4
        assert len(exchange._echoes.requests) <= 16
        waiting = [*queue.requests, *([session._in_flight] if session._in_flight else [])]
        assert len(waiting) == len(set(waiting)), "a request is queued twice"
        assert {request for request in waiting if request in self.judge.open} == set(self.judge.open), (
            "a request is neither queued nor in flight"
        )
        own = [request for request in waiting if request not in self.judge.open]
        assert len(own) <= 1, "requests that nobody waits for"
        if self.closed:
            assert not waiting, "a request of a closed session"
            assert not self.judge.open
