"""The whole link, driven by a sequence of operations: `LinkProtocol`, `Line`, and what `TracerClient` does with them.

The fuzzer plays the callers, the wire, the clock and, within the rules of the protocol or beyond them, the controller.

Invariant: whatever happens in whatever order,

* nothing raises but what callers are told, a `TracerError`; nothing is left for asyncio to log;
* at most one request is in flight, and the next is sent only once it is answered, or the fence has passed;
* settings are sent no oftener than they were asked to be;
* an answer is its request's, or is reported to be as old as the request that the controller did answer (`since`);
* `set_load` returns, or says refused, only if the load has been so since it was called;
* whoever waits is waited for: a timer is set, each waiter belongs to one caller, and nothing else is queued;
* left alone, every caller is told something in bounded time; closed, at once, and no timer or waiter stays behind;
* no more than one timer is set and less than one frame's bytes are held.

The fourth and fifth hold for a controller and a wire as `tracer_async.protocol.exchange` describes them. They are not
looked at any more in a run in which something beyond that has come through: a foreign reply, one later than `HORIZON`,
or a double that nobody can tell from another reply (`Scene.decoded` says which).
"""

from __future__ import annotations

import asyncio
from typing import Any

from fuzz.clock import HandLoop
from fuzz.controller import Asked, ModelController
from tracer_async import TracerClient, TracerError
from tracer_async.client._line import Line, Request
from tracer_async.client.subscription import Subscription
from tracer_async.errors import LoadRefusedError
from tracer_async.protocol import (
    ECHO,
    HORIZON,
    MAX_DATA,
    OVERHEAD,
    BatteryType,
    Command,
    CommandCode,
    ControlSettings,
    Frame,
    LoadMode,
    LoadState,
    ManualControl,
    ReadRealtime,
    WriteSettings,
)
from tracer_async.transport.link import LinkProtocol

__all__ = ["DELAYS", "OPERATIONS", "check"]

SETTINGS = ControlSettings(
    battery_type=BatteryType.SEALED,
    battery_capacity=100,
    temperature_compensation=3,
    load_mode_1=LoadMode.MANUAL,
    load_mode_2=LoadMode.OFF,
)
COMMANDS: tuple[Command[Any], ...] = (
    ReadRealtime(),
    ManualControl(LoadState.ON),
    ManualControl(LoadState.OFF),
    WriteSettings(SETTINGS),
)
OPERATIONS = (
    *("read", "set_load", "write", "ask", "cancel"),
    *("reply", "foreign", "garbage", "receive", "trickle"),
    *("wait", "next_timer", "lose", "connect", "break_write", "close"),
)
"""An operation is a byte: its name's place in here in the low half, its argument in the high half."""

DELAYS = (0.0, 0.001, 0.02, 0.049, 0.06, 0.3, 0.5, 0.99, 1.0, 1.01, 1.5, 2.0, 4.9, 5.1, 9.0, 11.0)
TIMEOUT = 1.0
FENCES = (0.0, 0.3, 1.0, 3.0)
DEAD_AFTER = (None, 1, 3, 1000)

# As many requests as the exchange remembers to be owed, and as a reply's number has room for.
MOST_REQUESTS = 64


def check(data: bytes) -> None:
    """Raise AssertionError if *data*, two bytes of options and then operations, breaks the invariant of this module."""
    options, script = data[:2].ljust(2, b"\x00"), data[2:]
    loop = HandLoop(now=100.0)
    with loop.running():
        Scene(loop, options).play(script)


class Wire(asyncio.Transport):
    """The transport: what is written reaches the controller at once."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene
        self.protocol = LinkProtocol(scene.line)
        self.breaks = False
        self._closing = False

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a request, or fail as a serial port does that was pulled."""
        if self.breaks:
            raise OSError("pulled")
        self._scene.sent(bytes(data))

    def abort(self) -> None:
        """Close; as with real transports, the protocol is told in the next round of the loop."""
        if not self._closing:
            self._closing = True
            self._scene.loop.call_soon(self.lose, None)

    def lose(self, cause: Exception | None) -> None:
        """End the link, from whichever side."""
        self._closing = True
        if self._scene.wire is self:
            self._scene.lost()
            self.protocol.connection_lost(cause)
            assert self.protocol.closed.done()


class TracedLine(Line):
    """A line that shows every answer to the scene before its caller sees it."""

    scene: Scene

    async def ask(
        self, command: Command[Any], *, share: bool = False, tries: int | None = None
    ) -> tuple[Frame, Request]:
        """See `Line.ask`."""
        frame, request = await super().ask(command, share=share, tries=tries)
        self.scene.answered(command, frame, request)
        return frame, request


class Frames(Subscription[Frame]):
    """A subscription that hands frames on at the moment that they are decoded."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(1)
        self._scene = scene

    def put(self, item: Frame) -> None:
        """See `Subscription.put`."""
        super().put(item)
        self._scene.decoded(item)


class Scene:
    """The line, the callers, the controller and the wire between them, and what has to hold for them."""

    def __init__(self, loop: HandLoop, options: bytes) -> None:
        self.loop = loop
        self.client = TracerClient(
            _no_transport, timeout=TIMEOUT, fence=FENCES[options[0] & 3], retries=options[0] >> 2 & 3
        )
        self.line = TracedLine(
            self.client.url, self.client._options._replace(dead_after=DEAD_AFTER[options[0] >> 4 & 3])
        )
        self.line.scene = self
        self.client._line = self.line
        self.fence = FENCES[options[0] & 3]
        self.close_early = bool(options[0] & 0x40)
        self.frames = Frames(self)
        self.line.subscribe(self.frames)
        self.wire: Wire | None = None
        self.buffered = bool(options[1] & 1)
        self.keeps_bytes = bool(options[1] & 2)  # as a bridge does, over a lost connection
        self.controller = ModelController(loop.time())
        self.incoming = bytearray()
        self.last_reply = b""
        self.heard: Frame | None = None
        self.heard_at = 0.0
        self.answers = 0
        self.behind: Asked | None = None
        self.callers: list[asyncio.Task[Any]] = []
        self.settings_asked = self.settings_sent = 0
        self.given_up_at: float | None = None
        self.settled = True
        self.within_promise = True

    # What the line does.

    def sent(self, wire: bytes) -> None:
        """A request is on its way to the controller."""
        now = self.loop.time()
        if self.controller.asked and not self.settled:
            given_up_at = self.controller.asked[-1].at + TIMEOUT
            if self.given_up_at is not None:
                given_up_at = min(given_up_at, self.given_up_at)
            assert now >= given_up_at + self.fence - 1e-9, "sent while a request is in flight, or within its fence"
        if self.behind is not None and self.behind in self.controller.open:
            # A double was taken for its answer, and the line has not been given the pause in which that shows.
            self.within_promise = False
        self.settled, self.given_up_at = False, None
        asked = self.controller.request(wire, now)
        self.settings_sent += asked.frame.command == CommandCode.WRITE_SETTINGS
        assert self.settings_sent <= self.settings_asked, "settings are sent again"

    def lost(self) -> None:
        """The link is gone, and who was in flight is given up."""
        self.wire = None
        self.gives_up()
        if not self.keeps_bytes:
            self.incoming.clear()

    def gives_up(self) -> None:
        """The request in flight, if there is one, may be given up now."""
        if self.given_up_at is None:
            self.given_up_at = self.loop.time()

    def decoded(self, frame: Frame) -> None:
        """A good frame has come through."""
        if self.controller.asked and frame.command == self.controller.asked[-1].frame.command:
            self.settled = True
        now, answers = self.loop.time(), self.line.stats.answers
        asked = self.controller.trace(frame)
        if asked is not None:
            self.heard, self.heard_at = frame, now
            if now >= asked.at + HORIZON:
                self.within_promise = False
        elif frame == self.heard and now < self.heard_at + ECHO:
            self.heard = None
            if answers > self.answers:
                self.behind = self.controller.asked[-1]
        else:
            self.within_promise = False
        self.answers = answers

    def answered(self, command: Command[Any], frame: Frame, request: Request) -> None:
        """A caller is about to get its answer."""
        assert frame.command == command.code, "a reply to another command is taken for an answer"
        assert request.since <= request.answered_at <= self.loop.time()
        if self.within_promise:
            asked = self.controller.asked[frame.controller_id]
            assert request.since <= asked.at, f"the answer to request {asked.number} is not reported to be so old"

    # What callers do.

    async def _read(self) -> None:
        reading = await self.client.read()
        assert reading.age is None or reading.age >= 0

    async def _set_load(self, on: bool) -> None:
        called = self.loop.time()
        try:
            state = await self.client.set_load(on)
            assert bool(state) is on
        except LoadRefusedError:
            assert not self.within_promise or self.controller.was_since(not on, called), "refused, and it was followed"
            raise
        assert not self.within_promise or self.controller.was_since(on, called), "the load was never switched"

    def _call(self, coroutine: Any) -> None:
        self.callers.append(self.loop.task(coroutine))

    # The operations. Each takes a number from 0 to 15.

    def play(self, script: bytes) -> None:
        """Carry out the operations, then let the callers come to their end, and close."""
        at = 0
        while at < len(script) and len(self.controller.asked) < MOST_REQUESTS:
            name, argument = OPERATIONS[script[at] & 0x0F], script[at] >> 4
            at += 1
            if name == "garbage":
                self.incoming += script[at : at + argument + 1]
                at += argument + 1
            else:
                getattr(self, name)(argument)
            self.loop.run_ready()
            self.look()
        if not self.close_early:
            for _ in range(1000):
                if not self.callers:
                    break
                self.next_timer(0)
                self.look()
            assert not self.callers, "a caller waits for ever"
        self.close(0)
        self.loop.run_ready()
        self.look()

    def read(self, argument: int) -> None:
        """A caller asks for a reading, or for the same one again."""
        self._call(self._read() if argument & 1 else self.client.read_realtime(max_age=(argument >> 1) * 0.5))

    def set_load(self, argument: int) -> None:
        """A caller switches the load."""
        self._call(self._set_load(bool(argument & 1)))

    def write(self, argument: int) -> None:  # noqa: ARG002
        """A caller writes settings."""
        self.settings_asked += 1
        self._call(self.client.write_settings(SETTINGS))

    def ask(self, argument: int) -> None:
        """A caller asks the line itself, and takes the answer as it comes."""
        command = COMMANDS[argument & 3]
        self.settings_asked += command.code == CommandCode.WRITE_SETTINGS
        self._call(self.line.ask(command, share=bool(argument & 4), tries=1 if argument & 8 else None))

    def cancel(self, argument: int) -> None:
        """A caller is cancelled; its request may be in flight."""
        if self.callers:
            self.callers[argument % len(self.callers)].cancel()
            self.gives_up()

    def reply(self, argument: int) -> None:
        """The controller replies."""
        self.last_reply = self.controller.reply(
            self.loop.time(), lost=argument & 3, obeys=not argument & 4, malformed=argument & 12 == 12
        )
        self.incoming += self.last_reply

    def foreign(self, argument: int) -> None:
        """A reply comes twice, or to another master's request."""
        frame = Frame(0xFF, COMMANDS[argument & 3].code, bytes(24)).encode(start_up=False)
        self.incoming += self.last_reply if argument & 4 else frame

    def receive(self, argument: int) -> None:  # noqa: ARG002
        """All bytes on the wire arrive, as many as one read takes."""
        self._deliver(4096)

    def trickle(self, argument: int) -> None:
        """Some of the bytes on the wire arrive."""
        self._deliver(argument + 1)

    def _deliver(self, number: int) -> None:
        data = bytes(self.incoming[:number])
        if self.wire is None or self.wire.is_closing() or not data:
            return
        del self.incoming[:number]
        protocol = self.wire.protocol
        if self.buffered:
            protocol.get_buffer(-1)[: len(data)] = data
            protocol.buffer_updated(len(data))
        else:
            protocol.data_received(data)

    def wait(self, argument: int) -> None:
        """Time passes."""
        self.loop.advance(self.loop.time() + DELAYS[argument])

    def next_timer(self, argument: int) -> None:  # noqa: ARG002
        """Time passes until a timer is due, to the moment."""
        if timers := self.loop.timers:
            self.loop.advance(timers[0])

    def lose(self, argument: int) -> None:
        """The link is lost, with a reason or without."""
        if self.wire is not None and not self.wire.is_closing():
            self.wire.lose(OSError("unplugged") if argument & 1 else None)

    def connect(self, argument: int) -> None:  # noqa: ARG002
        """The link is there, again."""
        if self.wire is None:
            self.wire = Wire(self)
            self.wire.protocol.connection_made(self.wire)

    def break_write(self, argument: int) -> None:  # noqa: ARG002
        """The next write fails."""
        if self.wire is not None:
            self.wire.breaks = True

    def close(self, argument: int) -> None:  # noqa: ARG002
        """The client is closed."""
        self.line.close()

    # What holds between them.

    def look(self) -> None:
        """Check what has to hold whenever nothing is ready to run."""
        for caller in self.callers:
            if caller.done() and not caller.cancelled() and (error := caller.exception()) is not None:
                assert isinstance(error, TracerError), f"a caller is told {error!r}"
        self.callers = [caller for caller in self.callers if not caller.done()]
        line, exchange = self.line, self.line._exchange
        requests = [*([line._flight] if line._flight else []), *line._urgent, *line._queue]
        assert sum(len(request.waiters) for request in requests) == len(self.callers), "a waiter without a caller"
        assert all(request.wanted for request in requests), "a request that nobody waits for"
        assert (exchange.deadline is not None) == (line._flight is not None), "in flight, and no deadline"
        timers = self.loop.timers
        assert len(timers) <= 1, "more than one timer"
        assert timers or not self.callers, "a caller waits, and no timer is set"
        assert line._decoder.pending < OVERHEAD + MAX_DATA, "more than one frame is held"
        assert len(line._wires) <= 16
        if line.closed:
            assert not self.callers, "a caller waits for a line that is closed"
            assert not timers, "a timer of a line that is closed"
            assert self.wire is None, "the link of a line that is closed"


async def _no_transport(protocol: Any) -> Any:
    raise NotImplementedError
