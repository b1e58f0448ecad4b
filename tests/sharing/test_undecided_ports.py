"""A listener on two ports before it is known which one carries the requests, in virtual time."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.promise.stamping_controller import READ, frame, realtime
from tests.promise.virtual_time import run_virtual, virtual_time
from tests.sharing.listened_line import (
    ASKED,
    IS_OFF,
    READINGS,
    SWITCHED_OFF,
    SWITCHINGS,
    Line,
    bytes_of,
    check_pairs,
    listening,
)
from tracer_async.capture import Recorder, Recording


@pytest.mark.parametrize("seed", range(20))
def test_load_commands_before_the_first_reading_are_paired_as_those_after_it(seed: int, tmp_path: Path) -> None:
    async def listen() -> None:
        chance = random.Random(seed)
        async with listening(tmp_path, split=True) as (wires, listener):
            exchanges = aiter(listener)
            wires.writers[chance.randrange(2)].write(bytes(chance.randrange(100)))
            await asyncio.sleep(chance.uniform(0.5, 30.0))
            line = Line(wires, chance, 0.3, SWITCHINGS)
            for _ in range(7):
                await line.exchange()
                await asyncio.sleep(chance.uniform(0.5, 1.0))
            line.damage, line.kinds = 0.0, READINGS
            await line.exchange()
            await asyncio.sleep(1.0)
        check_pairs([exchange async for exchange in exchanges], line.sent)

    run_virtual(listen)


@virtual_time
async def test_a_reply_of_which_only_the_request_is_missing_waits_for_the_first_reading(tmp_path: Path) -> None:
    """Neither its bytes nor its time shows that it is a reply. Its port does."""
    async with listening(tmp_path, split=True) as (wires, listener):
        exchanges = aiter(listener)
        wires.writers[1].write(IS_OFF)
        await asyncio.sleep(1.0)
        wires.writers[0].write(SWITCHED_OFF)
        await asyncio.sleep(1.0)
        wires.writers[0].write(ASKED)
        await asyncio.sleep(1.0)
    assert [bytes_of(exchange) async for exchange in exchanges] == [(None, IS_OFF), (SWITCHED_OFF, None), (ASKED, None)]


@virtual_time
async def test_without_any_reading_load_commands_are_reported_after_10_s_and_then_at_once(tmp_path: Path) -> None:
    async with listening(tmp_path, split=True) as (wires, listener):
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def report() -> list[tuple[tuple[bytes | None, bytes | None], float]]:
            return [(bytes_of(exchange), loop.time() - begun) async for exchange in listener]

        reporting = asyncio.create_task(report())
        for at in (0.0, 9.97, 20.0, 30.0):
            await asyncio.sleep(begun + at - loop.time())
            wires.writers[0].write(SWITCHED_OFF)
            await asyncio.sleep(0.05)
            wires.writers[1].write(IS_OFF)
        await asyncio.sleep(1.0)
    reported = await reporting
    assert [exchange for exchange, _ in reported] == [(SWITCHED_OFF, IS_OFF)] * 4
    assert [at for _, at in reported] == pytest.approx([10.0, 10.02, 20.05, 30.05], abs=0.01)


@virtual_time
async def test_what_waits_for_the_first_reading_is_reported_when_the_listener_is_closed(tmp_path: Path) -> None:
    async with listening(tmp_path, split=True) as (wires, listener):
        exchanges = aiter(listener)
        for reply in (IS_OFF, b""):
            wires.writers[0].write(SWITCHED_OFF)
            await asyncio.sleep(0.05)
            wires.writers[1].write(reply)
            await asyncio.sleep(1.0)
    assert [bytes_of(exchange) async for exchange in exchanges] == [(SWITCHED_OFF, IS_OFF), (SWITCHED_OFF, None)]


@virtual_time
async def test_a_flood_of_load_commands_does_not_wait_for_a_reading(tmp_path: Path) -> None:
    async with listening(tmp_path, split=True) as (wires, listener):
        exchanges = aiter(listener)
        for _ in range(50):
            wires.writers[0].write(SWITCHED_OFF * 10)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(1.0):
            await anext(exchanges)


@virtual_time
async def test_a_recording_tells_who_sent_what_came_before_the_first_reading(tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    reading = frame(READ, realtime(1))
    recorder = Recorder(path)
    async with listening(tmp_path, split=True, recorder=recorder) as (wires, _):
        sent = []
        for sender, data in ((1, IS_OFF), (1, b"\x00" * 9), (0, SWITCHED_OFF), (0, ASKED), (1, reading)):
            wires.writers[sender].write(data)
            sent.append(("controller" if sender else "client", data))
            await asyncio.sleep(2.0)
    recorder.close()  # in real time
    bursts = Recording.read(path).bursts
    assert [(burst.sender, burst.data) for burst in bursts] == sent
    assert [burst.t for burst in bursts] == pytest.approx([0, 2, 4, 6, 8], abs=0.3)
    # The time of day is when it came, too, and not when the first reading came. That clock is not the virtual one.
    times = [burst.time or 0.0 for burst in bursts[:4]]
    assert [time - times[3] for time in times] == pytest.approx([-6, -4, -2, 0], abs=0.9)
