"""A controller that the test scripts, in its own thread: it continues while the application blocks its event loop.

It shares no code with the library. Every reading carries a number, and the controller notes when it measured it. So a
reading that a client returns can be judged: which controller made it, and whether its time and age are correct.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import selectors
import socket
import ssl
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol, Self

SYNC = bytes.fromhex("EB90EB90EB90")
READ, LOAD, SETTINGS = 0xA0, 0xAA, 0xAD

# Tolerance of the judge in seconds, because two clocks cannot be read at the same moment.
TOLERANCE = 0.005


class Request(NamedTuple):
    command: int
    data: bytes


class Judged(Protocol):
    """What a judge needs of a `tracer_async.Reading`."""

    @property
    def time(self) -> float: ...
    @property
    def age(self) -> float: ...


Replies = Iterable[tuple[float, bytes]]
"""What is sent, each with its delay in seconds."""
Script = Callable[["StampingController", Request], Replies]


def checksum(data: bytes) -> int:
    """CRC-16 by the protocol document, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x1041 if crc & 0x8000 else crc << 1
            crc &= 0xFFFF
    return crc


def frame(command: int, data: bytes = b"") -> bytes:
    body = struct.pack("<BBB", 0, command, len(data)) + data
    return SYNC + body + struct.pack(">H", checksum(body)) + b"\x7f"


def realtime(number: int, identity: int = 0, *, load_on: bool = False) -> bytes:
    """The data of a reading: its number is the battery voltage, the controller's identity the charge current."""
    voltages = struct.pack("<HHHHHH", number, 0, 0, 0, 1110, 1440)
    flags = struct.pack("<BBBBBBBB", load_on, 0, 0, 0, 0, 0, 0, 1)
    return voltages + flags + struct.pack("<BHB", 30 + 20, identity, 0)


def answer(controller: StampingController, request: Request) -> Replies:
    """The script of a line without faults."""
    return [(0, controller.execute(request))]


class StampingController:
    """A controller behind a listening socket, or at the other end of a pty. It serves the last connection only."""

    def __init__(self, script: Script = answer, *, identity: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.identity = identity
        self.load_on = False
        self.settings = b""
        self.requests: list[Request] = []
        self.executed: list[Request] = []
        self.measured: list[float] = []
        """When each reading was measured, by its number: seconds since 1970."""
        self.connections = 0
        self.on_request: Callable[[Request], None] = lambda _: None
        """Called in the controller's thread, after the request was followed and before anything is sent."""
        self._tls = tls
        self._queue: list[tuple[float, int, bytes, threading.Event]] = []
        self._queued = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listener: socket.socket | None = None
        self._wire: socket.socket | _Pty | None = None
        self._received = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)

    # Where it is reached.

    def listen(self, path: str | None = None) -> str:
        """Listen on a TCP port, or on a Unix socket; return its URL."""
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(path or ("127.0.0.1", 0))
        self._listener.listen()
        self._selector.register(self._listener, selectors.EVENT_READ)
        if path:
            return f"unix:{path}"
        return f"{'tls' if self._tls else 'tcp'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def open_pty(self) -> str:
        """Make a pty; return the URL of its other end."""
        pty = _Pty()
        self._use(pty)
        return f"serial://{pty.path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped = True
        self._wake.send(b"!")
        self._thread.join()
        for held in (self._wake, self._woken, self._listener, self._wire):
            if held is not None:
                held.close()
        self._selector.close()

    # For scripts and tests.

    def execute(self, request: Request) -> bytes:
        """Follow a request; return its reply."""
        self.executed.append(request)
        if request.command == READ:
            return self.measure()
        if request.command == LOAD:
            self.load_on = bool(request.data[0])
            return frame(LOAD, request.data)
        if request.command == SETTINGS:
            self.settings = request.data
        return frame(request.command)

    def measure(self) -> bytes:
        """Measure now; return the reply with the measurement."""
        self.measured.append(time.time())
        return frame(READ, realtime(len(self.measured) - 1, self.identity, load_on=self.load_on))

    def push(self, data: bytes, *, after: float = 0.0, wait: bool = True) -> None:
        """Send unsolicited *data*; with *wait*, block until it is sent."""
        sent = threading.Event()
        with self._lock:
            self._queued += 1
            heapq.heappush(self._queue, (time.monotonic() + after, self._queued, data, sent))
        self._wake.send(b"!")
        assert not wait or sent.wait(10)

    def count(self, command: int) -> int:
        """How many requests with *command* have come."""
        return sum(request.command == command for request in self.requests)

    def number(self, battery_voltage: float, charge_current: float) -> int:
        """Return the number of a reading, after it is known to be one of this controller's."""
        number = round(battery_voltage * 100)
        assert round(charge_current * 100) == self.identity, "a reading of another controller"
        assert number < len(self.measured), "a reading that was never measured"
        return number

    def judge(self, reading: Judged, number: int) -> None:
        """Assert that a reading was measured within [time - age, time]."""
        measured = self.measured[number]
        assert reading.time - reading.age - TOLERANCE <= measured, (
            f"{reading.time - reading.age - measured:.3f} s older"
        )
        assert measured <= reading.time + TOLERANCE

    # The thread.

    def _serve(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(self._send_due()):
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wire:
                    self._read()

    def _send_due(self) -> float | None:
        """Send what is due; return the seconds until the next is."""
        while True:
            with self._lock:
                if not self._queue:
                    return None
                wait = self._queue[0][0] - time.monotonic()
                if wait > 0:
                    return wait
                data, sent = heapq.heappop(self._queue)[2:]
            if self._wire is not None:
                with suppress(OSError):  # the client hung up
                    self._wire.sendall(data)
            sent.set()

    def _accept(self) -> None:
        assert self._listener is not None
        wire, _ = self._listener.accept()
        wire.settimeout(10)
        if wire.family == socket.AF_INET:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            wire = self._tls.wrap_socket(wire, server_side=True)
        self._hang_up()
        self.connections += 1
        self._use(wire)

    def _use(self, wire: socket.socket | _Pty) -> None:
        self._received = b""
        self._wire = wire
        self._selector.register(wire, selectors.EVENT_READ)

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._selector.unregister(self._wire)
            self._wire.close()
            self._wire = None

    def _read(self) -> None:
        assert self._wire is not None
        try:
            data = self._wire.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        self._take(data)

    def _take(self, data: bytes) -> None:
        self._received += data
        while (request := self._next_request()) is not None:
            self.requests.append(request)
            replies = list(self.script(self, request))
            self.on_request(request)
            for delay, reply in replies:
                self.push(reply, after=delay, wait=False)

    def _next_request(self) -> Request | None:
        begin = self._received.find(SYNC)
        head = self._received[begin + 6 : begin + 9]
        if begin < 0 or len(head) < 3:
            return None
        end = begin + 12 + head[2]
        if len(self._received) < end:
            return None
        body, check = self._received[begin + 6 : end - 3], self._received[end - 3 : end]
        assert check == struct.pack(">H", checksum(body)) + b"\x7f"
        self._received = self._received[end:]
        return Request(head[1], body[3:])


class TimerController(StampingController):
    """A controller without a thread: its replies are timers of the event loop, as in a simulation."""

    def attach(self, deliver: Callable[[bytes], None]) -> None:
        """Pass the sent bytes to *deliver*, in the running event loop."""
        self._deliver = deliver
        self.connections += 1

    def receive(self, data: bytes) -> None:
        self._take(data)

    def push(self, data: bytes, *, after: float = 0.0, wait: bool = True) -> None:
        asyncio.get_running_loop().call_later(after, self._deliver, data)


class _Pty:
    """One end of a pty, as if it were a socket."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)  # held open, so that the line stays up without a client
        self.path = os.ttyname(self._slave)

    def fileno(self) -> int:
        return self._master

    def recv(self, size: int) -> bytes:
        return os.read(self._master, size)

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data) :]

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)
