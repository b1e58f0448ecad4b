"""A port whose driver hangs: further attempts start no further call at once, and it opens as soon as it can."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.promise.bridges import BACKENDS, LOOPS, SECONDS, VOLTAGE, open_descriptors, run, serial_port, until
from tests.promise.hanging_calls import CallClock, fail
from tracer_async import TracerClient
from tracer_async.sharing import Listener

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
    backend: str, driver: Driver, clock: CallClock
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
