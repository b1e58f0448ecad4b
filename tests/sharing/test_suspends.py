"""Sharing and listening across a suspend of the machine, during which the clock of the event loop stands still."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.promise.stamping_controller import LOAD, READ, Replies, Request, StampingController, frame, realtime
from tests.promise.virtual_time import virtual_time
from tests.sharing.listened_line import ASKED, listening
from tests.sharing.programs import number_of, shared

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the clock of Windows continues during a suspend")

HOUR = 3600.0
SLOW = 0.06


def slowly(controller: StampingController, request: Request) -> Replies:
    return [(SLOW, controller.execute(request))]


@pytest.fixture
def suspend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Add seconds to the clock that continues during a suspend, but not to the monotonic one."""
    clock, asleep = time.clock_gettime, 0.0

    def suspend(seconds: float) -> None:
        nonlocal asleep
        asleep += seconds

    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + asleep)
    return suspend


@virtual_time
async def test_a_command_that_waited_in_its_socket_during_a_suspend_is_not_executed(
    suspend: Callable[[float], None],
) -> None:
    async with shared(slowly) as line:
        program = await line.program()
        await program.ask(LOAD, b"\x00")
        await asyncio.sleep(1.0)
        program.send(LOAD, b"\x01")
        suspend(HOUR)
        assert await program.reply(5.0) is None
        assert line.controller.executed.count(Request(LOAD, b"\x01")) == 0
        assert await program.ask(LOAD, b"\x01") == frame(LOAD, b"\x01")


@virtual_time
async def test_a_command_of_a_program_that_connected_during_a_suspend_is_not_executed(
    suspend: Callable[[float], None],
) -> None:
    async with shared(slowly) as line:
        await asyncio.sleep(1.0)
        with socket.socket(socket.AF_UNIX) as program:
            program.connect(line.url.removeprefix("unix:"))
            program.sendall(frame(LOAD, b"\x01"))
            suspend(HOUR)
            await asyncio.sleep(5.0)
        assert line.sharing.stats.requests == 1
        assert line.controller.count(LOAD) == 0


@virtual_time
async def test_a_command_that_was_queued_before_a_suspend_is_not_sent(suspend: Callable[[float], None]) -> None:
    async with shared(slowly) as line:
        reader, program = await line.program(), await line.program()
        reader.send(READ)
        await asyncio.sleep(SLOW / 2)
        program.send(LOAD, b"\x01")
        await asyncio.sleep(0.15)  # the reading is answered, and the command waits until the line has been quiet
        assert (line.sharing.stats.replies, line.sharing.stats.requests) == (1, 2)
        suspend(HOUR)
        assert await program.reply(5.0) is None
        assert line.controller.count(LOAD) == 0


@virtual_time
async def test_no_reading_from_before_a_suspend_is_given_to_a_program(suspend: Callable[[float], None]) -> None:
    async with shared(slowly, max_age=60.0) as line:
        program = await line.program()
        before = await program.ask(READ)
        assert await program.ask(READ) == before
        assert line.sharing.stats.cached == 1
        suspend(8 * HOUR)
        # The client opens the link again, and so forgets that there was a suspend.
        await line.client.read_realtime()
        assert line.client.stats.links == 2
        await asyncio.sleep(2.0)
        assert number_of(await program.ask(READ)) > number_of(before)


@virtual_time
async def test_a_listener_reports_nothing_that_came_during_a_suspend(
    suspend: Callable[[float], None], tmp_path: Path
) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        await asyncio.sleep(1.0)  # virtual. What comes earlier can have waited in the bridge
        readings = listener.readings()
        wires.connected.clear()
        wires.writers.pop().write(ASKED + frame(READ, realtime(1)))
        suspend(HOUR)
        async with asyncio.timeout(60.0):
            await wires.connected.wait()
        await asyncio.sleep(1.0)
        wires.writers[0].write(ASKED + frame(READ, realtime(2)))
        reading = await anext(readings)
        assert reading.data is not None
        assert reading.data.battery_voltage == 0.02
        assert reading.age < 0.2


@virtual_time
async def test_a_silent_line_is_opened_again_after_a_suspend(suspend: Callable[[float], None], tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, _):
        await asyncio.sleep(1.0)
        wires.connected.clear()
        wires.writers.clear()
        suspend(HOUR)
        async with asyncio.timeout(60.0):
            await wires.connected.wait()
