"""The incremental decoder: any chunks of bytes in, frames and an account of everything else out.

Two rules explain it:

1. Every byte fed ends in exactly one event (a `Frame`, a `CorruptFrame`, a `Noise`) or is still pending, and at most
   one frame's bytes are pending.
2. What the events are depends on the bytes alone, never on how they were cut into chunks; only a run of noise may
   come as one event or as several.

A header is believed only as far as it is proved: when the end byte or the CRC is wrong, no more is given up than what
stands before the next place where a frame could begin, so a damaged length cannot swallow the good frame behind it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from tracer_async.protocol.frame import END, MAX_DATA, OVERHEAD, SYNC, Frame, crc16

__all__ = ["CorruptFrame", "DecoderStats", "Event", "FrameDecoder", "Noise", "Reason"]

_HEADER_SIZE = len(SYNC) + 3
_COMMAND_AT = len(SYNC) + 1

# Sync bytes cut off by the end of what is searched, of which they are the last five at most.
_find_cut_sync = re.compile(rb"\xeb(?:\Z|\x90(?:\Z|\xeb(?:\Z|\x90(?:\Z|\xeb\Z))))").search

# What a NamedTuple's own constructor calls, in half its time: there is an event for every frame.
_new = tuple.__new__


class Reason(StrEnum):
    """Why a frame is not a good one."""

    CRC = "wrong CRC"
    END = "wrong end byte"
    LENGTH = "length over 200"
    UNFINISHED = "unfinished"
    """The line went quiet within the frame (only `FrameDecoder.flush` and `FrameDecoder.look_ahead` say so)."""


# Looking a member up in its class takes as long as a good part of decoding a frame does (Python 3.11).
_CRC, _END, _LENGTH, _UNFINISHED = Reason


class CorruptFrame(NamedTuple):
    """Bytes that began like a frame and were none.

    ``raw`` ends where its length said, or earlier, before the next bytes that a frame could begin with.
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
    """What a decoder has seen since it was made."""

    frames: int
    """Good frames."""
    corrupt_frames: int
    """Damaged ones."""
    corrupt_bytes: int
    """Bytes of damaged frames."""
    noise_bytes: int
    """Bytes that belonged to no frame."""


class FrameDecoder:
    """Turns a stream of bytes into frames; see the module's two rules."""

    __slots__ = ("_corrupt_bytes", "_corrupt_frames", "_frames", "_need", "_noise_bytes", "held")

    def __init__(self) -> None:
        self.held: bytes = b""
        """The bytes that wait for more."""
        # How many bytes have to be pending before there is anything to decide.
        self._need = _HEADER_SIZE
        self._frames = 0
        self._corrupt_frames = 0
        self._corrupt_bytes = 0
        self._noise_bytes = 0

    @property
    def stats(self) -> DecoderStats:
        """The counters, as they stand now."""
        return _new(DecoderStats, (self._frames, self._corrupt_frames, self._corrupt_bytes, self._noise_bytes))

    @property
    def pending(self) -> int:
        """How many bytes are held back, waiting for more: at most one frame's, 212."""
        return len(self.held)

    @property
    def in_frame(self) -> bool:
        """Whether a whole header is pending, whose frame is not complete yet."""
        return self._need > _HEADER_SIZE

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Feed received bytes; return the events that they complete. Bad bytes are events, never an exception."""
        data = self.held + data
        if len(data) < self._need:
            self.held = data
            return []
        return self._scan(data, quiet=False)

    def could_begin(self, command: int) -> bool:
        """Return whether the pending bytes may be the first part of a frame with this command byte."""
        pending = self.held
        begun = pending.find(SYNC[0])
        command_at = begun + _COMMAND_AT
        return begun >= 0 and (command_at >= len(pending) or pending[command_at] == command)

    @property
    def may_hide_frame(self) -> bool:
        """Whether a frame may stand behind the incomplete one, which may be none."""
        return self.held.find(SYNC, 1) >= 0

    def look_ahead(self) -> list[Event]:
        """Return the events up to and including the whole frames that stand behind an incomplete one.

        Where there are none, return nothing and keep all bytes: the incomplete frame may still be completed.
        """
        data = self.held
        if len(data) < _HEADER_SIZE:
            return []
        at = self._next_sync(data, 1, len(data))
        rest = FrameDecoder()
        events = rest.feed(data[at:])
        events += rest.look_ahead()
        if not rest._frames:
            return []
        skipped = self._skip(data[:at])
        self.held = rest.held
        self._need = rest._need
        self._frames += rest._frames
        self._corrupt_frames += rest._corrupt_frames
        self._corrupt_bytes += rest._corrupt_bytes
        self._noise_bytes += rest._noise_bytes
        return [skipped, *events]

    def _skip(self, raw: bytes) -> Event:
        """Give up the beginning of a frame that was none."""
        if len(raw) < len(SYNC):
            return self._noise(raw)
        self._corrupt_frames += 1
        self._corrupt_bytes += len(raw)
        return CorruptFrame(raw, _UNFINISHED)

    def flush(self) -> list[Event]:
        """End a half-received frame, because the line has gone quiet; return the events of all pending bytes."""
        data = self.held
        return self._scan(data, quiet=True) if data else []

    def _scan(self, data: bytes, *, quiet: bool) -> list[Event]:
        events: list[Event] = []
        size = len(data)
        done = 0  # up to here every byte is in an event
        at = 0  # up to here no frame begins; done..at is noise
        need = _HEADER_SIZE
        find = data.find
        while at < size:
            begun = find(SYNC, at)
            if begun < 0 or begun > size - _HEADER_SIZE:
                # Nothing but the start of a header, at the very end, is worth keeping.
                at = size if quiet else self._next_sync(data, max(at, size - _HEADER_SIZE + 1), size)
                break
            at = begun
            length = data[at + 8]
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
                # Over its own two bytes as well, the CRC of a good frame is 0.
                if not crc16(checked):
                    if done < at:
                        events.append(self._noise(data[done:at]))
                    events.append(_new(Frame, (checked[0], checked[1], checked[3:-2])))
                    self._frames += 1
                    done = at = stop
                    continue
                reason = _CRC
            # Not a frame. Look on from the next place where one could begin.
            at = self._next_sync(data, begun + 1, stop)
            if at - begun >= len(SYNC):
                if done < begun:
                    events.append(self._noise(data[done:begun]))
                events.append(_new(CorruptFrame, (data[begun:at], reason)))
                self._corrupt_frames += 1
                self._corrupt_bytes += at - begun
                done = at
            # else the sync bytes began once more within themselves: what came before was a stray EB 90.
        if done < at:
            events.append(self._noise(data[done:at]))
        if at < size or self.held:
            self.held = data[at:]
            self._need = need
        return events

    @staticmethod
    def _next_sync(data: bytes, start: int, stop: int) -> int:
        """Return the first place where a frame could begin, perhaps with sync bytes cut off by *stop*; else *stop*."""
        at = data.find(SYNC, start, stop)
        if at >= 0:
            return at
        cut = _find_cut_sync(data, max(start, stop - len(SYNC) + 1), stop) if data[stop - 1] in SYNC else None
        return cut.start() if cut else stop

    def _noise(self, raw: bytes) -> Noise:
        self._noise_bytes += len(raw)
        return _new(Noise, (raw,))
