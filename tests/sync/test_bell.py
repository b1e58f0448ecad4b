"""A bell waits in the way of each operating system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from tracer_async.sync import _bell
from tracer_async.sync._bell import Bell


@pytest.fixture(params=["linux", "win32"])
def bell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bell]:
    """A bell as on that operating system. The calls that it makes on Windows work on all systems."""
    monkeypatch.setattr(_bell, "sys", SimpleNamespace(platform=request.param))
    with closing(Bell()) as bell:
        yield bell


def test_a_wait_until_a_time_that_has_passed_returns(bell: Bell) -> None:
    bell.wait(-0.02)
    assert not bell.is_rung


def test_a_bell_that_was_rung_ends_all_later_waits(bell: Bell) -> None:
    bell.ring()
    for _ in range(3):
        bell.wait(60.0)
    assert bell.is_rung
