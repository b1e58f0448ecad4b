"""One measurement with its time, or the error that came instead."""

from __future__ import annotations

from typing import NamedTuple

from tracer_async.errors import TracerError
from tracer_async.protocol import RealtimeData

__all__ = ["Reading"]


class Reading(NamedTuple):
    """What one poll came to: data, or the error instead of it."""

    time: float
    """When it arrived, or failed: seconds since 1970, UTC."""
    data: RealtimeData | None
    """The measurements; None if there is an error."""
    error: TracerError | None = None
    """Why there are none; None if there are."""
    age: float = 0.0
    """How old the data may have been when it arrived, at most, in seconds: since the request was sent, and where an
    earlier request was left without an answer, since that one was. Nothing is known of what came more than
    `LATE_REPLY_WINDOW` seconds late."""
    skipped: int = 0
    """How many ticks passed unused since the reading before, because that one took longer than the interval."""

    @property
    def ok(self) -> bool:
        """Whether there is data."""
        return self.data is not None
