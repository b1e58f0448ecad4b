"""The serial port of a simulated controller, without I/O: bytes received in, steps out.

Whoever has the wire takes the steps, in order, and what is received meanwhile waits: a controller does one thing at a
time.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple, Protocol

from tracer_async.protocol import Event, Frame, FrameDecoder
from tracer_async.simulator.device import SimulatedTracer

__all__ = ["QUIET", "BaudPacing", "Ending", "Lose", "Port", "SimulatedPort", "Step", "Wait"]

QUIET = 0.2
"""Seconds of silence after which a half-received request will not be finished any more."""

# Seconds a byte takes at 9600 baud: a start bit, 8 bits and a stop bit.
_BYTE_TIME = 10 / 9600


class Wait(NamedTuple):
    """Do nothing for a time; what is received stays where it is."""

    seconds: float


class Lose(NamedTuple):
    """Throw away all that has been received, and all that comes within a time."""

    seconds: float


class Ending(Enum):
    """The last step on a connection."""

    HANG_UP = auto()
    """Close it."""
    HALF_OPEN = auto()
    """Neither answer nor close it, until the other side does."""


Step = bytes | Wait | Lose | Ending
"""What a port wants done on its wire next; bytes are to be sent."""


class Port(Protocol):
    """One wire to a simulated controller, without I/O."""

    @property
    def pending(self) -> int:
        """How many bytes of a half-received request are held back."""
        ...

    def greet(self) -> Iterable[Step]:
        """Return the steps to take when a client has come."""
        ...

    def feed(self, data: bytes | bytearray | memoryview) -> Iterable[Step]:
        """Feed received bytes; return the steps to take because of the requests that they complete, in order."""
        ...

    def flush(self) -> Iterable[Step]:
        """End a half-received request, because the line has gone quiet; return the steps for what stood behind it."""
        ...


class SimulatedPort:
    """One wire to a simulated controller; several may share one controller.

    Start-up bytes, noise and damaged requests get no reply, as with the device.
    """

    __slots__ = ("_decoder", "_tracer")

    def __init__(self, tracer: SimulatedTracer) -> None:
        self._tracer = tracer
        self._decoder = FrameDecoder()

    @property
    def pending(self) -> int:
        """How many bytes of a half-received request are held back."""
        return self._decoder.pending

    def greet(self) -> list[bytes]:
        """Return no steps: a controller does not notice that a client has come."""
        return []

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Feed received bytes; return the replies to the requests that they complete, in order."""
        return self._answer(self._decoder.feed(data))

    def flush(self) -> list[bytes]:
        """End a half-received request, because the line has gone quiet; return the replies to what stood behind it."""
        return self._answer(self._decoder.flush())

    def _answer(self, events: list[Event]) -> list[bytes]:
        replies = (self._tracer.answer(event) for event in events if isinstance(event, Frame))
        return [reply for reply in replies if reply is not None]


class BaudPacing:
    """When bytes would be through a wire of 9600 baud. Time is an argument, in seconds on any steady clock."""

    __slots__ = ("_received", "_sent")

    def __init__(self) -> None:
        self._received = 0.0
        self._sent = 0.0

    def receive(self, size: int, now: float) -> None:
        """Note that the first of *size* bytes arrived now; they come through after those before them."""
        self._received = max(self._received, now) + size * _BYTE_TIME

    def send(self, size: int) -> float:
        """Return when the last byte of a reply of *size* bytes is through.

        It starts after all that was received, and after the replies before it.
        """
        self._sent = max(self._sent, self._received) + size * _BYTE_TIME
        return self._sent
