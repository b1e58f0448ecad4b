"""A fleet: N controllers over TCP, each asked once a second, from one process; they answer in another one.

``--contender NAME --loop LOOP --port PORT --size N --interval SECONDS --seconds SECONDS`` measures one of them in this
process.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.contenders import Ask, Contenders, available, label, pymodbus_client, start, tmodbus_client
from benchmarks.measure import Effort, Spread, has, heard, interleaved, ratios, running, say, settle_malloc, tell
from benchmarks.page import Row, Table, Target
from benchmarks.replies import REGISTERS, REQUEST
from tracer_async import Fleet, TracerClient

COMMAND = "python -m benchmarks.fleet"

PROJECT = "tracer_async.Fleet"
WHEEL = "raw: a 5 ms timer wheel over bare Protocols"

C = TypeVar("C")

# A number of controllers, all behind one port, each polled every so many seconds for as long as the block lasts.
Contender = Callable[[int, int, float], AbstractAsyncContextManager[None]]


class _Bare(asyncio.Protocol):
    """Accepts all bytes and ignores them."""

    def data_received(self, data: bytes) -> None:
        pass


@asynccontextmanager
async def _wheel(port: int, size: int, interval: float) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    slot = 0.005
    slots: list[list[asyncio.Transport]] = [[] for _ in range(round(interval / slot))]

    async def connect(number: int) -> None:
        transport, _ = await loop.create_connection(_Bare, "127.0.0.1", port)
        slots[number * len(slots) // size].append(transport)

    await _all_of(connect(number) for number in range(size))
    begun = loop.time()
    turn = 0
    timer: asyncio.TimerHandle | None = None

    def go() -> None:
        nonlocal turn, timer
        for transport in slots[turn % len(slots)]:
            transport.write(REQUEST)
        turn += 1
        timer = loop.call_at(begun + turn * slot, go)

    go()
    yield
    if timer is not None:
        timer.cancel()
    for transports in slots:
        for transport in transports:
            transport.abort()


@asynccontextmanager
async def _a_task_each(
    size: int,
    connect: Callable[[AsyncExitStack], Awaitable[C]],
    keep_asking: Callable[[int, C], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """Connect to each controller, and give each a task that asks it."""
    async with AsyncExitStack() as stack:
        clients: list[C] = []

        async def join() -> None:
            clients.append(await connect(stack))

        await _all_of(join() for _ in range(size))
        tasks = [asyncio.create_task(keep_asking(number, client)) for number, client in enumerate(clients)]
        yield
        await _cancel(tasks)


def _tasks(
    size: int, interval: float, connect: Callable[[AsyncExitStack], Awaitable[Ask]]
) -> AbstractAsyncContextManager[None]:
    """Tasks that ask, and sleep until their next tick."""
    loop = asyncio.get_running_loop()
    begun: list[float] = []

    async def keep_asking(number: int, ask: Ask) -> None:
        if not begun:
            begun.append(loop.time())
        start = begun[0] + number * interval / size
        tick = 0
        while True:
            await asyncio.sleep(start + tick * interval - loop.time())
            await ask()
            tick = max(tick + 1, math.ceil((loop.time() - start) / interval))

    return _a_task_each(size, connect, keep_asking)


def _pollers(port: int, size: int, interval: float) -> AbstractAsyncContextManager[None]:
    """Tasks with ``TracerClient.poll``."""

    async def connect(stack: AsyncExitStack) -> TracerClient:
        return await stack.enter_async_context(TracerClient(f"tcp://127.0.0.1:{port}"))

    async def keep_polling(number: int, tracer: TracerClient) -> None:
        await asyncio.sleep(number * interval / size)
        async for reading in tracer.poll(interval):
            assert reading.ok, reading

    return _a_task_each(size, connect, keep_polling)


@asynccontextmanager
async def _fleet(port: int, size: int, interval: float) -> AsyncIterator[None]:
    async with Fleet() as fleet:
        for number in range(size):
            fleet.add(f"tcp://127.0.0.1:{port}", interval=interval, name=str(number))
        heard_of: set[str] = set()
        complete = asyncio.Event()

        async def keep_reading() -> None:
            async for name, reading in fleet:
                if not complete.is_set() and reading.ok:
                    heard_of.add(name)
                    if len(heard_of) == size:
                        complete.set()

        task = asyncio.create_task(keep_reading())
        await complete.wait()
        yield
        await _cancel([task])


async def _ask_pymodbus(port: int, stack: AsyncExitStack) -> Ask:
    client = await stack.enter_async_context(pymodbus_client(port))
    return partial(client.read_holding_registers, 0, count=REGISTERS)


async def _ask_tmodbus(port: int, stack: AsyncExitStack) -> Ask:
    client = await stack.enter_async_context(tmodbus_client(port))
    return partial(client.read_holding_registers, 0, REGISTERS)


def _pymodbus(port: int, size: int, interval: float) -> AbstractAsyncContextManager[None]:
    return _tasks(size, interval, partial(_ask_pymodbus, port))


def _tmodbus(port: int, size: int, interval: float) -> AbstractAsyncContextManager[None]:
    return _tasks(size, interval, partial(_ask_tmodbus, port))


async def _all_of(joining: Iterable[Awaitable[None]], at_a_time: int = 50) -> None:
    gate = asyncio.Semaphore(at_a_time)

    async def one(each: Awaitable[None]) -> None:
        async with gate:
            await each

    await asyncio.gather(*map(one, joining))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


CONTENDERS: Contenders[Contender] = {
    WHEEL: (_wheel, "tracer_async"),
    "a task each, TracerClient.poll": (_pollers, "tracer_async"),
    PROJECT: (_fleet, "tracer_async"),
    "a task each, pymodbus": (_pymodbus, "pymodbus"),
    "a task each, tmodbus": (_tmodbus, "tmodbus"),
}


class Case(NamedTuple):
    """A contender, and what it runs on."""

    name: str
    loop: str
    size: int
    python: str


class Seen(NamedTuple):
    """What a fleet did, in one process."""

    cpu: float
    """The share of a core that its process took."""
    memory: float
    """Bytes that its memory grew by, a controller."""
    polls: int
    """How many requests reached the responder."""
    missed: int
    """How many should have, and did not."""
    late_p50: float
    """Seconds that a request came after its tick: the median."""
    late_p99: float
    seconds: float

    @property
    def cost(self) -> float:
        """Microseconds of CPU a poll."""
        return 1e6 * self.cpu * self.seconds / max(1, self.polls)


def _resident() -> int:
    """Return how many bytes of memory this process takes."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the most that it ever took: Linux knows better


async def _measure(name: str, port: int, size: int, interval: float, seconds: float) -> None:
    settle_malloc()
    before = _resident()
    async with CONTENDERS[name][0](port, size, interval):
        await asyncio.sleep(1.5 * interval)  # each was polled once; simultaneous starts have spread out
        say("begin")
        used, begun = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        share = (time.process_time() - used) / (time.perf_counter() - begun)
        say([share, (_resident() - before) / size])
        # The parent ends this process: an orderly close of thousands of connections is not part of the measurement.
        await asyncio.sleep(60)


def measured(case: Case, interval: float, seconds: float) -> Seen:
    """Measure one fleet in a new process on its own core, with a new responder on another core."""
    with running("responder", "lean", 1) as responder:
        port = heard(responder)
        what = ("--contender", case.name, "--loop", case.loop, "--port", port, "--size", case.size)
        how = ("--interval", interval, "--seconds", seconds)
        with running("fleet", *what, *how, python=case.python) as fleet:
            heard(fleet)
            tell(responder, "note")
            time.sleep(seconds)
            tell(responder, [interval, seconds])
            counted = heard(responder)
            cpu, memory = heard(fleet)
    missed = counted["missed"] + max(0, case.size - counted["connections"]) * int(seconds / interval)
    return Seen(cpu, memory, counted["polls"], missed, counted["late_p50"], counted["late_p99"], seconds)


def _sizes(effort: Effort) -> list[tuple[str, int]]:
    """Return the loops and the numbers of controllers that the limit of open files permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))  # children inherit it
    wanted = effort.pick(
        [(loop, size) for size in (100, 1000, 5000) for loop in ("asyncio", "uvloop")] + [("uvloop", 10_000)],
        [("asyncio", 1000)],
        [("asyncio", 3)],
    )
    return [(loop, size) for loop, size in wanted if size + 100 < most and (loop == "asyncio" or has(loop))]


def run(effort: Effort) -> Row:
    """Measure all of them."""
    interval = effort.pick(1.0, 1.0, 0.1)
    seconds = effort.pick(4.0, 2.0, 0.3)
    repeats = effort.pick(5, 1, 1)
    results: dict[Case, list[Seen]] = {}
    pythons, notes = available(
        CONTENDERS, effort.pick(tuple(CONTENDERS), tuple(CONTENDERS), (WHEEL, PROJECT)), on_uvloop=True
    )
    for loop, size in _sizes(effort):
        cases = [
            Case(name, loop, size, python)
            for name, python in pythons.items()
            if (name, loop) != ("a task each, tmodbus", "uvloop")  # it refuses uvloop's transports
        ]
        results |= interleaved(
            {case: partial(measured, case, interval, seconds) for case in cases}, repeats if size >= 5000 else 1
        )
    return Row(
        "Fleet",
        COMMAND,
        f"N controllers over loopback TCP, each polled every {interval:g} s, for {seconds:g} s after each has "
        "answered once. The process of the fleet has one core, the responder has another. CPU is the process time of "
        "the fleet, memory the growth of its resident size per connection. The responder records when requests "
        "arrive, so one clock judges all contenders. A tick without a request is missed. Lateness is relative to the "
        "earliest request of the connection, so it includes the queue of the responder.",
        _targets(results),
        [_table(results)],
        notes,
    )


def _table(results: dict[Case, list[Seen]]) -> Table:
    rows = []
    for case, seen in results.items():
        rows.append(
            (
                label(case.name, case.python),
                case.loop,
                f"{case.size:,}",
                Spread.of(100 * each.cpu for each in seen).text("{:.1f}"),
                Spread.of(each.cost for each in seen).text("{:.0f}"),
                Spread.of(each.memory / 1000 for each in seen).text("{:.1f}"),
                f"{sum(each.missed for each in seen):,}",
                Spread.of(1e3 * each.late_p50 for each in seen).text("{:.1f}"),
                Spread.of(1e3 * each.late_p99 for each in seen).text("{:.1f}"),
            )
        )
    columns = ("fleet", "loop", "N", "CPU, % of a core", "µs a poll", "kB a connection", "ticks missed", "late p50, ms",
               "late p99, ms")  # fmt: skip
    return Table("", columns, rows)


def _targets(results: dict[Case, list[Seen]]) -> list[Target]:
    ours = [case for case in results if case.name == PROJECT]
    on_asyncio = [case for case in ours if case.loop == "asyncio"]
    large = max(on_asyncio, key=lambda case: case.size)
    seen = results[large]
    at = f"N = {large.size:,} on asyncio"
    pymodbus = results.get(large._replace(name="a task each, pymodbus"))
    share = ratios([each.cpu for each in seen], [each.cpu for each in pymodbus]) if pymodbus else None
    memory = Spread.of(each.memory / 1000 for each in seen)
    missed = sum(each.missed for each in seen)
    late = Spread.of(1e3 * each.late_p99 for each in seen)
    targets = [
        Target(
            f"CPU, {at}",
            "at most 0.4 of pymodbus's",
            share.text("{:.2f}") if share else "",
            share.median <= 0.4 if share else None,
        ),
        Target(f"memory, {at}", "at most 8 kB a controller", f"{memory.text('{:.1f}')} kB", memory.median <= 8),
        Target(f"ticks missed, {at}", "none", f"{missed:,}", missed == 0),
        Target(f"late at p99, {at}", "under 50 ms", f"{late.text('{:.1f}')} ms", late.median < 50),
    ]
    largest = [case for case in ours if case.size >= 10_000]
    missed = sum(each.missed for case in largest for each in results[case])
    targets.append(
        Target(
            "ticks missed, N = 10,000 on uvloop",
            "none",
            f"{missed:,}" if largest else "",
            missed == 0 if largest else None,
        )
    )
    costs = {
        case.size: Spread.of(each.cost for each in results[case]).median for case in on_asyncio if case.size >= 1000
    }
    text = ", ".join(f"{cost:.0f} µs at {size:,}" for size, cost in costs.items())
    # Twice as many polls a turn of the loop cost less each, and worse caches cost more: 1.25 is "does not grow".
    grown = costs[max(costs)] / costs[min(costs)] <= 1.25 if len(costs) > 1 else None
    targets.append(Target("cost a poll on asyncio", "not growing with N", text, grown))
    return targets


if __name__ == "__main__":
    sys.exit(start(run, _measure, size=int, interval=float, seconds=float))
