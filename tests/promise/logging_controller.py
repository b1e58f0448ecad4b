"""A controller whose log is the basis of the verdict. It has its own frames and CRC and shares no library code.

It is behind an adapter, or behind a bridge for one client. It logs each request with the time of the running event
loop and its own action. A test can plan the fate of a request: lost, answered late, answered twice.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

READ, SWITCH, WRITE = 0xA0, 0xAA, 0xAD

_SYNC = bytes.fromhex("EB90EB90EB90")

# Minimum seconds between two replies: timers that are due at the same time run in any order.
_SPACING = 0.0001


def crc(data: bytes) -> int:
    """CRC-16, polynomial 0x1041, initial value 0, bit by bit, most significant bit first."""
    value = 0
    for byte in data:
        for position in range(7, -1, -1):
            overflow = (value >> 15) ^ (byte >> position & 1)
            value = (value << 1 & 0xFFFF) ^ (0x1041 if overflow else 0)
    return value


def encode(controller_id: int, command: int, data: bytes) -> bytes:
    """The bytes of a frame, without the start-up bytes."""
    body = struct.pack("BBB", controller_id, command, len(data)) + data
    return _SYNC + body + struct.pack(">HB", crc(body), 0x7F)


def take_frame(pending: bytearray) -> tuple[int, int, bytes] | None:
    """Remove the first good frame and all bytes before it; return its controller ID, command and data."""
    start = pending.find(_SYNC)
    if start < 0 or len(pending) < start + 9:
        return None
    body = start + len(_SYNC)
    controller_id, command, length = struct.unpack_from("BBB", pending, body)
    end = body + 3 + length
    if len(pending) < end + 3:
        return None
    assert struct.unpack_from(">HB", pending, end) == (crc(bytes(pending[body:end])), 0x7F)
    data = bytes(pending[body + 3 : end])
    del pending[: end + 3]
    return controller_id, command, data


class Request(NamedTuple):
    """One request that was sent, and the state of the controller after it."""

    at: float
    command: int
    data: bytes
    executed: bool
    load_on: bool
    settings: bytes | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The planned fate of one request."""

    delays: tuple[float, ...] = (0.0,)
    """Seconds until the reply comes, one number for each time that it comes."""
    executed: bool = True
    """False: the request is lost before it reaches the controller."""


LOST = Plan((), executed=False)
UNANSWERED = Plan(())


class LoggingController:
    """Switches, writes and measures nothing but its own state."""

    def __init__(
        self,
        *,
        present: bool = True,
        manual: bool = True,
        copies_id: bool = False,
        echo_delays: tuple[float, ...] = (),
        keeps_bytes: bool = False,
    ) -> None:
        self.present = present
        """False: there is an adapter, and nothing behind it."""
        self.manual = manual
        """False: the load switch does not follow."""
        self.copies_id = copies_id
        """Whether a reply has the controller ID of its request; else 0."""
        self.echo_delays = echo_delays
        """Seconds after which the adapter returns the bytes that are sent, one number for each time."""
        self.keeps_bytes = keeps_bytes
        """Whether a bridge keeps what it receives while it has no client, for the next one."""
        self.load_on = False
        self.settings: bytes | None = None
        self.requests: list[Request] = []
        self.plans: defaultdict[int, deque[Plan]] = defaultdict(deque)
        self._pending = bytearray()
        self._replied_at = 0.0
        self._send: Callable[[bytes], None] | None = None
        self._kept: list[bytes] = []
        self._transport: _Transport | None = None

    def plan(self, command: int, *plans: Plan) -> None:
        """Plan the fate of the next requests with *command*. Later ones are answered immediately."""
        self.plans[command].extend(plans)

    def sent(self, command: int) -> list[Request]:
        """All requests with *command* so far."""
        return [request for request in self.requests if request.command == command]

    @property
    def commands(self) -> list[int]:
        """The commands of all requests so far."""
        return [request.command for request in self.requests]

    # The client's side.

    async def connect(self, make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        """Connect in memory: a transport factory for the client."""
        protocol = make_protocol()
        self._transport = _Transport(self, protocol)
        protocol.connection_made(self._transport)
        self.attach(self._transport.deliver)
        return self._transport, protocol

    def hang_up(self) -> None:
        """Close the connection in memory, as a bridge does after a power cycle."""
        assert self._transport is not None
        self._transport.abort()

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Deliver the kept bytes to a client, and then everything that is sent from now on."""
        self._send = send
        kept, self._kept = self._kept, []
        for data in kept:
            asyncio.get_running_loop().call_soon(send, data)

    def detach(self, send: Callable[[bytes], None]) -> None:
        """Forget a client."""
        if self._send == send:
            self._send = None

    def send(self, data: bytes) -> None:
        """Send bytes that no request asked for."""
        self._deliver(data)

    def receive(self, data: bytes) -> None:
        """Take bytes that a client sent."""
        for delay in self.echo_delays:
            self._later(delay, data)
        self._pending += data
        while frame := take_frame(self._pending):
            self._handle(*frame)

    # The controller's side.

    def _handle(self, controller_id: int, command: int, data: bytes) -> None:
        plans = self.plans[command]
        plan = plans.popleft() if plans else Plan()
        executed = plan.executed and self.present
        reply = self._execute(command, data) if executed else b""
        now = asyncio.get_running_loop().time()
        self.requests.append(Request(now, command, data, executed, self.load_on, self.settings))
        if not executed or not plan.delays:
            return
        encoded = encode(controller_id if self.copies_id else 0, command, reply)
        # A controller answers in order, so a late reply delays those after it.
        self._replied_at = first = max(now + plan.delays[0], self._replied_at + _SPACING)
        for delay in plan.delays:
            self._later(first - now + delay - plan.delays[0], encoded)

    def _execute(self, command: int, data: bytes) -> bytes:
        if command == SWITCH:
            if self.manual:
                self.load_on = bool(data[0])
            return bytes([self.load_on])
        if command == WRITE:
            self.settings = data
            return b""
        assert command == READ
        return struct.pack(
            "<HHHHHHBBBBBBBBBHB",
            *(1230, 1700, 0, 1000 if self.load_on else 0, 1110, 1440),
            *(self.load_on, 0, 0, 0x50, 0, 0, 0, 1, 55, 1000, 0),
        )

    def _later(self, delay: float, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        if delay > 0:
            loop.call_later(delay, self._deliver, data)
        else:
            loop.call_soon(self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if self._send is not None:
            self._send(data)
        elif self.keeps_bytes:
            self._kept.append(data)


class _Transport(asyncio.Transport):
    """The client's end of a connection in memory."""

    def __init__(self, controller: LoggingController, protocol: Any) -> None:
        super().__init__()
        self._controller = controller
        self._protocol = protocol
        self._closing = False

    def deliver(self, data: bytes) -> None:
        if not self._closing:
            self._protocol.data_received(data)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._closing:
            self._controller.receive(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._controller.detach(self.deliver)
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)
