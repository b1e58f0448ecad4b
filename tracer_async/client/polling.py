"""Readings at a steady interval."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from typing import Protocol

import anyio

from tracer_async.client.reading import Reading
from tracer_async.errors import LinkClosedError, TracerError
from tracer_async.protocol._numbers import check_number

__all__ = ["poll"]


class _Readable(Protocol):
    async def read(self) -> Reading: ...


def poll(tracer: _Readable, interval: float) -> AsyncGenerator[Reading, None]:
    """Read at once, and then every *interval* seconds; yield each reading, failed ones too.

    The ticks stand at whole intervals from the first and do not drift. Where a reading, or the caller between two,
    takes longer, the ticks missed are skipped, not made up for. Ends at once when the client is closed.
    Raises TypeError or ValueError for an interval that is no number, or is below 0.001 s.
    """
    return _poll(tracer, check_number("interval", interval))


async def _poll(tracer: _Readable, interval: float) -> AsyncGenerator[Reading, None]:
    wait_closed = getattr(tracer, "wait_closed", None)  # what is no `TracerClient` ends only with its next reading
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
        if wait_closed is None:
            await anyio.sleep_until(start + tick * interval)
            continue
        with anyio.CancelScope(deadline=start + tick * interval):
            await wait_closed()
            return
