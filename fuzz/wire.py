"""The bytes between the controller and the application, and the request that each frame answers."""

from __future__ import annotations

from dataclasses import dataclass

from fuzz.controller import Asked
from tracer_async.protocol import DUPLICATE_WINDOW, LATE_REPLY_WINDOW, START_UP, Frame

__all__ = ["Passage", "Wire"]

FRAME_PAUSE = 1.0
"""Seconds within which the rest of a frame must come."""


@dataclass(eq=False)
class Passage:
    """A frame on its way to the application."""

    frame: Frame
    asked: Asked
    start: int
    stop: int
    is_echo: bool = False
    original: Passage | None = None
    """The reply that this one is a copy of."""
    began: float | None = None
    """When its first byte came."""
    arrived: float | None = None
    """When its last byte came."""

    @property
    def is_copy(self) -> bool:
        """Whether the same reply has come before."""
        return self.original is not None and self.original.arrived is not None

    @property
    def is_in_time(self) -> bool:
        """Whether it arrived within the bounds that the protocol module promises to deal with."""
        assert self.arrived is not None
        if self.original is not None and self.original.arrived is not None:
            return self.arrived < self.original.arrived + DUPLICATE_WINDOW
        return self.arrived < self.asked.at + LATE_REPLY_WINDOW

    def answers_in_time(self, deadline: float) -> bool:
        """Return whether it had arrived at *deadline*, or had begun to and was complete soon."""
        if self.arrived is None or self.began is None:
            return False
        return self.arrived < deadline or (self.began < deadline and self.arrived < self.began + FRAME_PAUSE)


class Wire:
    """Bytes are first in transit, then unread in the input buffer. Frames keep their order."""

    def __init__(self) -> None:
        self._air = bytearray()
        self._unread = bytearray()
        # Offsets in the stream of all bytes: the end of the bytes that have arrived, and the end of those in transit.
        self._arrived = 0
        self._end = 0
        self._passages: list[Passage] = []

    def put(
        self,
        frame: Frame,
        asked: Asked,
        *,
        start_up: bool = False,
        is_echo: bool = False,
        original: Passage | None = None,
    ) -> Passage:
        """Put a frame in transit."""
        start = self._end
        self.put_bytes(frame.encode(start_up=start_up))
        passage = Passage(frame, asked, start + (len(START_UP) if start_up else 0), self._end, is_echo, original)
        self._passages.append(passage)
        return passage

    def put_bytes(self, data: bytes) -> None:
        """Put bytes in transit that are no reply to a request."""
        self._air += data
        self._end += len(data)

    def arrive(self, number: int, now: float) -> None:
        """Let as many bytes arrive in the input buffer."""
        data = self._air[:number]
        del self._air[:number]
        self._unread += data
        self._arrived += len(data)
        for passage in self._passages:
            if passage.began is None and passage.start < self._arrived:
                passage.began = now
            if passage.arrived is None and passage.stop <= self._arrived:
                passage.arrived = now

    def read(self, number: int) -> bytes:
        """Return as many bytes of the input buffer."""
        data = bytes(self._unread[:number])
        del self._unread[:number]
        return data

    def give_up(self, pending: int) -> None:
        """Note that all but *pending* of the bytes that were read are decoded: the rest of a frame came too late."""
        read = self._arrived - len(self._unread)
        self._passages = [
            passage
            for passage in self._passages
            if not (passage.start < read < passage.stop and read - passage.start > pending)
        ]

    @property
    def unread(self) -> int:
        """How many bytes are in the input buffer."""
        return len(self._unread)

    @property
    def in_the_air(self) -> int:
        """How many bytes have not arrived."""
        return len(self._air)

    def lose(self, *, keeps_bytes: bool) -> None:
        """Lose the connection after all arrived bytes were read. A bridge may keep the bytes in transit."""
        assert not self._unread
        if not keeps_bytes:
            self._air.clear()
            self._arrived = self._end
            self._passages = [passage for passage in self._passages if passage.arrived is not None]
        else:
            self._passages = [
                passage for passage in self._passages if passage.arrived is not None or passage.start >= self._arrived
            ]

    def trace(self, frame: Frame) -> Passage | None:
        """Return the origin of a decoded *frame*, None if unknown. Frames before it will not arrive any more."""
        for index, passage in enumerate(self._passages):
            if passage.arrived is not None and passage.frame == frame:
                del self._passages[: index + 1]
                if passage.original is not None and passage.original.arrived is None:
                    # The original was lost, so this is the first.
                    passage.original.arrived = passage.arrived
                    passage.original = None
                return passage
        return None

    def is_open(self, asked: Asked) -> bool:
        """Return whether a reply to *asked* is on its way."""
        return any(passage.asked is asked and not passage.is_echo for passage in self._passages)
