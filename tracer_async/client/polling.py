"""Readings at a fixed interval."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Protocol

import anyio

from tracer_async.client._ticks import Ticks
from tracer_async.client.reading import Reading
from tracer_async.errors import LinkClosedError, TracerError
from tracer_async.protocol._numbers import check_number

__all__ = ["poll"]


class _Readable(Protocol):
    async def read(self) -> Reading: ...


def poll(tracer: _Readable, interval: float) -> AsyncGenerator[Reading, None]:
    """Read at once, and then every *interval* seconds. Yield each reading, including failed ones.

    Ticks are whole intervals after the first one, so they do not drift. Ticks that pass during a reading, or before the
    caller asks for the next one, are skipped and counted in `Reading.skipped`. Ends at once when the client is closed.
    Raises TypeError for an interval that is not a number, ValueError for one out of range (0.001 s or more).
    """
    return _poll(tracer, check_number("interval", interval))


async def _poll(tracer: _Readable, interval: float) -> AsyncGenerator[Reading, None]:
    # Another object than a `TracerClient` may not have this method: then the end is noticed at the next reading.
    wait_closed = getattr(tracer, "wait_closed", None)
    ticks = Ticks(interval, anyio.current_time())
    while True:
        try:
            reading = await tracer.read()
        except LinkClosedError:
            return
        except TracerError as error:
            reading = Reading(time.time(), None, error)
        yield reading._replace(skipped=ticks.skipped) if ticks.skipped else reading
        due = ticks.next(anyio.current_time())
        if wait_closed is None:
            await anyio.sleep_until(due)
        elif await wait_closed(until=due):
            return
