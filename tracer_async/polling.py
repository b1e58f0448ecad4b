"""Readings at a steady interval."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from typing import NamedTuple, Protocol

import anyio

from tracer_async.errors import LinkClosedError, TracerError
from tracer_async.protocol import RealtimeData

__all__ = ["Reading", "poll"]


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
    `HORIZON` seconds late."""
    skipped: int = 0
    """How many ticks passed unused since the reading before, because that one took longer than the interval."""

    @property
    def ok(self) -> bool:
        """Whether there is data."""
        return self.data is not None


class _Readable(Protocol):
    async def read(self) -> Reading: ...


def poll(tracer: _Readable, interval: float) -> AsyncGenerator[Reading, None]:
    """Read at once, and then every *interval* seconds; yield each reading, failed ones too.

    The ticks stand at whole intervals from the first and do not drift. Where a reading, or the caller between two,
    takes longer, the ticks missed are skipped, not made up for. Ends when the client is closed. Raises ValueError
    for an interval that is not above 0.
    """
    if not 0 < interval < math.inf:
        raise ValueError(f"interval must be above 0 seconds, not {interval}")
    return _poll(tracer, interval)


async def _poll(tracer: _Readable, interval: float) -> AsyncGenerator[Reading, None]:
    start = anyio.current_time()
    tick = 0
    skipped = 0
    while True:
        try:
            reading = await tracer.read()
        except LinkClosedError:
            return
        except TracerError as error:
            reading = Reading(time.time(), None, error)
        yield reading._replace(skipped=skipped) if skipped else reading
        now = anyio.current_time()
        # The first tick that is still ahead; a hair's breadth of clock rounding is no missed tick.
        due = max(tick + 1, math.ceil((now - start) / interval - 1e-6))
        skipped = due - tick - 1
        tick = due
        await anyio.sleep_until(start + tick * interval)
