"""One measurement with its time, or the error that occurred instead."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from tracer_async.errors import TracerError
from tracer_async.protocol import RealtimeData

__all__ = ["Reading"]


class Reading(NamedTuple):
    """The result of one poll: data, or the error that occurred instead."""

    time: float
    """When the answer arrived, or when the request failed: seconds since 1970, UTC."""
    data: RealtimeData | None
    """The measurements. None if there is an error."""
    error: TracerError | None = None
    """Why there is no data. None if there is data."""
    age: float = inf
    """Maximum age of the data in seconds when it arrived: the measurement was made within [``time`` - ``age``,
    ``time``]. It is infinite if there is no data, and if nobody has stated it.

    It counts from the moment when the request was sent. If an earlier request is unanswered and this may be its reply,
    it counts from that request. A reply that is more than `LATE_REPLY_WINDOW` seconds late is not detected."""
    skipped: int = 0
    """Number of ticks that were left out since the previous reading: that reading took too long, the application asked
    too late for the next one, or the *capacity* of a fleet was full."""

    @property
    def ok(self) -> bool:
        """Whether there is data."""
        return self.data is not None
