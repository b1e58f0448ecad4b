"""Programs that send faster than they are read. What they sent last waits in the system, and may be too old by then.

The controller records what it executed, in virtual time. Programs wait 1 s for a reply, so a command must not be
executed later than that.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.promise.stamping_controller import LOAD, READ, SYNC, Replies, Request, StampingController, frame
from tests.promise.virtual_time import VirtualTimeLoop, virtual_time
from tests.sharing.programs import timer_line
from tracer_async import TracerClient
from tracer_async.sharing import Sharing, share

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="virtual time has a selector event loop")

ON = frame(LOAD, b"\x01")
OFF = frame(LOAD, b"\x00")

# Bytes that need more than 1 s to be read, and that the buffers of a pseudo-terminal can hold.
MANY = 10_000
# A damaged length hides the command that follows, until the program has been silent for a moment.
HALF_A_FRAME = SYNC + b"\x16\xa0\xc8"
FLOODS = {
    "garbage": bytes(MANY),
    "readings": frame(READ) * (MANY // len(frame(READ))),
    "half a frame": bytes(MANY - len(HALF_A_FRAME)) + HALF_A_FRAME,
}

Open = Callable[[str], int]


@pytest.fixture(autouse=True)
def look_up_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread takes no virtual time."""

    async def look_up(_: asyncio.AbstractEventLoop, host: str, port: int, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)  # the host is a number

    monkeypatch.setattr(VirtualTimeLoop, "getaddrinfo", look_up)


def slowly(controller: StampingController, request: Request) -> Replies:
    return [(0.06, controller.execute(request))]


def over_tcp(url: str) -> int:
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port))).detach()


def on_a_terminal(url: str) -> int:
    return os.open(url.removeprefix("serial://"), os.O_RDWR | os.O_NOCTTY)


class Line:
    """One program on a shared controller. It writes as the system allows, and reads nothing."""

    def __init__(self, controller: StampingController, sharing: Sharing, program: int) -> None:
        self.controller = controller
        self.sharing = sharing
        self.program = program

    def send(self, data: bytes) -> None:
        os.set_blocking(self.program, False)
        assert os.write(self.program, data) == len(data)

    def executed(self) -> list[bytes]:
        return [request.data for request in self.controller.executed if request.command == LOAD]

    def leave(self) -> None:
        os.close(self.program)
        self.program = -1


@asynccontextmanager
async def sharing_with(open_program: Open) -> AsyncIterator[Line]:
    options: dict[str, Any] = {"timeout": 0.4, "retries": 1, "fence": 0.25}
    with timer_line(slowly) as (controller, url), TemporaryDirectory() as folder:
        place = "127.0.0.1:0" if open_program is over_tcp else f"pty:{folder}/link"
        async with TracerClient(url, **options) as client, share(client, place) as sharing:
            line = Line(controller, sharing, open_program(sharing.urls[0]))
            await asyncio.sleep(1.0)
            try:
                yield line
            finally:
                if line.program >= 0:
                    line.leave()
                await asyncio.sleep(0.1)


both = pytest.mark.parametrize("open_program", [over_tcp, on_a_terminal], ids=["tcp", "pty"])


@both
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@virtual_time
async def test_a_command_that_was_read_after_its_program_gave_up_is_not_executed(
    open_program: Open, flood: bytes
) -> None:
    async with sharing_with(open_program) as line:
        line.send(flood + ON)
        await asyncio.sleep(10.0)
        before = line.sharing.stats.requests
        assert before > 0  # it was read
        assert line.executed() == []
        # The next command is no older than its arrival.
        line.send(OFF)
        await asyncio.sleep(1.0)
        assert line.executed() == [b"\x00"]
        assert line.sharing.stats.requests == before + 1


@both
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@virtual_time
async def test_a_command_whose_program_gave_up_and_left_is_not_executed(open_program: Open, flood: bytes) -> None:
    async with sharing_with(open_program) as line:
        line.send(flood + ON)
        await asyncio.sleep(1.0)
        line.leave()
        await asyncio.sleep(10.0)
        assert line.sharing.stats.programs == 0
        assert line.executed() == []


@both
@virtual_time
async def test_a_command_that_waited_during_a_stop_and_a_pause_counts_from_before_both(open_program: Open) -> None:
    async with sharing_with(open_program) as line:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        line.send(bytes(5000) + ON)
        loop._virtual.now += 0.6  # the process is stopped. To read all takes 0.5 s more
        await asyncio.sleep(10.0)
        assert line.sharing.stats.requests == 1
        assert line.executed() == []


@both
@virtual_time
async def test_a_command_that_waited_while_the_process_was_stopped_during_a_pause_is_not_executed(
    open_program: Open,
) -> None:
    async with sharing_with(open_program) as line:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        line.send(bytes(6000) + ON)
        await asyncio.sleep(0.45)
        loop._virtual.now += 0.4  # the process is stopped. To read the rest takes less than 0.2 s more
        await asyncio.sleep(10.0)
        assert line.sharing.stats.requests == 1
        assert line.executed() == []


@both
@virtual_time
async def test_a_command_after_a_flood_that_filled_the_last_read_is_executed(open_program: Open) -> None:
    async with sharing_with(open_program) as line:
        line.send(bytes(8192))
        await asyncio.sleep(10.0)
        line.send(ON)
        await asyncio.sleep(1.0)
        assert line.executed() == [b"\x01"]


@both
@virtual_time
async def test_a_command_that_was_read_within_its_time_is_executed_although_reading_paused(open_program: Open) -> None:
    async with sharing_with(open_program) as line:
        line.send(bytes(4000) + ON)
        await asyncio.sleep(0.7)
        assert line.executed() == [b"\x01"]


@both
@virtual_time
async def test_a_command_that_was_sent_during_the_last_pause_is_executed(open_program: Open) -> None:
    async with sharing_with(open_program) as line:
        line.send(OFF)
        await asyncio.sleep(1.0)
        line.send(bytes(MANY))
        await asyncio.sleep(MANY / 8192 - 0.15)  # the last bytes are read, and reading is paused
        line.send(ON)
        await asyncio.sleep(1.0)
        assert line.executed() == [b"\x00", b"\x01"]
