"""A listener in a program that blocks its event loop while a reply comes."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable

import pytest

from tests.promise.stamping_controller import READ, frame, realtime
from tests.sharing.listened_line import ASKED, IS_OFF, SWITCHED_OFF, bytes_of
from tests.sharing.wires import Wire, next_of
from tests.sharing.wires import wires as wires_fixture
from tracer_async.sharing import Listener

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
wires = wires_fixture

REPLY = frame(READ, realtime(1))


def reads_first() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def timers_first() -> asyncio.AbstractEventLoop:
    """An event loop that runs timers before it reads, if it was blocked while it read."""
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


async def heard(listener: Listener, frames: int) -> None:
    async with asyncio.timeout(10):
        while sum(stats.frames for stats in listener.stats) < frames:  # no event tells it
            await asyncio.sleep(0)


async def blocked(meanwhile: Callable[[], None]) -> None:
    """Block the event loop for 0.4 s while it reads. Call *meanwhile* at the beginning."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    bell, rung = socket.socketpair()

    def block() -> None:
        loop.remove_reader(rung)
        meanwhile()
        time.sleep(0.4)
        done.set()

    with bell, rung:
        loop.add_reader(rung, block)
        bell.send(b"!")
        await done.wait()


@pytest.mark.parametrize("loop", [reads_first, timers_first])
@pytest.mark.parametrize("split", [False, True], ids=["shared", "split"])
@pytest.mark.parametrize(
    ("asked", "replied", "reply"),
    [(ASKED, REPLY, REPLY), (ASKED, b"\x00\xff\xeb" + REPLY, REPLY), (SWITCHED_OFF, IS_OFF, IS_OFF)],
    ids=["reading", "noise", "load"],
)
def test_a_reply_that_came_in_time_and_was_read_late_answers_its_request(
    asked: bytes,
    replied: bytes,
    reply: bytes,
    split: bool,
    loop: Callable[[], asyncio.AbstractEventLoop],
    wires: list[Wire],
) -> None:
    asking, replying = wires if split else wires[:1] * 2

    async def listen() -> None:
        async with Listener(*dict.fromkeys((asking.url, replying.url))) as listener:
            exchanges = aiter(listener)
            asking.carry(ASKED)
            replying.carry(REPLY)
            assert bytes_of(await next_of(exchanges)) == (ASKED, REPLY)
            asking.carry(asked)
            await heard(listener, 3)
            await blocked(lambda: replying.carry(replied))
            exchange = await next_of(exchanges)
            assert bytes_of(exchange) == (asked, reply)
            assert exchange.age > 0.4 - 1e-6  # a difference of floats is rounded

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(listen())


async def test_an_unanswered_request_and_the_next_exchange_are_not_mixed_up(wires: list[Wire]) -> None:
    async with Listener(wires[0].url) as listener:
        exchanges = aiter(listener)
        wires[0].carry(ASKED)
        await heard(listener, 1)
        await blocked(lambda: None)
        wires[0].carry(ASKED + REPLY)
        assert [bytes_of(await next_of(exchanges)) for _ in range(2)] == [(ASKED, None), (ASKED, REPLY)]
