"""Closing and cancelling at any moment is immediate, logs nothing and leaves no descriptor open."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.promise.bridges import (
    BACKENDS,
    LOOPS,
    SECONDS,
    VOLTAGE,
    Bridge,
    black_hole,
    open_descriptors,
    run,
    serial_port,
    until,
)
from tests.promise.logging_controller import LoggingController
from tests.promise.virtual_time import virtual_time
from tracer_async import ConnectionState, LinkClosedError, TracerClient

loops = pytest.mark.parametrize("loop", LOOPS)
backends = pytest.mark.parametrize("backend", BACKENDS)
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")

# Attempts to connect and requests time out only long after `SECONDS`.
PATIENT: dict[str, Any] = {"connect_timeout": 60.0, "timeout": 60.0}


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Asyncio reports exceptions in callbacks and abandoned tasks only in the log."""
    yield
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def ended(task: asyncio.Task[Any]) -> None:
    """Assert that a cancelled or closed operation ends with the matching error."""
    await asyncio.wait([task], timeout=SECONDS)
    assert task.done()
    if not task.cancelled():
        assert task.exception() is None or isinstance(task.exception(), LinkClosedError)


# (e) Serial ports.


@posix
@loops
@backends
@pytest.mark.parametrize("busy", [False, True])
def test_two_tasks_can_close_a_serial_port_at_the_same_time(loop: Any, backend: str, busy: bool) -> None:
    async def main(path: str) -> None:
        before = open_descriptors()
        for _ in range(5):
            tracer = TracerClient(f"serial://{path}?backend={backend}", **PATIENT)
            await tracer.open()
            assert (await tracer.read_realtime()).battery_voltage == VOLTAGE
            reading = asyncio.create_task(tracer.read_realtime()) if busy else None
            await asyncio.sleep(0)
            async with asyncio.timeout(SECONDS):
                await asyncio.gather(tracer.aclose(), tracer.aclose())
            if reading is not None:
                await ended(reading)  # answered just before, or not at all
            await tracer.aclose()
        await until(lambda: open_descriptors() == before)

    with serial_port() as path:
        run(loop, main(path))


@posix
@loops
@backends
@pytest.mark.parametrize("how", ["cancel", "aclose"])
def test_opening_a_serial_port_can_be_ended_in_each_loop_iteration(loop: Any, backend: str, how: str) -> None:
    """Tries each of the first turns, then larger and larger steps, until the port opens first."""

    async def main(path: str) -> None:
        before = open_descriptors()
        turns, opened = 0, False
        while not opened:
            tracer = TracerClient(f"serial://{path}?backend={backend}", **PATIENT)
            opening = asyncio.create_task(tracer.open())
            for _ in range(turns):
                await asyncio.sleep(0)
            opened = tracer.state is ConnectionState.UP
            if how == "cancel":
                opening.cancel()
            await asyncio.gather(tracer.aclose(), ended(opening))
            turns += 1 + turns // 4
        assert turns > 6
        await until(lambda: open_descriptors() == before)
        # The port is free again, and works.
        async with TracerClient(f"serial://{path}?backend={backend}") as tracer:
            assert (await tracer.read_realtime()).battery_voltage == VOLTAGE

    with serial_port() as path:
        run(loop, main(path))


# (f) Opening twice, and closing before opening.


@loops
def test_a_second_open_raises_and_the_first_one_succeeds(loop: Any) -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            tracer = TracerClient(bridge.url)
            first = asyncio.create_task(tracer.open())
            await asyncio.sleep(0)
            with pytest.raises(LinkClosedError, match="already"):
                await tracer.open()
            await first
            with pytest.raises(LinkClosedError, match="already"):
                await tracer.open()
            assert (await tracer.read_realtime()).battery_voltage == VOLTAGE
            await tracer.aclose()
            assert bridge.connections == 1

    run(loop, main())


@loops
def test_a_second_open_raises_and_the_first_one_ends_when_the_client_is_closed(loop: Any) -> None:
    async def main(dead: int) -> None:
        tracer = TracerClient(f"tcp://127.0.0.1:{dead}", **PATIENT)
        first = asyncio.create_task(tracer.open())
        await asyncio.sleep(0)
        with pytest.raises(LinkClosedError, match="already"):
            await tracer.open()
        async with asyncio.timeout(SECONDS):
            await tracer.aclose()
            with pytest.raises(LinkClosedError, match="closed"):
                await first

    with black_hole() as dead:
        run(loop, main(dead))


@loops
@pytest.mark.parametrize("start_offline", [False, True])
def test_closing_before_the_opening_has_run_takes_effect(loop: Any, start_offline: bool) -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            tracer = TracerClient(bridge.url, start_offline=start_offline)
            opening = asyncio.create_task(tracer.open())
            await tracer.aclose()
            with pytest.raises(LinkClosedError, match="closed"):
                await opening
            assert tracer.state is ConnectionState.CLOSED
            with pytest.raises(LinkClosedError):
                await tracer.read_realtime()
            for _ in range(20):
                await asyncio.sleep(0)
            assert bridge.connections == 0

    run(loop, main())


# (g) TCP connections.


async def end_at_turn(url: str, turns: int, how: str) -> None:
    """End an opening *turns* turns of the loop after it began."""
    tracer = TracerClient(url, **PATIENT)
    opening = asyncio.create_task(tracer.open())
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS):
        if how == "cancel":
            opening.cancel()
        else:
            await tracer.aclose()
        await ended(opening)
        await tracer.aclose()


@loops
@pytest.mark.parametrize("how", ["cancel", "aclose"])
@pytest.mark.parametrize("turns", range(9))
def test_opening_ends_at_once_while_the_connection_is_being_accepted(loop: Any, turns: int, how: str) -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            await end_at_turn(bridge.url, turns, how)  # create now what is created only once
            before = open_descriptors()
            for _ in range(5):
                await end_at_turn(bridge.url, turns, how)
            await until(lambda: open_descriptors() == before)

    run(loop, main())


@loops
@pytest.mark.parametrize("how", ["cancel", "aclose"])
def test_opening_ends_at_once_while_the_connection_is_not_accepted(loop: Any, how: str) -> None:
    async def main(dead: int) -> None:
        before = open_descriptors()
        for turns in range(9):
            await end_at_turn(f"tcp://127.0.0.1:{dead}", turns, how)
        await until(lambda: open_descriptors() == before)

    with black_hole() as dead:
        run(loop, main(dead))


@loops
@pytest.mark.parametrize("how", ["cancel", "aclose"])
def test_opening_ends_at_once_while_a_tls_handshake_is_unanswered(loop: Any, how: str) -> None:
    async def main() -> None:
        async with Bridge() as bridge:
            url = bridge.url.replace("tcp", "tls")
            await end_at_turn(url, 1, how)
            before = open_descriptors()
            for turns in (*range(9), 200):
                await end_at_turn(url, turns, how)
            await until(lambda: open_descriptors() == before)

    run(loop, main())


@loops
def test_a_request_ends_at_once_when_its_client_is_closed_in_its_first_turns(loop: Any) -> None:
    """The link may be up by then, or not."""

    async def main() -> None:
        async with Bridge() as bridge:
            for turns in range(9):
                tracer = TracerClient(bridge.url, start_offline=True, **PATIENT)
                await tracer.open()
                reading = asyncio.create_task(tracer.read_realtime())
                for _ in range(turns):
                    await asyncio.sleep(0)
                async with asyncio.timeout(SECONDS):
                    await tracer.aclose()
                await ended(reading)

    run(loop, main())


# Iterations.


@virtual_time
async def test_a_poll_ends_at_once_when_its_client_is_closed_between_two_ticks() -> None:
    tracer = TracerClient(LoggingController().connect)
    await tracer.open()
    poll = tracer.poll(3600.0)
    assert (await anext(poll)).ok
    waiting = asyncio.create_task(anext(poll, None))
    await asyncio.sleep(1.0)
    closed_at = asyncio.get_running_loop().time()
    await tracer.aclose()
    assert await waiting is None
    assert asyncio.get_running_loop().time() < closed_at + 1.0
