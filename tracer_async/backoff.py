"""The delays between attempts: one rule for the connections of both clients, and for the gateway."""

from __future__ import annotations

import random
from collections.abc import Iterator

__all__ = ["backoff"]


def backoff(initial: float, maximum: float) -> Iterator[float]:
    """Yield delays in seconds without end: doubling from *initial* to *maximum*, each shortened by up to half.

    The shortening is random. Without it, clients that lost their connections at the same time would all reconnect at
    the same time.
    """
    delay = initial
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311  # jitter, no secret
        delay = min(delay * 2, maximum)
