"""The incremental decoder: turns chunks of bytes into frames, damaged frames and noise.

Two rules:

1. Every byte ends in exactly one event (a `Frame`, a `CorruptFrame`, a `Noise`) or is still pending. At most the bytes
   of one frame are pending.
2. The events depend only on the bytes, not on the chunks in which they arrive. Only consecutive noise may be one event
   or several.

A header may be damaged too. So if the end byte or the CRC is wrong, the damaged frame ends before the next position
where a frame could begin. A wrong length then cannot hide the good frame that follows.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from tracer_async.protocol.frame import END, MAX_DATA, OVERHEAD, SYNC, Frame, crc16

__all__ = ["CorruptFrame", "DecoderStats", "Event", "FrameDecoder", "Noise", "Reason"]

_HEADER_SIZE = len(SYNC) + 3
_COMMAND_AT = len(SYNC) + 1
_LENGTH_AT = len(SYNC) + 2
_MAX_SIZE = OVERHEAD + MAX_DATA

# The beginning of sync bytes, at most five of the six, at the end of the searched bytes.
_find_cut_sync = re.compile(rb"\xeb(?:\Z|\x90(?:\Z|\xeb(?:\Z|\x90(?:\Z|\xeb\Z))))").search

# The constructor of a NamedTuple calls this. Calling it directly takes half the time, for the event of every frame.
_new = tuple.__new__


class Reason(StrEnum):
    """Why a frame is damaged."""

    CRC = "wrong CRC"
    END = "wrong end byte"
    LENGTH = "length over 200"
    UNFINISHED = "unfinished"
    """The frame is incomplete. Only `FrameDecoder.flush` and `FrameDecoder.look_ahead` report it."""


# Looking a member up in its class takes as long as a good part of decoding a frame does (Python 3.11).
_CRC, _END, _LENGTH, _UNFINISHED = Reason


class CorruptFrame(NamedTuple):
    """Bytes that begin like a frame but are not a good one.

    ``raw`` ends where the length byte says, or earlier, before the next position where a frame could begin.
    """

    raw: bytes
    reason: Reason

    def __repr__(self) -> str:
        return f"CorruptFrame(bytes.fromhex({self.raw.hex()!r}), {self.reason})"


class Noise(NamedTuple):
    """Bytes that belong to no frame: start-up bytes, a bridge's banner, line noise."""

    raw: bytes

    def __repr__(self) -> str:
        return f"Noise(bytes.fromhex({self.raw.hex()!r}))"


Event = Frame | CorruptFrame | Noise


class DecoderStats(NamedTuple):
    """The counters of a decoder since it was created."""

    frames: int
    """Good frames."""
    corrupt_frames: int
    """Damaged frames."""
    corrupt_bytes: int
    """Bytes of damaged frames."""
    noise_bytes: int
    """Bytes that belong to no frame."""


class FrameDecoder:
    """Decodes a stream of bytes. See the two rules of the module."""

    __slots__ = ("_need", "corrupt_bytes", "corrupt_frames", "frames", "held", "noise_bytes")

    def __init__(self) -> None:
        self.held: bytes = b""
        """The bytes that wait for more."""
        # How many bytes have to be pending before there is anything to decide.
        self._need = _HEADER_SIZE
        # The counters of `stats`.
        self.frames: int = 0
        self.corrupt_frames: int = 0
        self.corrupt_bytes: int = 0
        self.noise_bytes: int = 0

    @property
    def stats(self) -> DecoderStats:
        """The present counters."""
        return _new(DecoderStats, (self.frames, self.corrupt_frames, self.corrupt_bytes, self.noise_bytes))

    @property
    def pending(self) -> int:
        """Number of bytes that wait for more bytes: at most those of one frame, 212."""
        return len(self.held)

    @property
    def in_frame(self) -> bool:
        """Whether a complete header of an incomplete frame is pending."""
        return self._need > _HEADER_SIZE

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Feed received bytes. Return the events that they complete. Damaged bytes are events, never an exception."""
        data = self.held + data
        size = len(data)
        if size < self._need:
            self.held = data
            return []
        # Nearly always it is exactly one good frame, which is found here in less time. `_scan` decides the same.
        if size == OVERHEAD + data[_LENGTH_AT] <= _MAX_SIZE and data[-1] == END and data[: len(SYNC)] == SYNC:
            checked = data[len(SYNC) : -1]
            if not crc16(checked):
                self.held = b""
                self._need = _HEADER_SIZE
                self.frames += 1
                return [_new(Frame, (checked[0], checked[1], checked[3:-2]))]
        return self._scan(data, quiet=False)

    def could_begin(self, command: int) -> bool:
        """Return whether the pending bytes may be the beginning of a frame with this command byte."""
        # All positions: a stray EB or EB 90 may precede the sync bytes.
        pending = self.held
        at = pending.find(SYNC[0])
        while at >= 0:
            command_at = at + _COMMAND_AT
            cut = command_at >= len(pending)
            if SYNC.startswith(pending[at : at + len(SYNC)]) and (cut or pending[command_at] == command):
                return True
            at = pending.find(SYNC[0], at + 1)
        return False

    @property
    def may_hide_frame(self) -> bool:
        """Whether the pending bytes contain sync bytes of another frame, after the beginning of the incomplete one."""
        return self.held.find(SYNC, 1) >= 0

    def look_ahead(self) -> list[Event]:
        """Return the events up to and including the complete frames that follow an incomplete one.

        If there are none, return no events and keep all bytes: the incomplete frame may still be completed.
        """
        data = self.held
        if len(data) < _HEADER_SIZE:
            return []
        at = self._next_sync(data, 1, len(data))
        rest = FrameDecoder()
        events = rest.feed(data[at:])
        events += rest.look_ahead()
        if not rest.frames:
            return []
        skipped = self._skip(data[:at])
        self.held = rest.held
        self._need = rest._need
        self.frames += rest.frames
        self.corrupt_frames += rest.corrupt_frames
        self.corrupt_bytes += rest.corrupt_bytes
        self.noise_bytes += rest.noise_bytes
        return [skipped, *events]

    def _skip(self, raw: bytes) -> Event:
        """Return the event for the beginning of a frame that will not be completed."""
        if len(raw) < len(SYNC):
            return self._noise(raw)
        self.corrupt_frames += 1
        self.corrupt_bytes += len(raw)
        return CorruptFrame(raw, _UNFINISHED)

    def flush(self) -> list[Event]:
        """Discard an incomplete frame, because no more bytes come. Return the events of all pending bytes."""
        data = self.held
        return self._scan(data, quiet=True) if data else []

    def _scan(self, data: bytes, *, quiet: bool) -> list[Event]:
        events: list[Event] = []
        size = len(data)
        done = 0  # all bytes before this position are in an event
        at = 0  # no frame begins between done and this position: the bytes between are noise
        need = _HEADER_SIZE
        find = data.find
        while at < size:
            begun = find(SYNC, at)
            if begun < 0 or begun > size - _HEADER_SIZE:
                # Only the beginning of a header, at the end of the data, can still become a frame.
                at = size if quiet else self._next_sync(data, max(at, size - _HEADER_SIZE + 1), size)
                break
            at = begun
            length = data[at + _LENGTH_AT]
            stop = at + OVERHEAD + length
            if length > MAX_DATA:
                reason, stop = _LENGTH, at + _HEADER_SIZE
            elif stop > size:
                if not quiet:
                    need = OVERHEAD + length
                    break
                reason, stop = _UNFINISHED, size
            elif data[stop - 1] != END:
                reason = _END
            else:
                checked = data[at + 6 : stop - 1]
                # Computed over the data and its own CRC, the CRC of a good frame is 0.
                if not crc16(checked):
                    if done < at:
                        events.append(self._noise(data[done:at]))
                    events.append(_new(Frame, (checked[0], checked[1], checked[3:-2])))
                    self.frames += 1
                    done = at = stop
                    continue
                reason = _CRC
            # Not a good frame. Continue at the next position where one could begin, even if the length byte says that
            # it is within this frame: the length byte may be damaged.
            at = self._next_sync(data, begun + 1, stop)
            if at - begun >= len(SYNC):
                if done < begun:
                    events.append(self._noise(data[done:begun]))
                events.append(_new(CorruptFrame, (data[begun:at], reason)))
                self.corrupt_frames += 1
                self.corrupt_bytes += at - begun
                done = at
            # Otherwise the next sync bytes overlap these: a stray EB 90 preceded them, and is noise.
        if done < at:
            events.append(self._noise(data[done:at]))
        if at < size or self.held:
            self.held = data[at:]
            self._need = need
        return events

    @staticmethod
    def _next_sync(data: bytes, start: int, stop: int) -> int:
        """Return the first position where a frame could begin, or *stop*. *stop* may cut off its sync bytes."""
        at = data.find(SYNC, start, stop)
        if at >= 0:
            return at
        cut = _find_cut_sync(data, max(start, stop - len(SYNC) + 1), stop) if data[stop - 1] in SYNC else None
        return cut.start() if cut else stop

    def _noise(self, raw: bytes) -> Noise:
        self.noise_bytes += len(raw)
        return _new(Noise, (raw,))
