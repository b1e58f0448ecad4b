"""The clock by which calls in threads count as hanging."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.promise.hanging_calls import CallClock
from tracer_async.transport import _threads


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> CallClock:
    clock = CallClock()
    monkeypatch.setattr(_threads, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock
