"""Event streams of the dashboard: what each open page costs the gateway, with three controllers read once a second.

``--serve`` runs the gateway in this process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil

from benchmarks.measure import Effort, Spread, heard, interleaved, percentile, pin, running, say, settle_malloc, tell
from benchmarks.page import Row, Table, Target, main

COMMAND = "python -m benchmarks.gateway_streams"

CONTROLLERS = 3
INTERVAL = 1.0


class Seen(NamedTuple):
    """What the gateway used, and what the readers of the streams got."""

    cpu: float
    """Share of a core."""
    memory: int
    """Bytes of resident memory."""
    events: int
    """Events that all readers got."""
    expected: int
    """Events that were sent to them, if none is missing."""
    late_p99: float
    """Seconds from the reading in the gateway to its event at a reader."""


async def _serve() -> None:
    """Run the gateway on a free port. Each line on the standard input ends a period that is measured."""
    from tracer_async.gateway.config import ControllerConfig, WebConfig
    from tracer_async.gateway.energy_ledger import EnergyLedger
    from tracer_async.gateway.hub import Hub
    from tracer_async.gateway.web import WebOutput

    pin(0)
    settle_malloc()
    with TemporaryDirectory() as folder:
        ledger = EnergyLedger(Path(folder) / "energy.json", zone=None, flush_seconds=60)
        ledger.load()
        hub = Hub(ledger)
        web = WebOutput(WebConfig(listen="127.0.0.1:0"), hub, history=None, zone=None)
        hub.start(web)
        await web.listening.wait()
        for number in range(CONTROLLERS):
            hub.add(f"c{number}", ControllerConfig(url=f"sim:?seed={number}", interval=INTERVAL))
        tasks = [asyncio.create_task(hub.run()), asyncio.create_task(ledger.run())]
        say(web.url)
        used, begun = time.process_time(), time.perf_counter()
        while await asyncio.to_thread(sys.stdin.readline):
            now_used, now = time.process_time(), time.perf_counter()
            say([(now_used - used) / (now - begun), psutil.Process().memory_info().rss])
            used, begun = time.process_time(), time.perf_counter()
        for task in tasks:
            task.cancel()


class Readers:
    """The readers of many event streams: how many events came, and how late."""

    def __init__(self) -> None:
        self.late: list[float] = []

    @classmethod
    @asynccontextmanager
    async def on(cls, port: int, streams: int) -> AsyncIterator[Readers]:
        """Open *streams* streams, and read them. Begins when each of them has the first states."""
        readers = cls()
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(streams)]
        for reader, writer in opened:
            writer.write(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(f'"name":"c{CONTROLLERS - 1}"'.encode())
        tasks = [asyncio.create_task(readers._keep_reading(reader)) for reader, _ in opened]
        yield readers
        for task in tasks:
            task.cancel()
        for _, writer in opened:
            writer.transport.abort()

    async def _keep_reading(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            # The ID of an event is the time of its reading, by the clock of this machine.
            if line.startswith(b"id: "):
                self.late.append(time.time() - float(line[4:]))


async def _read(port: int, streams: int, seconds: float, begin: partial[None]) -> list[float]:
    async with Readers.on(port, streams) as readers:
        await asyncio.sleep(2 * INTERVAL)
        begin()
        readers.late.clear()
        await asyncio.sleep(seconds)
        return readers.late


def measured(streams: int, seconds: float) -> Seen:
    """Measure a gateway with so many open pages, in a new process on its own core."""
    with running("gateway_streams", "--serve") as gateway:
        port = int(heard(gateway).rpartition(":")[2].strip("/"))
        late = asyncio.run(_read(port, streams, seconds, partial(tell, gateway, "begin")))
        tell(gateway, "end")
        heard(gateway)
        cpu, memory = heard(gateway)
    expected = round(streams * CONTROLLERS * seconds / INTERVAL)
    return Seen(cpu, memory, len(late), expected, percentile(late, 0.99) if late else 0.0)


def run(effort: Effort) -> Row:
    """Measure without and with open pages."""
    seconds = effort.pick(20.0, 10.0, 1.0)
    sizes = effort.pick((0, 20, 200), (0, 200), (0, 3))
    results = interleaved({size: partial(measured, size, seconds) for size in sizes}, effort.pick(3, 1, 1))
    rows = [
        (
            f"{size}",
            Spread.of(100 * each.cpu for each in seen).text("{:.1f}"),
            Spread.of(each.memory / 1e6 for each in seen).text("{:.0f}"),
            Spread.of(each.events / each.expected if each.expected else 1.0 for each in seen).text("{:.3f}"),
            Spread.of(1e3 * each.late_p99 for each in seen).text("{:.0f}"),
        )
        for size, seen in results.items()
    ]
    columns = ("open pages", "CPU, % of a core", "memory, MB", "events of those expected", "late p99, ms")
    largest = results[max(results)]
    # Readings at the edges of the period belong to the one or the other side.
    complete = all(abs(each.events - each.expected) <= max(results) * CONTROLLERS for each in largest)
    return Row(
        "Event streams of the gateway",
        COMMAND,
        f"A gateway with {CONTROLLERS} simulated controllers that are read every {INTERVAL:g} s, in a process on its "
        f"own core, for {seconds:g} s; the pages' event streams are read in another process. States that come within "
        "0.25 s are sent together. Late is the time from the reading in the gateway to the event at the reader.",
        [
            Target(
                f"{max(results)} event streams",
                "no state is missing",
                "all came" if complete else "some are missing",
                complete,
            )
        ],
        [Table("", columns, rows)],
    )


if __name__ == "__main__":
    if "--serve" in sys.argv:
        asyncio.run(_serve())
    else:
        sys.exit(main(run))
