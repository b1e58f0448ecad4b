"""Decodes what a listener receives on one port."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tracer_async.protocol import OVERHEAD, START_UP, DecoderStats, Event, Frame, FrameDecoder, Noise
from tracer_async.sharing._pairing import has_lost_its_id, sender_of

__all__ = ["Direction", "DirectionOwner"]

# Seconds of silence after which an incomplete frame will not be completed.
_PAUSE = 0.2


class DirectionOwner(Protocol):
    """The listener."""

    def learned(self, known: Direction, sender: str) -> None:
        """Take note that *sender* has sent a frame on *known*."""

    def take(self, direction: Direction, frame: Frame, not_before: float) -> None:
        """Take a frame that cannot have come before *not_before*."""

    def damaged(self, direction: Direction, raw: bytes, size: int, not_before: float, at: float) -> None:
        """Take bytes that are no frame, *size* of them damaged. The last of them came at the time *at*.

        It cannot have come before *not_before*.
        """


class Direction:
    """What is received on one port."""

    def __init__(self, owner: DirectionOwner) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._decoder = FrameDecoder()
        self.sender: str | None = None
        """Who sends on this port: ``client`` or ``controller``. None as long as that is not known, or if both do."""
        self._not_before = self._received_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def stats(self) -> DecoderStats:
        """The counters of what was received."""
        return self._decoder.stats

    def received(self, data: bytes, not_before: float) -> None:
        """Take bytes that cannot have come before *not_before*."""
        self._stop_timer()
        self._not_before, self._received_at = not_before, self._loop.time()
        events = self._decoder.feed(data)
        if self._decoder.may_hide_frame:
            # A damaged length byte must not hold back the frames that follow.
            events += self._decoder.look_ahead()
        self._take(events)
        if self._decoder.pending:
            self._timer = self._loop.call_later(_PAUSE, self._flush)

    def close(self) -> None:
        """Wait for nothing more: take the bytes that are no complete frame."""
        self._flush()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self._stop_timer()
        self._take(self._decoder.flush())

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Frame) and not has_lost_its_id(event):
                sender = sender_of(event)
                if sender is not None:
                    self._owner.learned(self, sender)
                self._owner.take(self, event, self._not_before)
                continue
            raw = event.encode(start_up=False) if isinstance(event, Frame) else event.raw
            self._owner.damaged(self, raw, _damaged_size(event), self._not_before, self._received_at)


def _damaged_size(event: Event) -> int:
    """Return the number of damaged bytes. The start-up bytes before a request are none."""
    if isinstance(event, Frame):
        return OVERHEAD + len(event.data)
    return len(event.raw.strip(START_UP) if isinstance(event, Noise) else event.raw)
