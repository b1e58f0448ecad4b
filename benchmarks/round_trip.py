"""Round trips over loopback TCP: one request at a time, as many per second as possible, both ends on one core.

``--contender NAME --loop LOOP --port PORT`` is one of them in this process: it makes round trips for as many seconds as
each line of its input says. A responder has to run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing
from functools import partial
from subprocess import Popen
from typing import NamedTuple, cast

from benchmarks.contenders import Ask, Contenders, available, label, pymodbus_client, start, tmodbus_client
from benchmarks.measure import FRESH, Effort, Spread, has, heard, interleaved, ratios, running, say, settle_malloc, tell
from benchmarks.page import Row, Table, Target
from benchmarks.replies import REGISTERS, REPLY_SIZE, REQUEST
from tracer_async import TracerClient
from tracer_async.protocol import FrameDecoder

COMMAND = "python -m benchmarks.round_trip"

PROJECT = "tracer_async, everything on"
RAW = "raw Protocol"

TripsFor = Callable[[float], Awaitable[tuple[int, float]]]
"""Makes round trips for about so many seconds, and returns how many, and in how many seconds."""
Contender = Callable[[int], AbstractAsyncContextManager[TripsFor]]


def _asked_by(ask: Ask) -> TripsFor:
    async def trips(seconds: float) -> tuple[int, float]:
        begun = time.perf_counter()
        done = 0
        while (taken := time.perf_counter() - begun) < seconds:
            for _ in range(20):
                await ask()
            done += 20
        return done, taken

    return trips


class _PingPong(asyncio.BaseProtocol):
    """Sends the next request as soon as anything comes: no parsing, no future, no clock."""

    def __init__(self) -> None:
        self.trips = 0
        self.going = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def go(self) -> None:
        self.trips += 1
        if self.going:
            self._transport.write(REQUEST)


class _Raw(_PingPong, asyncio.Protocol):
    """It takes what the event loop has read."""

    def data_received(self, data: bytes) -> None:
        self.go()


class _RawBuffered(_PingPong, asyncio.BufferedProtocol):
    """It gives the event loop a buffer to read into."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = memoryview(bytearray(4096))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.go()


@asynccontextmanager
async def _raw(protocol: type[_Raw | _RawBuffered], port: int) -> AsyncIterator[TripsFor]:
    loop = asyncio.get_running_loop()
    made = protocol()
    transport, _ = await loop.create_connection(lambda: made, "127.0.0.1", port)

    async def trips(seconds: float) -> tuple[int, float]:
        begun, before = time.perf_counter(), made.trips
        made.going = True
        made.go()
        await asyncio.sleep(seconds)
        made.going = False
        done, taken = made.trips - before, time.perf_counter() - begun
        await asyncio.sleep(0.01)  # the last one is on its way
        return done, taken

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
    async with pymodbus_client(port) as client:

        async def ask() -> None:
            answer = await client.read_holding_registers(0, count=REGISTERS)
            assert len(answer.registers) == REGISTERS

        yield _asked_by(ask)


@asynccontextmanager
async def _tmodbus(port: int) -> AsyncIterator[TripsFor]:
    async with tmodbus_client(port) as client:

        async def ask() -> None:
            assert len(await client.read_holding_registers(0, REGISTERS)) == REGISTERS

        yield _asked_by(ask)


CONTENDERS: Contenders[Contender] = {
    RAW: (partial(_raw, _Raw), "tracer_async"),
    "raw BufferedProtocol": (partial(_raw, _RawBuffered), "tracer_async"),
    PROJECT: (_tracer, "tracer_async"),
    "asyncio streams and FrameDecoder": (_asyncio_streams, "tracer_async"),
    "anyio streams and FrameDecoder": (_anyio_streams, "anyio"),
    "pymodbus": (_pymodbus, "pymodbus"),
    "tmodbus": (_tmodbus, "tmodbus"),
}

STATES = ("fresh", "settled")


class Case(NamedTuple):
    """A contender, and what it runs on."""

    name: str
    loop: str
    state: str
    python: str


class Trips(NamedTuple):
    """The result of one contender in one turn."""

    rate: float
    """Round trips a second."""
    cpu: float
    """Microseconds of the contender's own CPU, each."""


async def _contend(name: str, port: int) -> None:
    """Make round trips on request. In between, block, so that the other contenders have the core to themselves."""
    settle_malloc()
    async with CONTENDERS[name][0](port) as trips:
        say("ready")
        for line in sys.stdin:
            # uvloop's clock did not advance while this waited. Without one turn of the loop, all timeouts would expire.
            await asyncio.sleep(0.001)
            used = time.process_time()
            done, taken = await trips(json.loads(line))
            say(Trips(done / taken, 1e6 * (time.process_time() - used) / done))


def measured(cases: Iterable[Case], seconds: float, rounds: int) -> dict[Case, list[Trips]]:
    """Measure all of them, each in a fresh process, in many short turns.

    The machine's speed changes by half within seconds: only neighbours in time can be compared.
    """
    with ExitStack() as stack:

        def started(case: Case, module: str, *arguments: object) -> Popen[str]:
            env = FRESH if case.state == "fresh" else {}
            return stack.enter_context(running(module, *arguments, python=case.python, env=env))

        ports: dict[tuple[str, str, str], int] = {}
        contenders: dict[Case, Popen[str]] = {}
        for case in cases:
            if case[1:] not in ports:
                ports[case[1:]] = heard(started(case, "responder", case.loop, 0))
            what = ("--contender", case.name, "--loop", case.loop, "--port", ports[case[1:]])
            contenders[case] = started(case, "round_trip", *what)
            heard(contenders[case])

        def go(contender: Popen[str]) -> Trips:
            tell(contender, seconds)
            return Trips(*heard(contender))

        turns = {case: partial(go, contender) for case, contender in contenders.items()}
        interleaved(turns, 1)  # to warm up
        return interleaved(turns, rounds)


def cases(names: Iterable[str]) -> tuple[list[Case], list[str]]:
    """Return what can be measured here, and why the rest cannot."""
    found: list[Case] = []
    pythons, notes = available(CONTENDERS, names, on_uvloop=True)
    for name, python in pythons.items():
        # A newer Python is faster. So a contender that needs one is compared with the project on the same version.
        together = (name,) if python == sys.executable else (name, RAW, PROJECT)
        found += [Case(each, "asyncio", state, python) for each in together for state in STATES]
        if name == "tmodbus":
            notes.append("tmodbus is not measured on uvloop: it rejects uvloop's transport class.")
        elif has("uvloop"):
            # uvloop reads into a buffer that it keeps: it has but one state.
            found += [Case(each, "uvloop", "settled", python) for each in together]
    return list(dict.fromkeys(found)), notes


def run(effort: Effort) -> Row:
    """Measure all of them."""
    everybody = tuple(CONTENDERS)
    found, notes = cases(effort.pick(everybody, everybody, (RAW, PROJECT, "pymodbus", "tmodbus")))
    sets = [measured(found, effort.pick(0.15, 0.1, 0.02), effort.pick(10, 4, 1)) for _ in range(effort.pick(5, 2, 1))]
    return Row(
        "Round trip",
        COMMAND,
        f"A request of {len(REQUEST)} bytes, a reply of {REPLY_SIZE} bytes, then the next request, over loopback TCP. "
        f"The Modbus clients read {REGISTERS} registers, which is the same amount of data. The responder is a bare "
        "Protocol on the same kind of event loop, in another process. Both processes are pinned to one core. So the "
        "rate includes the time of the responder and of the kernel; the last column has the CPU time of the "
        "contender alone. In each repeat each contender is a new process. The contenders take short turns; the "
        "figure of a repeat is the median of its turns. On asyncio both states of malloc are measured, in both "
        "processes: *fresh* and *settled*, see [above](#two-states-of-a-process). On uvloop they do not differ. "
        "Ratios compare the same event loop, the same state and the same Python.",
        _targets(sets),
        [_table(sets)],
        notes,
    )


Repeats = list[dict[Case, list[Trips]]]


def _medians(sets: Repeats, case: Case, field: str) -> Spread:
    """Return the rate or the CPU of a contender: of each repeat its median."""
    return Spread.of(Spread.of(getattr(trips, field) for trips in results[case]).median for results in sets)


def _reached(sets: Repeats, case: Case, peer: Case) -> Spread:
    """Return how many times the rate of *peer* a contender reached: turn by turn, of each repeat the median."""
    return Spread.of(
        ratios([trips.rate for trips in results[case]], [trips.rate for trips in results[peer]]).median
        for results in sets
    )


def _table(sets: Repeats) -> Table:
    rows = [
        (
            label(case.name, case.python),
            case.loop,
            case.state,
            _medians(sets, case, "rate").text(),
            _reached(sets, case, case._replace(name=RAW)).text("{:.2f}"),
            _medians(sets, case, "cpu").text("{:.1f}"),
        )
        for case in sets[0]
    ]
    columns = ("contender", "loop", "malloc", "round trips a second", "of the raw Protocol", "µs of its CPU each")
    return Table("", columns, rows)


# For each loop: the contender to compare with, and the required ratio of the rates.
WANTED = (
    (RAW, "asyncio", 1.0),
    (RAW, "uvloop", 0.55),
    ("pymodbus", "asyncio", 2.2),
    ("pymodbus", "uvloop", 1.9),
    ("tmodbus", "asyncio", 3.0),
)


def _targets(sets: Repeats) -> list[Target]:
    targets = []
    for peer, loop, wanted in WANTED:
        against = [case for case in sets[0] if case[:2] == (peer, loop)]
        if peer == RAW:
            against = [case for case in against if case.python == sys.executable]
        texts = []
        met: bool | None = None
        for case in against:
            reached = _reached(sets, case._replace(name=PROJECT), case)
            texts.append(f"{reached.text('{:.2f}')} {case.state}")
            met = reached.median >= wanted and met is not False
        targets.append(Target(f"rate on {loop} over that of {peer}", f"at least {wanted:g}", "; ".join(texts), met))
    return targets


if __name__ == "__main__":
    sys.exit(start(run, _contend))
