"""The serial port of a simulated controller, without I/O: bytes received in, bytes of replies out."""

from __future__ import annotations

from tracer_async.protocol import Event, Frame, FrameDecoder
from tracer_async.simulator.device import SimulatedTracer

__all__ = ["QUIET", "BaudPacing", "SimulatedPort"]

QUIET = 0.2
"""Seconds of silence after which a half-received request will not be finished any more."""

# Seconds a byte takes at 9600 baud: a start bit, 8 bits and a stop bit.
_BYTE_TIME = 10 / 9600


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
