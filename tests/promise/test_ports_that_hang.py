"""A port whose driver hangs: further attempts start no further call at once, and it opens as soon as it can."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from tests.promise.bridges import BACKENDS, LOOPS, SECONDS, VOLTAGE, open_descriptors, run, serial_port, until
from tracer_async import LinkError, TracerClient
from tracer_async.sharing import Listener
from tracer_async.transport import _threads

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
loops = pytest.mark.parametrize("loop", LOOPS)
backends = pytest.mark.parametrize("backend", BACKENDS)

# Frequent attempts to connect.
EAGER: dict[str, Any] = {"start_offline": True, "connect_timeout": 0.05, "backoff": (0.01, 0.01)}


class Driver:
    """Replaces ``os.open``. While it is stuck, opening the path hangs."""

    def __init__(self) -> None:
        self.path = ""
        self.stuck = True
        self.calls = 0
        """How many times the path was opened."""
        self._released = threading.Event()
        self._open = os.open

    def open(self, path: Any, *args: Any, **options: Any) -> int:
        if str(path) == self.path:
            self.calls += 1
            if self.stuck:
                self._released.wait()
        return self._open(path, *args, **options)

    def release(self) -> None:
        """End the calls that hang: they succeed. New calls do not hang."""
        self.stuck = False
        self._released.set()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    driver = Driver()
    monkeypatch.setattr("os.open", driver.open)
    yield driver
    driver.release()


class Clock:
    """The clock for the age of calls."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_threads, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


async def fail(tracer: TracerClient, times: int) -> None:
    """Wait until so many readings have failed without a connection; each takes as long as an attempt."""
    for _ in range(times):
        with pytest.raises(LinkError):
            await tracer.read()


@loops
@backends
def test_three_clients_of_a_port_that_hangs_cause_one_call_and_connect_when_it_ends(
    loop: Any, backend: str, driver: Driver
) -> None:
    async def main(path: str) -> None:
        url = f"serial://{path}?backend={backend}"
        before = open_descriptors()
        driver.path = path
        async with asyncio.timeout(SECONDS):
            async with AsyncExitStack() as clients:
                for _ in range(3):
                    tracer = await clients.enter_async_context(TracerClient(url, **EAGER))
                await fail(tracer, 20)
                assert driver.calls == 1
            driver.release()
            async with TracerClient(url, start_offline=True, backoff=(0.01, 0.01)) as tracer:
                assert (await tracer.read_realtime()).battery_voltage == VOLTAGE
            await until(lambda: open_descriptors() == before)

    with serial_port() as path:
        run(loop, main(path))


@backends
async def test_after_30_seconds_a_port_that_hangs_is_opened_again_and_at_most_four_calls_hang(
    backend: str, driver: Driver, clock: Clock
) -> None:
    """The device may have been replaced by another one, which has the same path."""
    driver.path = "/dev/hanging"
    async with asyncio.timeout(SECONDS), TracerClient(f"serial:///dev/hanging?backend={backend}", **EAGER) as tracer:
        for count in (1, 2, 3, 4, 4, 4):
            await until(lambda count=count: driver.calls == count)  # type: ignore[misc]
            await fail(tracer, 10)
            assert driver.calls == count
            clock.now += 31.0


async def test_a_listener_does_not_open_a_port_again_while_a_call_hangs(driver: Driver) -> None:
    with serial_port() as path:
        driver.path = path
        before = open_descriptors()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), Listener(path):
                    pass
        assert driver.calls == 1
        driver.release()
        async with asyncio.timeout(SECONDS), Listener(path) as listener:
            assert listener.errors == (None,)
        await until(lambda: open_descriptors() == before)
