"""The process that runs the controllers of a soak, so that they continue while the application is blocked.

It prints the URL of each controller as JSON. When it reads a line "heal", it ends all faults and confirms this. At the
end of its input it prints its counters. It logs each action of a controller to a file: controller, time, action.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from functools import partial
from random import Random
from threading import Thread
from typing import TextIO

from stress.clock import FastLoop, fast_time
from stress.lines import Habits, Line, Site
from stress.stamp import Stamp, stamped
from stress.wires import PtyWire, TcpWire
from tracer_async import RealtimeData
from tracer_async.protocol import CommandCode, Frame
from tracer_async.simulator import Faults, SimulatedTracer

__all__ = ["has_second_master"]

# How many of ten controllers are behind a pseudo-terminal; the others are behind TCP.
_PTYS_OF_TEN = 1

# Five requests in a hundred meet a fault, every kind about as often as any other.
_ON_ANY_LINE = (
    "drop@0.35%",
    "late=300ms@0.1%",
    "late=1.5s@0.1%",
    "late=2.5s@0.1%",
    "late=4s@0.1%",
    "flip@0.4%",
    "cut@0.4%",
    "tear@0.4%",
    "stray@0.4%",
    "id@0.4%",
    "drip=5ms@0.35%",
    "flood=4KiB@0.35%",
    "stall=1s@0.35%",
    "silence=3s@0.25%",
)
# Not where a bridge delivers twice: a copy of a copy may come later than any bound.
_ON_SINGLE = ("double@0.4%",)
_WITH_SECOND_MASTER = ("foreign@0.8%",)
_ON_NETWORK = ("hangup@0.3%", "half-open@0.2%", "banner@35%", "refuse@25%")

_BETWEEN_OUTAGES = 60.0
"""Seconds, on average."""


def has_second_master(number: int) -> bool:
    """Return whether replies to another master arrive on this line. They look like replies to the client."""
    return number % 2 == 0


class LoggedTracer(SimulatedTracer):
    """A controller whose readings carry a stamp, and which logs what it does."""

    def __init__(self, number: int, log: TextIO, *, copies_id: bool) -> None:
        super().__init__(seed=number, state_of_charge=0.9)
        self.requests.clear()
        self.line: Line | None = None
        self._number = number
        self._log = log
        self._copies_id = copies_id
        self._load = self.load_on
        self._note(fast_time(), "load is", "", self._load)

    def answer(self, frame: Frame) -> bytes | None:
        """See `SimulatedTracer`."""
        now = fast_time()
        self.requests.clear()
        reply = super().answer(frame)
        if self.line is not None:
            self.line.followed += 1
        load = self.load_on
        if reply is not None and frame.command == CommandCode.MANUAL_CONTROL:
            self._note(now, "switch", frame.data.hex(), load)
        elif reply is not None and frame.command == CommandCode.WRITE_SETTINGS:
            self._note(now, "settings", frame.data.hex(), load)
        elif load != self._load:
            self._note(now, "load is", "", load)
        self._load = load
        if reply is not None and self._copies_id:
            return Frame(frame.controller_id, frame.command, reply[9:-3]).encode(start_up=False)
        return reply

    def realtime(self) -> RealtimeData:
        """See `SimulatedTracer`."""
        return stamped(super().realtime(), Stamp(self._number, fast_time()))

    def _note(self, now: float, what: str, data: str, load: bool) -> None:
        self._log.write(json.dumps([self._number, now, what, data, load]) + "\n")


async def _serve(count: int, seed: int, log: TextIO) -> None:
    site = Site()
    all_faults = []
    lines = []
    urls = []
    loop = asyncio.get_running_loop()
    for number in range(count):
        habits = Habits(echoes=number % 6 == 1, doubles=number % 6 == 3)
        on_network = number % 10 >= _PTYS_OF_TEN
        faults = Faults(
            *_ON_ANY_LINE,
            *(() if habits.doubles else _ON_SINGLE),
            *(_WITH_SECOND_MASTER if has_second_master(number) else ()),
            *(_ON_NETWORK if on_network else ()),
            seed=seed * 1000 + number,
        )
        tracer = LoggedTracer(number, log, copies_id=number % 12 == 1)
        line = tracer.line = Line(tracer, number, site, habits, faults=faults, random=Random(f"{seed} {number}"))
        all_faults.append(faults)
        lines.append(line)
        if on_network:
            server = await loop.create_server(partial(TcpWire, line, site), "127.0.0.1", 0)
            urls.append("tcp://{}:{}".format(*server.sockets[0].getsockname()))
        else:
            urls.append(PtyWire(line, site).url)
    _say(urls)
    commands: asyncio.Queue[str] = asyncio.Queue()
    Thread(target=_listen, args=(loop, commands), daemon=True).start()
    outages = asyncio.create_task(_outages(site, Random(f"{seed} outages")))
    while await commands.get() == "heal":
        outages.cancel()
        await asyncio.wait([outages])
        for line in lines:
            line.heal()
        _say("healed")
    for faults in all_faults:
        site.counts.update(faults.injected)
    log.flush()
    _say([site.counts, site.late])


async def _outages(site: Site, random: Random) -> None:
    while True:
        await asyncio.sleep(random.expovariate(1 / _BETWEEN_OUTAGES))
        await site.outage(random)


def _listen(loop: asyncio.AbstractEventLoop, commands: asyncio.Queue[str]) -> None:
    for line in sys.stdin:
        loop.call_soon_threadsafe(commands.put_nowait, line.strip())
    loop.call_soon_threadsafe(commands.put_nowait, "end")


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--log", required=True)
    options = parser.parse_args()
    logging.disable()  # asyncio says of each connection that is lost while it is written to
    with open(options.log, "w", encoding="ascii") as log, asyncio.Runner(loop_factory=FastLoop) as runner:  # noqa: PTH123
        runner.run(_serve(options.count, options.seed, log))


if __name__ == "__main__":
    main()
