"""The serial port of a simulated controller, without I/O: received bytes in, steps out.

The code that owns the connection executes the steps in order. Bytes that arrive during a step wait until the last step
is done, because a controller handles one request at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from tracer_async.protocol import Event, Frame, FrameDecoder
from tracer_async.simulator.device import SimulatedTracer

__all__ = [
    "PARTIAL_REQUEST_TIMEOUT",
    "BaudPacing",
    "Discard",
    "Ending",
    "Idle",
    "Port",
    "SimulatedPort",
    "Step",
    "Wait",
]

# Without this limit, a damaged length byte would make the port wait for up to 200 bytes and take the next requests for
# data. 0.2 s is far longer than the gap between two bytes of one request, which lasts 18.8 ms at 9600 baud.
PARTIAL_REQUEST_TIMEOUT = 0.2
"""Seconds of silence after which a partly received request is discarded."""

# Seconds per byte at 9600 baud: a start bit, 8 data bits and a stop bit.
_BYTE_TIME = 10 / 9600


class Wait(NamedTuple):
    """Do nothing for a time. Received bytes wait until it is over."""

    seconds: float


class Idle(NamedTuple):
    """Do nothing for a time. If bytes are received before its end, they are fed, and the other steps are left out."""

    seconds: float


class Discard(NamedTuple):
    """Discard all received bytes, and all bytes that arrive within a time."""

    seconds: float


class Ending(Enum):
    """The last step on a connection."""

    HANG_UP = auto()
    """Close the connection."""
    HALF_OPEN = auto()
    """Keep the connection open and send nothing, until the client closes it."""


Step = bytes | Wait | Idle | Discard | Ending
"""The next thing to do on the connection. Bytes are to be sent."""


class Port(Protocol):
    """One connection to a simulated controller, without I/O."""

    @property
    def pending(self) -> int:
        """Number of received bytes that belong to an incomplete request."""
        ...

    def greet(self) -> Iterable[Step]:
        """Return the steps to execute when a client has connected."""
        ...

    def feed(self, data: bytes | bytearray | memoryview) -> Iterable[Step]:
        """Feed received bytes. Return the steps that answer the completed requests, in order."""
        ...

    def flush(self) -> Iterable[Step]:
        """Discard an incomplete request after a timeout. Return the steps that answer the requests found after it."""
        ...


class SimulatedPort:
    """One connection to a simulated controller. Several ports can share one controller.

    Start-up bytes, noise and damaged requests get no reply, as from a real controller.
    """

    __slots__ = ("_decoder", "_tracer")

    def __init__(self, tracer: SimulatedTracer) -> None:
        self._tracer = tracer
        self._decoder = FrameDecoder()

    @property
    def pending(self) -> int:
        """Number of received bytes that belong to an incomplete request."""
        return self._decoder.pending

    def greet(self) -> list[bytes]:
        """Return no steps: a controller does not notice that a client has connected."""
        return []

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Feed received bytes. Return the replies to the completed requests, in order."""
        return self._answer(self._decoder.feed(data))

    def flush(self) -> list[bytes]:
        """Discard an incomplete request after a timeout. Return the replies to the requests found after it."""
        return self._answer(self._decoder.flush())

    def _answer(self, events: list[Event]) -> list[bytes]:
        replies = (self._tracer.answer(event) for event in events if isinstance(event, Frame))
        return [reply for reply in replies if reply is not None]


class BaudPacing:
    """Transmission times on a line of 9600 baud. Times are arguments, in seconds of any monotonic clock."""

    __slots__ = ("_received", "_sent")

    def __init__(self) -> None:
        # Two times, because the line is full duplex: a request can arrive while a reply is being sent.
        self._received = 0.0
        self._sent = 0.0

    def receive(self, size: int, now: float) -> None:
        """Record that *size* bytes began to arrive now. They follow all bytes that arrived earlier."""
        self._received = max(self._received, now) + size * _BYTE_TIME

    def send(self, size: int) -> float:
        """Return the time at which the last byte of a reply of *size* bytes has been sent.

        The reply starts after the last received byte and after all earlier replies.
        """
        self._sent = max(self._sent, self._received) + size * _BYTE_TIME
        return self._sent
