"""A listener beside a meter and a controller on a damaged line, in virtual time. Judged by what the two have sent."""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.promise.stamping_controller import LOAD, READ, frame, realtime
from tests.promise.virtual_time import run_virtual, virtual_time
from tests.sharing.listened_line import (
    ASKED,
    BYTE_TIME,
    KINDS,
    READINGS,
    SWITCHED_OFF,
    Line,
    bytes_of,
    check_pairs,
    expected,
    listening,
)
from tracer_async import AddressError, LinkFloodedError
from tracer_async.sharing import Listener


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("damage", [0.0, 0.05], ids=["good", "damaged"])
@pytest.mark.parametrize("split", [False, True], ids=["shared", "split"])
def test_every_exchange_is_paired_and_none_is_invented(split: bool, damage: float, seed: int, tmp_path: Path) -> None:
    async def listen() -> None:
        chance = random.Random(seed)
        async with listening(tmp_path, split=split) as (wires, listener):
            exchanges = aiter(listener)
            line = Line(wires, chance, damage)
            for _ in range(300):
                await line.exchange()
                await asyncio.sleep(chance.uniform(0.5, 1.0))
            await asyncio.sleep(1.0)
        check_pairs([exchange async for exchange in exchanges], line.sent)

    run_virtual(listen)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("split", [False, True], ids=["shared", "split"])
def test_a_program_that_polls_without_a_pause_is_paired_as_well(split: bool, seed: int, tmp_path: Path) -> None:
    """On one wire only readings: who has sent AA is not known if the frame before it was damaged."""

    async def listen() -> None:
        chance = random.Random(seed)
        async with listening(tmp_path, split=split) as (wires, listener):
            exchanges = aiter(listener)
            line = Line(wires, chance, 0.05, KINDS if split else READINGS)
            for _ in range(300):
                await line.exchange()
                if line.sent[-1].reply is None:  # it has waited for the reply
                    await asyncio.sleep(1.0)
            await asyncio.sleep(1.0)
        assert [bytes_of(exchange) async for exchange in exchanges] == expected(line.sent)

    run_virtual(listen)


@virtual_time
async def test_the_age_of_a_reading_covers_its_request(tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        await asyncio.sleep(1.0)  # virtual. What comes earlier can have waited in the bridge
        readings = listener.readings()
        line = Line(wires, random.Random(1), 0.0, READINGS)
        for _ in range(50):
            await line.exchange()
            reading = await anext(readings)
            assert line.sent[-1].delay - BYTE_TIME <= reading.age < line.sent[-1].delay + 0.2
            await asyncio.sleep(1.0)


async def test_bytes_that_waited_unread_in_a_blocked_program_are_not_taken_for_new(tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        readings = listener.readings()
        async with asyncio.timeout(10):
            age = math.inf
            while age == math.inf:  # at first it can have waited in the bridge
                wires.writers[0].write(ASKED + frame(READ, realtime(1)))
                age = (await anext(readings)).age
        wires.writers[0].write(ASKED)
        wires.writers[0].write(frame(READ, realtime(1)))
        time.sleep(0.3)  # noqa: ASYNC251  # blocks the event loop
        reading = await anext(readings)
        assert 0.3 <= reading.age < math.inf


@virtual_time
async def test_what_a_bridge_sends_at_once_after_it_was_connected_has_no_age(tmp_path: Path) -> None:
    # The bridge may have kept it since any time.
    async with listening(tmp_path, split=False) as (wires, listener):
        readings = listener.readings()
        for _ in range(2):
            wires.writers[0].write((ASKED + frame(READ, realtime(1))) * 2)
            assert [(await anext(readings)).age for _ in range(2)] == [math.inf] * 2
            await asyncio.sleep(1.0)
            wires.writers[0].write(ASKED + frame(READ, realtime(1)))
            assert (await anext(readings)).age < 0.2
            wires.connected.clear()
            wires.writers.pop().close()
            await wires.connected.wait()


@virtual_time
async def test_a_reply_without_its_request_has_no_age(tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        readings = listener.readings()
        wires.writers[0].write(ASKED)
        await asyncio.sleep(1.0)
        wires.writers[0].write(frame(READ, realtime(1)))
        assert (await anext(readings)).age == math.inf


@virtual_time
async def test_a_connection_that_is_lost_is_opened_again(tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        exchanges = aiter(listener)
        for _ in range(3):
            wires.connected.clear()
            wires.writers.pop().close()
            await wires.connected.wait()
            wires.writers[0].write(ASKED + frame(READ, realtime(1)))
            exchange = await anext(exchanges)
            assert bytes_of(exchange) == (ASKED, frame(READ, realtime(1)))


@virtual_time
async def test_each_opening_of_a_port_is_counted(tmp_path: Path) -> None:
    async with listening(tmp_path, split=True) as (wires, listener):
        exchanges = aiter(listener)
        assert listener.links == (1, 1)
        for number in range(2, 5):
            wires.connected.clear()
            wires.writers.pop(0).close()
            await wires.connected.wait()
            wires.writers[-1].write(ASKED + frame(READ, realtime(1)))
            await anext(exchanges)
            assert sum(listener.links) == number + 1


@virtual_time
async def test_the_frames_before_and_after_a_loss_are_not_joined(tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        exchanges = aiter(listener)
        wires.writers[0].write(ASKED[:9])
        await asyncio.sleep(0)
        wires.connected.clear()
        wires.writers.pop().close()
        await wires.connected.wait()
        wires.writers[0].write(ASKED[9:] + ASKED)
        assert bytes_of(await anext(exchanges)) == (ASKED, None)
        await asyncio.sleep(1.0)
    assert [exchange async for exchange in exchanges] == []


@virtual_time
async def test_what_nobody_fetches_is_dropped_and_counted(tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        exchanges = aiter(listener)
        for _ in range(50):
            wires.writers[0].write((ASKED + frame(READ, realtime(1))) * 100)
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)
        assert listener.dropped == 5000 - 4096
    assert len([exchange async for exchange in exchanges]) == 4096


@virtual_time
async def test_a_flood_of_requests_is_reported_request_by_request(tmp_path: Path) -> None:
    async with listening(tmp_path, split=False) as (wires, listener):
        exchanges = aiter(listener)
        wires.writers[0].write(ASKED * 1000)
        await asyncio.sleep(1.0)
    assert [bytes_of(exchange) async for exchange in exchanges] == [(ASKED, None)] * 1000


async def test_a_flood_of_good_frames_ends_the_connection_and_leaves_the_event_loop_free() -> None:
    exchange = (ASKED + frame(READ, realtime(1))) * 500

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while not writer.is_closing():
                writer.write(exchange)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(20), Listener(url) as listener:
            while not isinstance(listener.errors[0], LinkFloodedError):
                await asyncio.sleep(0.01)
            server.close()


@virtual_time
async def test_a_reply_that_has_lost_its_id_is_a_damaged_one(tmp_path: Path) -> None:
    """The CRC of the reply to "load off" does not cover its ID, 0."""
    replied = frame(LOAD, b"\x00")
    async with listening(tmp_path, split=False) as (wires, listener):
        exchanges = aiter(listener)
        wires.writers[0].write(SWITCHED_OFF + replied[:6] + replied[7:])
        await asyncio.sleep(1.0)
    assert [bytes_of(exchange) async for exchange in exchanges] == [(SWITCHED_OFF, None)]


@pytest.mark.parametrize("urls", [("sim:",), ("/dev/ttyUSB0", "sim:?seed=3")], ids=["one", "two"])
def test_nobody_can_listen_to_a_simulator_within_the_process(urls: tuple[str, ...]) -> None:
    with pytest.raises(AddressError, match="sim:"):
        Listener(*urls)
