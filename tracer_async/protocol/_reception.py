"""The received bytes of one connection: decoding, pauses within frames, and when the line is quiet."""

from __future__ import annotations

from tracer_async.protocol._windows import DUPLICATE_WINDOW, LATE_REPLY_WINDOW
from tracer_async.protocol.decoder import Event, FrameDecoder

__all__ = ["FLOOD_RATE", "FRAME_PAUSE", "LOOK_AHEAD_AFTER", "Reception"]

LOOK_AHEAD_AFTER = 0.05
"""Seconds without bytes after which complete frames are searched for after the beginning of an incomplete one."""

FRAME_PAUSE = 1.0
"""Seconds without bytes after which an incomplete frame is discarded."""

FLOOD_RATE = 256 * 1024
"""Unsolicited bytes per second above which a connection is given up."""


class Reception:
    """Decodes received bytes, and decides when the line is quiet enough for a request."""

    __slots__ = (
        "_flood_since",
        "_heard_after",
        "_last_input",
        "_look_ahead",
        "_unsolicited",
        "blocked_since",
        "decoder",
        "flooded",
        "pending",
    )

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.pending = False
        """Whether a frame is incomplete."""
        # Latest time at which the last bytes came.
        self._last_input = 0.0
        # Earliest time at which the bytes of the incomplete frame came.
        self._heard_after = 0.0
        # Whether the pending bytes may contain a complete frame after the beginning of the incomplete one.
        self._look_ahead = False
        self.blocked_since: float | None = None
        """Since when bytes without a pause have prevented a request from being sent. None after each request."""
        # Number of unsolicited bytes since that time.
        self._flood_since = 0.0
        self._unsolicited = 0
        self.flooded: bool = False
        """Whether unsolicited bytes came faster than `FLOOD_RATE`."""

    def connect(self, now: float) -> None:
        """Begin a new connection. Its input is empty."""
        self._flood_since = now
        self._unsolicited = 0
        self.flooded = False

    def feed(self, data: bytes | memoryview, now: float, not_before: float) -> tuple[list[Event], float]:
        """Return the events that the received bytes complete, and the earliest time at which their bytes came."""
        decoder = self.decoder
        held = self.pending
        # A complete frame after an incomplete one came with earlier bytes. These bytes only show where it begins.
        came_after = self._heard_after if held and decoder.may_hide_frame else not_before
        events = decoder.feed(data)
        if now > self._last_input + DUPLICATE_WINDOW:
            # There was a pause. Or the application was busy, and these bytes may contain a complete frame.
            self.blocked_since = None
        self._last_input = now
        self.pending = decoder.held != b""
        if self.pending:
            if not held or decoder.pending <= len(data):
                self._heard_after = not_before
            # Usually false, and then `deadline` is later: only an incomplete frame is pending, and its rest will come.
            self._look_ahead = decoder.may_hide_frame
        return events, came_after

    def count_unsolicited(self, size: int, now: float, not_before: float) -> None:
        """Record that *size* unsolicited bytes came."""
        if not_before >= self._flood_since + 1.0:
            self._flood_since = not_before
            self._unsolicited = 0
        self._unsolicited += size
        if self._unsolicited > FLOOD_RATE * max(1.0, now - self._flood_since):
            self.flooded = True

    # Pauses within a frame. The two halves of a good reply can come 90 ms apart, so nothing is discarded for
    # `FRAME_PAUSE`. A false header (noise) could hide the reply after it for that time, so after `LOOK_AHEAD_AFTER`
    # complete frames are searched for without discarding anything.

    def deadline(self) -> float:
        """Return when `tick` must be called. Only valid while a frame is incomplete."""
        return self._last_input + (LOOK_AHEAD_AFTER if self._look_ahead else FRAME_PAUSE)

    def tick(self, now: float) -> tuple[list[Event], float]:
        """Return the events that a pause completes, and the earliest time at which their bytes came."""
        events: list[Event] = []
        if not self.pending:
            return events, now
        if now >= self._last_input + FRAME_PAUSE:
            events = self.decoder.flush()
        elif self._look_ahead and now >= self._last_input + LOOK_AHEAD_AFTER:
            self._look_ahead = False
            events = self.decoder.look_ahead()
        self.pending = self.decoder.pending > 0
        return events, self._heard_after

    def disconnect(self) -> tuple[list[Event], float]:
        """Return the events of all pending bytes, because no more bytes come on this connection."""
        self.blocked_since = None
        self.pending = False
        return self.decoder.flush(), self._heard_after

    def completes_by(self, command: int) -> float | None:
        """Return until when to wait for the rest of a possible reply to *command*. None if none is incomplete."""
        return self._last_input + FRAME_PAUSE if self.decoder.could_begin(command) else None

    # The line-quiet rule.

    def quiet_from(self, now: float, timeout: float) -> float:
        """Return when a request may be sent while a frame is incomplete.

        The incomplete frame may be an unsolicited reply, which must not answer the request. So it is sent only after
        the duplicate window has passed without bytes. The second limit applies if the bytes never pause: within a
        frame the late-reply window, for noise the timeout.
        """
        if self.blocked_since is None:
            self.blocked_since = now
        longest = LATE_REPLY_WINDOW if self.decoder.in_frame else timeout
        return min(self._last_input + DUPLICATE_WINDOW, self.blocked_since + longest)
