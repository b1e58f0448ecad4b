"""What the tests of calls that hang in threads share: their clock, and a client that keeps failing."""

from __future__ import annotations

import pytest

from tracer_async import LinkError, TracerClient


class CallClock:
    """The clock for the age of calls in threads; see the fixture `clock`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def fail(tracer: TracerClient, times: int) -> None:
    """Wait until so many readings have failed without a connection; each takes as long as an attempt."""
    for _ in range(times):
        with pytest.raises(LinkError):
            await tracer.read()
