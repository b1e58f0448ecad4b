"""The process with the controllers of `stress.soak_gateway`: simulated ones, on lines with faults.

``python -m stress.gateway_controllers COUNT SEED LOG`` prints the URL of each controller as JSON. It logs each reading
that a controller makes: controller, stamp, and what the stamp does not replace. At the end of its input it prints how
many faults of each kind it injected.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TextIO

from stress.stamp import STEP, Stamp, stamped
from tracer_async import RealtimeData
from tracer_async.simulator import Faults, SimulatedTracer, serve_tcp

# About one request in fifteen meets a fault.
_FAULTS = (
    "drop@1%",
    "late=300ms@0.6%",
    "late=1.5s@0.4%",
    "late=2.5s@0.2%",
    "double@0.8%",
    "flip@0.8%",
    "cut@0.6%",
    "tear@0.6%",
    "stray@0.6%",
    "id@0.4%",
    "drip=5ms@0.4%",
    "flood=4KiB@0.2%",
    "stall=1s@0.2%",
    "silence=6s@0.1%",
    "hangup@0.4%",
    "half-open@0.1%",
    "banner@30%",
    "refuse@25%",
)


class StampedTracer(SimulatedTracer):
    """A controller whose readings carry a stamp, and which logs them. The stamp is in seconds since 1970."""

    def __init__(self, number: int, log: TextIO) -> None:
        super().__init__(seed=number, state_of_charge=0.7)
        self._number = number
        self._log = log
        self._last = 0

    def realtime(self) -> RealtimeData:
        """See `SimulatedTracer`."""
        self._last = max(int(time.time() / STEP), self._last + 1)
        # In the middle of a step, so that rounding cannot change it.
        reading = stamped(super().realtime(), Stamp(self._number, (self._last + 0.5) * STEP))
        told = [
            round(reading.battery_voltage * 100),
            reading.battery_temperature,
            int(reading.load_on),
            int(reading.charging),
        ]
        self._log.write(json.dumps([self._number, self._last, *told]) + "\n")
        return reading


async def _serve(count: int, seed: int, log: TextIO) -> None:
    faults = [Faults(*_FAULTS, seed=seed * 1000 + number) for number in range(count)]
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(serve_tcp(StampedTracer(number, log), faults=faults[number]))
            for number in range(count)
        ]
        print(json.dumps(urls), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    log.flush()
    print(json.dumps(sum((each.injected for each in faults), Counter[str]())), flush=True)


def main() -> None:
    """Serve until the end of the input."""
    logging.disable()
    count, seed, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with path.open("w", encoding="ascii") as log:
        asyncio.run(_serve(count, seed, log))


if __name__ == "__main__":
    main()
