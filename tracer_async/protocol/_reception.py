"""The bytes of one connection as they come: decoding, and the pauses within frames."""

from __future__ import annotations

from tracer_async.protocol.decoder import Event, FrameDecoder
from tracer_async.protocol.exchange import DUPLICATE_WINDOW, LATE_REPLY_WINDOW

__all__ = ["FLOOD_RATE", "FRAME_PAUSE", "LOOK_AHEAD_AFTER", "Reception"]

LOOK_AHEAD_AFTER = 0.05
"""Seconds of quiet after which a whole frame is looked for behind an incomplete one."""

FRAME_PAUSE = 1.0
"""Seconds of quiet after which an incomplete frame is given up."""

FLOOD_RATE = 256 * 1024
"""Bytes a second that nobody asked for, above which a connection is given up."""


class Reception:
    """Decodes what comes, and tells when the line is quiet enough for a request."""

    __slots__ = (
        "_flood_since",
        "_heard",
        "_heard_after",
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
        # When the last bytes came, at the latest.
        self._heard = 0.0
        # Since when the bytes of the incomplete frame can have come.
        self._heard_after = 0.0
        # Whether a frame may stand behind the incomplete one.
        self._look_ahead = False
        self.blocked_since: float | None = None
        """Since when bytes without a pause have kept a request from being sent; None from each request on."""
        # How many bytes came since then that nobody asked for.
        self._flood_since = 0.0
        self._unsolicited = 0
        self.flooded: bool = False
        """Whether more than `FLOOD_RATE` of bytes came that nobody asked for."""

    def connect(self, now: float) -> None:
        """Begin a new connection, whose input is empty."""
        self._flood_since = now
        self._unsolicited = 0
        self.flooded = False

    def feed(self, data: bytes | memoryview, now: float, not_before: float) -> tuple[list[Event], float]:
        """Return the events that received bytes complete, and the time before which the bytes of these did not come."""
        decoder = self.decoder
        held = self.pending
        # A whole frame behind the incomplete one came earlier, and these bytes only bring it to light.
        came_after = self._heard_after if held and decoder.may_hide_frame else not_before
        events = decoder.feed(data)
        self.pending = bool(decoder.held)
        if now > self._heard + DUPLICATE_WINDOW:
            # The bytes did not come without end. If the application was busy, a whole frame may hide in them.
            self.blocked_since = None
        self._heard = now
        if self.pending:
            if not held or decoder.pending <= len(data):
                self._heard_after = not_before
            # A frame may hide behind an incomplete one that stretches over it; mostly there is but one to come.
            self._look_ahead = decoder.may_hide_frame
        return events, came_after

    def count_unsolicited(self, size: int, now: float, not_before: float) -> None:
        """Note that *size* bytes came that nobody asked for."""
        if not_before >= self._flood_since + 1.0:
            self._flood_since = not_before
            self._unsolicited = 0
        self._unsolicited += size
        if self._unsolicited > FLOOD_RATE * max(1.0, now - self._flood_since):
            self.flooded = True

    # Pauses within a frame. Halves of an undamaged reply may come 90 ms apart, so a pause alone discards nothing for
    # `FRAME_PAUSE`. A header that was none could hide the reply behind it for as long, so that is looked for earlier.

    def deadline(self) -> float:
        """Return when `tick` has something to do, while a frame is incomplete."""
        return self._heard + (LOOK_AHEAD_AFTER if self._look_ahead else FRAME_PAUSE)

    def tick(self, now: float) -> tuple[list[Event], float]:
        """Return the events that a pause completes, and the time before which their bytes did not come."""
        events: list[Event] = []
        if not self.pending:
            return events, now
        if now >= self._heard + FRAME_PAUSE:
            events = self.decoder.flush()
        elif self._look_ahead and now >= self._heard + LOOK_AHEAD_AFTER:
            self._look_ahead = False
            events = self.decoder.look_ahead()
        self.pending = self.decoder.pending > 0
        return events, self._heard_after

    def disconnect(self) -> tuple[list[Event], float]:
        """Return the events of all pending bytes: no more will come."""
        self.blocked_since = None
        self.pending = False
        return self.decoder.flush(), self._heard_after

    def completes_by(self, command: int) -> float | None:
        """Return until when to wait for the rest of what may be a reply to *command*; None if there is nothing."""
        return self._heard + FRAME_PAUSE if self.decoder.could_begin(command) else None

    # The line-quiet rule.

    def quiet_from(self, now: float, timeout: float) -> float:
        """Return from when on a request may be sent while a frame is incomplete.

        Something is being received, perhaps an unsolicited reply, which must not answer the request. But bytes that
        never end cannot keep requests from being sent forever.
        """
        if self.blocked_since is None:
            self.blocked_since = now
        longest = LATE_REPLY_WINDOW if self.decoder.in_frame else timeout
        return min(self._heard + DUPLICATE_WINDOW, self.blocked_since + longest)
