"""Round trips over loopback TCP: one request at a time, as many a second as can be; both ends on one core.

``--contender NAME --loop LOOP --port PORT SECONDS`` measures one of them in this process; a responder has to run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from subprocess import Popen
from typing import Any, NamedTuple, cast

from benchmarks.measure import (
    FRESH,
    Effort,
    Spread,
    child,
    end,
    has,
    heard,
    interleaved,
    pin,
    python_with,
    ratios,
    run_loop,
    say,
    settle_malloc,
    why_without,
)
from benchmarks.page import Row, Table, Target, main
from benchmarks.replies import REGISTERS, REPLY_SIZE, REQUEST
from tracer_async import TracerClient
from tracer_async.protocol import FrameDecoder

COMMAND = "python -m benchmarks.round_trip"

PROJECT = "tracer_async, everything on"
RAW = "raw Protocol"

TripsFor = Callable[[float], Awaitable[int]]
"""Makes round trips for a time in seconds, and returns how many."""
Contender = Callable[[int], AbstractAsyncContextManager[TripsFor]]


def _asked_by(ask: Callable[[], Awaitable[object]]) -> TripsFor:
    async def trips(seconds: float) -> int:
        until = time.perf_counter() + seconds
        done = 0
        while time.perf_counter() < until:
            for _ in range(20):
                await ask()
            done += 20
        return done

    return trips


class _Raw(asyncio.Protocol):
    """Sends the next request as soon as anything comes: no parsing, no future, no clock."""

    def __init__(self) -> None:
        self.trips = 0
        self.going = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.go()

    def go(self) -> None:
        self.trips += 1
        if self.going:
            self._transport.write(REQUEST)


class _RawBuffered(asyncio.BufferedProtocol):
    """The same, into a buffer of its own."""

    def __init__(self) -> None:
        self.trips = 0
        self.going = True
        self._buffer = memoryview(bytearray(4096))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.go()

    def go(self) -> None:
        self.trips += 1
        if self.going:
            self._transport.write(REQUEST)


@asynccontextmanager
async def _raw(protocol: type[_Raw | _RawBuffered], port: int) -> AsyncIterator[TripsFor]:
    loop = asyncio.get_running_loop()
    made = protocol()
    transport, _ = await loop.create_connection(lambda: made, "127.0.0.1", port)

    async def trips(seconds: float) -> int:
        before = made.trips
        made.going = True
        made.go()
        await asyncio.sleep(seconds)
        made.going = False
        done = made.trips - before
        await asyncio.sleep(0.01)  # the last one is on its way
        return done

    with closing(transport):
        yield trips


@asynccontextmanager
async def _tracer(port: int) -> AsyncIterator[TripsFor]:
    async with TracerClient(f"tcp://127.0.0.1:{port}") as tracer:
        yield _asked_by(tracer.read_realtime)


@asynccontextmanager
async def _asyncio_streams(port: int) -> AsyncIterator[TripsFor]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    decoder = FrameDecoder()

    async def ask() -> None:
        writer.write(REQUEST)
        while not decoder.feed(await reader.read(4096)):
            pass

    with closing(writer):
        yield _asked_by(ask)


@asynccontextmanager
async def _anyio_streams(port: int) -> AsyncIterator[TripsFor]:
    import anyio

    decoder = FrameDecoder()
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:

        async def ask() -> None:
            await stream.send(REQUEST)
            while not decoder.feed(await stream.receive(4096)):
                pass

        yield _asked_by(ask)


@asynccontextmanager
async def _pymodbus(port: int) -> AsyncIterator[TripsFor]:
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    assert await client.connect()

    async def ask() -> None:
        answer = await client.read_holding_registers(0, count=REGISTERS)
        assert len(answer.registers) == REGISTERS

    with closing(client):
        yield _asked_by(ask)


@asynccontextmanager
async def _tmodbus(port: int) -> AsyncIterator[TripsFor]:
    from tmodbus import create_async_tcp_client  # type: ignore[import-not-found,unused-ignore]  # needs Python 3.12

    client = create_async_tcp_client("127.0.0.1", port, unit_id=1)
    async with client:

        async def ask() -> None:
            assert len(await client.read_holding_registers(0, REGISTERS)) == REGISTERS

        yield _asked_by(ask)


CONTENDERS: dict[str, tuple[Contender, str]] = {
    RAW: (partial(_raw, _Raw), "tracer_async"),
    "raw BufferedProtocol": (partial(_raw, _RawBuffered), "tracer_async"),
    PROJECT: (_tracer, "tracer_async"),
    "asyncio streams and FrameDecoder": (_asyncio_streams, "tracer_async"),
    "anyio streams and FrameDecoder": (_anyio_streams, "anyio"),
    "pymodbus": (_pymodbus, "pymodbus"),
    "tmodbus": (_tmodbus, "tmodbus"),
}
"""With the package that each needs."""


STATES = ("fresh", "settled")


class Case(NamedTuple):
    """A contender, and what it runs on."""

    name: str
    loop: str
    state: str
    python: str


class Trips(NamedTuple):
    """What one contender did in one process."""

    rate: float
    """Round trips a second."""
    cpu: float
    """Microseconds of the contender's own CPU, each."""


async def _measure(name: str, port: int, seconds: float) -> Trips:
    settle_malloc()
    async with CONTENDERS[name][0](port) as trips:
        await trips(seconds / 5)
        begun, used = time.perf_counter(), time.process_time()
        done = await trips(seconds)
        return Trips(done / (time.perf_counter() - begun), 1e6 * (time.process_time() - used) / done)


class Bench:
    """Keeps a responder for each loop, state and Python, and measures contenders against it, each in a new process."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._responders: dict[tuple[str, str, str], tuple[Popen[str], int]] = {}

    def measure(self, case: Case) -> Trips:
        """Measure one case once."""
        env = FRESH if case.state == "fresh" else {}
        key = case[1:]
        if key not in self._responders:
            responder = child("responder", case.loop, 0, python=case.python, env=env)
            self._responders[key] = responder, heard(responder)
        arguments = ("--contender", case.name, "--loop", case.loop, "--port", self._responders[key][1], self._seconds)
        contender = child("round_trip", *arguments, python=case.python, env=env)
        try:
            return Trips(*heard(contender))
        finally:
            end(contender)

    def close(self) -> None:
        """End the responders."""
        for responder, _ in self._responders.values():
            end(responder)


def cases(names: Iterable[str]) -> tuple[list[Case], list[str]]:
    """Return what can be measured here, and why the rest cannot."""
    found: list[Case] = []
    notes = [] if has("uvloop") else [f"uvloop: {why_without('uvloop')}."]
    for name in names:
        package = CONTENDERS[name][1]
        python = python_with(package)
        if python is None:
            notes.append(f"{name}: {why_without(package)}.")
            continue
        # A newer Python is faster by itself: whoever needs one is compared with the project on the same one.
        together = (name,) if python == sys.executable else (name, RAW, PROJECT)
        found += [Case(each, "asyncio", state, python) for each in together for state in STATES]
        if package == "tmodbus":
            notes.append("tmodbus is not measured on uvloop: it checks its transport's class, and refuses uvloop's.")
        elif has("uvloop"):
            # uvloop reads into a buffer that it keeps: it has but one state.
            found.append(Case(name, "uvloop", "settled", python))
    return found, notes


def run(effort: Effort) -> Row:
    """Measure all of them."""
    everybody = tuple(CONTENDERS)
    found, notes = cases(effort.pick(everybody, everybody, (RAW, PROJECT, "pymodbus", "tmodbus")))
    bench = Bench(effort.pick(1.0, 0.25, 0.02))
    try:
        results = interleaved({case: partial(bench.measure, case) for case in found}, effort.pick(7, 2, 1))
    finally:
        bench.close()
    return Row(
        "Round trip",
        COMMAND,
        f"A request of {len(REQUEST)} bytes, a reply of {REPLY_SIZE} ({REGISTERS} registers for the Modbus clients, "
        "which is as much data), the next request; loopback TCP. The responder is a bare Protocol on the same kind of "
        "event loop in a process of its own; both are pinned to one core, so the responder's time and the kernel's are "
        "part of the rate, and the CPU of the contender's own process stands beside it. Each repeat of each contender "
        "is a fresh process. On asyncio both states of malloc are measured, in both processes: *fresh* and *settled*, "
        "see [above](#two-states-of-a-process); on uvloop they do not differ. Ratios are taken on the same loop, in "
        "the same state and on the same Python.",
        _targets(results),
        [_table(results)],
        notes,
    )


def _table(results: dict[Case, list[Trips]]) -> Table:
    rows = []
    for case, taken in results.items():
        rates = [trips.rate for trips in taken]
        raw = [trips.rate for trips in results[case._replace(name=RAW)]]
        rows.append(
            (
                case.name if case.python == sys.executable else f"{case.name} (newer Python)",
                case.loop,
                case.state,
                Spread.of(rates).text(),
                ratios(rates, raw).text("{:.2f}"),
                Spread.of(trips.cpu for trips in taken).text("{:.1f}"),
            )
        )
    columns = ("contender", "loop", "malloc", "round trips a second", "of the raw Protocol", "µs of its CPU each")
    return Table("", columns, rows)


# On each loop: how many times whose rate is to be reached.
WANTED = (
    (RAW, "asyncio", 1.0),
    (RAW, "uvloop", 0.55),
    ("pymodbus", "asyncio", 2.2),
    ("pymodbus", "uvloop", 1.9),
    ("tmodbus", "asyncio", 3.0),
)


def _targets(results: dict[Case, list[Trips]]) -> list[Target]:
    targets = []
    for peer, loop, wanted in WANTED:
        against = [case for case in results if case[:2] == (peer, loop)]
        if peer == RAW:
            against = [case for case in against if case.python == sys.executable]
        texts = []
        met: bool | None = None
        for case in against:
            ours = [trips.rate for trips in results[case._replace(name=PROJECT)]]
            reached = ratios(ours, [trips.rate for trips in results[case]])
            texts.append(f"{reached.text('{:.2f}')} {case.state}")
            met = reached.median >= wanted and met is not False
        targets.append(Target(f"rate on {loop} over that of {peer}", f"at least {wanted:g}", "; ".join(texts), met))
    return targets


def _command_line() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--contender", required=True)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    pin(0)
    call: Callable[[], Any] = partial(_measure, options.contender, options.port, options.seconds)
    say(run_loop(call, options.loop))
    return 0


if __name__ == "__main__":
    sys.exit(_command_line() if "--contender" in sys.argv else main(run))
