"""A listener beside a meter and a controller on a damaged line, in virtual time. Judged by what the two have sent.

The line shares no code with the library. Each request has a number, its controller ID, and each reading has a number.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.promise.stamping_controller import LOAD, READ, SETTINGS, SYNC, checksum, frame, realtime
from tests.promise.virtual_time import run_virtual, virtual_time
from tracer_async import AddressError, LinkFloodedError
from tracer_async.sharing import Listener, ObservedExchange

BYTE_TIME = 10 / 9600

ASKED = bytes.fromhex("EB90EB90EB9001A00103BDBB7F")
SWITCHED_OFF = bytes.fromhex("EB90EB90EB9016AA0100FCC97F")

READINGS = ((READ, b""), (READ, b"\x03"))
KINDS = (*READINGS, (READ, b""), (LOAD, b"\x01"), (LOAD, b"\x00"), (SETTINGS, bytes(7)))


Kinds = tuple[tuple[int, bytes], ...]


class Sent(NamedTuple):
    """One exchange, as the meter and the controller know it. A frame is None if it was damaged or not sent."""

    request: bytes | None
    reply: bytes | None
    delay: float


class Wires:
    """What the listener's ports are connected to, and what was written to them."""

    def __init__(self, count: int) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.written = 0
        self.connected = asyncio.Event()
        self._count = count

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        if len(self.writers) == self._count:
            self.connected.set()
        self.written += len(await reader.read())
        writer.close()


@asynccontextmanager
async def listening(folder: Path, *, split: bool) -> AsyncIterator[tuple[Wires, Listener]]:
    wires = Wires(1 + split)
    async with await asyncio.start_unix_server(wires.serve, folder / "wire"):
        async with Listener(*[f"unix:{folder}/wire"] * (1 + split)) as listener:
            await wires.connected.wait()
            yield wires, listener
        for _ in range(20):  # the end of the connections is read
            await asyncio.sleep(0)
        assert wires.written == 0


class Line:
    """Carries the frames of the meter and of the controller, as slowly as 9600 baud, and damages some of them."""

    def __init__(self, wires: Wires, chance: random.Random, damage: float, kinds: Kinds = KINDS) -> None:
        self._to_controller, self._to_meter = wires.writers[0], wires.writers[-1]
        self._chance = chance
        self._damage = damage
        self._kinds = kinds
        self._number = 0
        self.sent: list[Sent] = []

    async def exchange(self) -> None:
        chance = self._chance
        self._number += 1
        command, data = chance.choice(self._kinds)
        body = bytes((self._number % 256, command, len(data))) + data
        asked = SYNC + body + checksum(body).to_bytes(2, "big") + b"\x7f"
        start_up = b"\xaa\x55" * 3 if chance.random() < 0.5 else b""
        request = await self._carry(self._to_controller, asked, start_up)
        reply, delay = None, chance.uniform(0.002, 0.1)
        if chance.random() > self._damage:  # the controller has not missed the request
            await asyncio.sleep(delay)
            answer = realtime(self._number) if command == READ else data if command == LOAD else b""
            stray = chance.choice((b"", b"", b"\xeb", b"\x90", b"\x00\xff"))
            replied = frame(command, answer)
            delay += BYTE_TIME * len(stray + replied)
            reply = await self._carry(self._to_meter, replied, stray)
        self.sent.append(Sent(request, reply, delay))

    async def _carry(self, writer: asyncio.StreamWriter, good: bytes, before: bytes) -> bytes | None:
        """Send a frame in bursts. Return it, or None if it was damaged."""
        chance = self._chance
        carried = before + good
        if chance.random() < self._damage:
            at = len(before) + chance.randrange(len(good))
            instead = (bytes((carried[at] ^ (1 << chance.randrange(8)),)), b"", carried[at : at + 1] * 2)
            carried = carried[:at] + chance.choice(instead) + carried[at + 1 :]
        is_good = good in carried
        while carried:
            size = chance.randint(1, 40)
            burst, carried = carried[:size], carried[size:]
            await asyncio.sleep(BYTE_TIME * len(burst))
            writer.write(burst)
        return good if is_good else None


def expected(sent: list[Sent]) -> list[tuple[bytes | None, bytes | None]]:
    return [(each.request, each.reply) for each in sent if each.request or each.reply]


def bytes_of(exchange: ObservedExchange) -> tuple[bytes | None, bytes | None]:
    asked, replied = exchange.request, exchange.reply
    return asked and asked.encode(start_up=False), replied and replied.encode(start_up=False)


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
        found = [exchange async for exchange in exchanges]
        assert [bytes_of(exchange) for exchange in found] == expected(line.sent)
        paired = [each for each in line.sent if each.request and each.reply]
        delays = [exchange.delay for exchange in found if exchange.delay is not None]
        assert delays == pytest.approx([each.delay for each in paired], abs=2 * BYTE_TIME)

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
        wires.writers[0].write(ASKED)
        wires.writers[0].write(frame(READ, realtime(1)))
        time.sleep(0.3)  # noqa: ASYNC251  # blocks the event loop
        reading = await anext(readings)
        assert 0.3 <= reading.age < math.inf


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
