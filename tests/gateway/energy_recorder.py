"""Records synthetic readings in an energy ledger, in a process that the test kills.

Usage: python energy_recorder.py FILE. Imports once; for each line on standard input it forks a process that records.
It prints ``started PID`` first. That process then prints ``recorded N`` before each batch of readings, where N is the
watt-hours that it will have counted, and ``published N`` whenever the published total changes. ``ended`` comes when it
was killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from tests.gateway.energy_readings import power_reading
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import Controller

ROOF = Controller("roof", "Roof", "roof", 1.0)


async def record(file: Path) -> None:
    ledger = EnergyLedger(file, zone=None, flush_seconds=0.001)
    ledger.load()
    published = ledger.stored("roof").charge
    say(f"published {published}")
    running = asyncio.create_task(ledger.run())
    wall, monotonic = time.time(), 0.0
    # The first reading counts nothing; each later one counts 1 Wh.
    recorded = published - 1.0
    while not running.done():
        recorded += 1.0
        say(f"recorded {recorded}")
        ledger.record(ROOF, power_reading(wall + monotonic, 3600.0), monotonic)
        monotonic += 1.0
        await asyncio.sleep(0.0002)
        if ledger.stored("roof").charge != published:
            published = ledger.stored("roof").charge
            say(f"published {published}")
    running.result()


def say(line: str) -> None:
    # Not print: one system call a line, so that a killed process leaves no part of a line.
    os.write(1, f"{line}\n".encode())


def main() -> None:
    file = Path(sys.argv[1])
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            asyncio.run(record(file))
            os._exit(1)
        say(f"started {child}")
        os.waitpid(child, 0)
        say("ended")


if __name__ == "__main__":
    main()
