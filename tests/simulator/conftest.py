"""Fixtures for the tests of the simulator."""

from __future__ import annotations

import pytest


class SteppedClock:
    """A clock that changes only through `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, *, seconds: float = 0.0, hours: float = 0.0) -> None:
        self.now += seconds + hours * 3600.0


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()
