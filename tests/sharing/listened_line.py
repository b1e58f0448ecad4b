"""A meter, a controller and a damaged line between them, in virtual time. A listener hears it, and is judged by it.

The line shares no code with the library. Each request has a number, its controller ID, and each reading has a number.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.promise.stamping_controller import LOAD, READ, SETTINGS, SYNC, checksum, frame, realtime
from tracer_async.capture import Recorder
from tracer_async.sharing import Listener, ObservedExchange

BYTE_TIME = 10 / 9600

ASKED = bytes.fromhex("EB90EB90EB9001A00103BDBB7F")
SWITCHED_OFF = bytes.fromhex("EB90EB90EB9016AA0100FCC97F")
IS_OFF = bytes.fromhex("EB90EB90EB9000AA01005DDB7F")

READINGS = ((READ, b""), (READ, b"\x03"))
SWITCHINGS = ((LOAD, b"\x01"), (LOAD, b"\x00"))
KINDS = (*READINGS, (READ, b""), *SWITCHINGS, (SETTINGS, bytes(7)))


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
async def listening(
    folder: Path, *, split: bool, recorder: Recorder | None = None
) -> AsyncIterator[tuple[Wires, Listener]]:
    wires = Wires(1 + split)
    async with await asyncio.start_unix_server(wires.serve, folder / "wire"):
        async with Listener(*[f"unix:{folder}/wire"] * (1 + split), recorder=recorder) as listener:
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
        self.damage = damage
        self.kinds = kinds
        self._number = 0
        self.sent: list[Sent] = []

    async def exchange(self) -> None:
        chance = self._chance
        self._number += 1
        command, data = chance.choice(self.kinds)
        body = bytes((self._number % 256, command, len(data))) + data
        asked = SYNC + body + checksum(body).to_bytes(2, "big") + b"\x7f"
        start_up = b"\xaa\x55" * 3 if chance.random() < 0.5 else b""
        request = await self._carry(self._to_controller, asked, start_up)
        reply, delay = None, chance.uniform(0.002, 0.1)
        if chance.random() > self.damage:  # the controller has not missed the request
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
        if chance.random() < self.damage:
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


def check_pairs(found: list[ObservedExchange], sent: list[Sent]) -> None:
    """Check that each exchange is as the meter and the controller know it, and that there is no other one."""
    assert [bytes_of(exchange) for exchange in found] == expected(sent)
    paired = [each for each in sent if each.request and each.reply]
    delays = [exchange.delay for exchange in found if exchange.delay is not None]
    assert delays == pytest.approx([each.delay for each in paired], abs=2 * BYTE_TIME)
