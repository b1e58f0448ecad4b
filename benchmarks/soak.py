"""Soak: a million exchanges on bad lines, each answer held against what the controller said and when.

``make soak``, or ``python benchmarks/soak.py [--exchanges N] [--shards N] [--seed N]``.

Many clients talk to simulated controllers over TCP and pseudo-terminals, with every kind of fault the simulator has, on
a clock that runs `SCALE` times as fast as life: a time-out of 1 s takes 1/`SCALE` s. Each reading is stamped by its
controller with the moment at which it was made, so that a reading that belongs to an earlier request than it was given
for shows. Each successful switch and write is held against the state of the controller at that moment.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import selectors
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tracer_async import (
    BatteryType,
    ControlSettings,
    LinkError,
    LoadMode,
    LoadRefusedError,
    LoadUnknownError,
    RealtimeData,
    TracerClient,
    TracerError,
)
from tracer_async.protocol import ECHO, HORIZON
from tracer_async.simulator import Faults, SimulatedTracer, serve_pty, serve_tcp

SCALE = 20.0
TCP_CLIENTS = 54
PTY_CLIENTS = 6

# Five requests in a hundred meet a fault, every kind about as often as any other.
ON_ANY_LINE = (
    "drop@0.35%",
    "late=300ms@0.1%",
    "late=1.5s@0.1%",
    "late=2.5s@0.1%",
    "late=4s@0.1%",
    "double@0.4%",
    "flip@0.4%",
    "cut@0.4%",
    "tear@0.4%",
    "stray@0.4%",
    "id@0.4%",
    "foreign@0.4%",
    "drip=5ms@0.35%",
    "flood=4KiB@0.35%",
    "stall=1s@0.35%",
    "silence=3s@0.25%",
)
ON_NETWORK = ("hangup@0.3%", "half-open@0.2%", "banner@35%", "refuse@25%")


class FastSelector(selectors.SelectSelector):
    """Waits as long as the fast clock means it; epoll would round each wait up to a millisecond."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout / SCALE if timeout else timeout)


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose seconds are 1/`SCALE` seconds long."""

    def __init__(self) -> None:
        super().__init__(FastSelector())

    def time(self) -> float:
        return time.monotonic() * SCALE


class StampedTracer(SimulatedTracer):
    """A controller whose readings carry the time at which they were made, and a sum over it."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed, state_of_charge=0.9)
        self.requests = deque(maxlen=1)  # or it is they that the memory grows by

    def realtime(self) -> RealtimeData:
        stamp = int(asyncio.get_running_loop().time() * 1000) & 0xFFFF_FFFF_FFFF
        words = [stamp >> 32, stamp >> 16 & 0xFFFF, stamp & 0xFFFF]
        return (
            super()
            .realtime()
            ._replace(
                pv_voltage=words[0] / 100,
                load_current=words[1] / 100,
                charge_current=words[2] / 100,
                battery_full_voltage=(sum(words) & 0xFFFF) / 100,
            )
        )


def stamp_of(data: RealtimeData) -> float | None:
    """Return when a reading was made, in seconds of the fast clock; None if it was never made like that."""
    words = [round(value * 100) for value in (data.pv_voltage, data.load_current, data.charge_current)]
    if sum(words) & 0xFFFF != round(data.battery_full_voltage * 100):
        return None
    return (words[0] << 32 | words[1] << 16 | words[2]) / 1000


@dataclass
class Tally:
    """What came of it all."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    links: int = 0
    requests: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)


async def use(tracer: TracerClient, device: StampedTracer, tally: Tally, dice: random.Random, limit: int) -> None:
    """Read, switch and write, in bursts and with pauses; cancel now and then."""
    loop = asyncio.get_running_loop()
    done = 0
    while tally.requests < limit:
        draw = dice.random()
        call = read if draw < 0.9 else switch if draw < 0.98 else write
        operation = asyncio.create_task(call(tracer, device, tally, dice))
        if dice.random() < 0.01:
            loop.call_later(dice.choice((0.0, 0.05, 0.5, 1.2)), operation.cancel)
        try:
            await operation
        except asyncio.CancelledError:
            tally.outcomes["cancelled"] += 1
        except LoadUnknownError:
            tally.outcomes["load unknown"] += 1
        except LoadRefusedError as error:
            tally.outcomes["load refused"] += 1
            if device.load_on == error.wanted:
                tally.wrong.append(f"refused, and yet switched: {error}")
        except LinkError:
            tally.outcomes["link errors"] += 1
        except TracerError as error:
            tally.outcomes[type(error).__name__] += 1
        requests = tracer.stats.requests
        tally.requests += requests - done
        done = requests
        if dice.random() < 0.5:
            await asyncio.sleep(dice.expovariate(2.0))


async def read(tracer: TracerClient, device: StampedTracer, tally: Tally, dice: random.Random) -> None:
    asked = asyncio.get_running_loop().time()
    reading = await tracer.read()
    assert reading.data is not None
    made = stamp_of(reading.data)
    since = tracer._last[0] if tracer._last else asked
    if made is None:
        tally.wrong.append(f"a reading that was never made: {reading.data}")
    elif made + 0.001 >= since:
        tally.outcomes["right readings"] += 1
        if since < asked:
            tally.outcomes["of them said to be possibly older"] += 1
    elif made + 0.001 >= since - ECHO:
        tally.outcomes["readings one doubled reply behind"] += 1
    elif since + reading.age - made > HORIZON:
        # A machine with too much else to do makes a dripping reply of half a second, which is ten of this clock's.
        tally.outcomes["readings over 10 s late, which is beyond the promise"] += 1
    else:
        tally.wrong.append(f"made {since - made:.3f} s before its request, age {reading.age:.3f}")


async def switch(tracer: TracerClient, device: StampedTracer, tally: Tally, dice: random.Random) -> None:
    on = dice.random() < 0.5
    await tracer.set_load(on)
    if device.load_on == on:
        tally.outcomes["right switches"] += 1
    else:
        tally.wrong.append(f"said to be switched {'on' if on else 'off'}, and is not")


async def write(tracer: TracerClient, device: StampedTracer, tally: Tally, dice: random.Random) -> None:
    settings = ControlSettings(
        battery_type=BatteryType.GEL,
        battery_capacity=dice.randrange(10, 2560, 10),
        temperature_compensation=dice.randrange(11),
        load_mode_1=LoadMode.MANUAL,
        load_mode_2=LoadMode.OFF,
    )
    await tracer.write_settings(settings)
    if device.settings == settings:
        tally.outcomes["right writes"] += 1
    else:
        tally.wrong.append("said to be written, and is not")


async def soak(exchanges: int, seed: int) -> Tally:
    """Run one process's share."""
    tally = Tally()
    on_any = Faults(*ON_ANY_LINE, seed=seed)
    on_network = Faults(*ON_ANY_LINE, *ON_NETWORK, seed=seed + 1)
    async with AsyncExitStack() as stack:
        clients: list[TracerClient] = []
        users = []
        for number in range(TCP_CLIENTS + PTY_CLIENTS):
            device = StampedTracer(seed=number)
            if number < TCP_CLIENTS:
                url = await stack.enter_async_context(serve_tcp(device, faults=on_network))
            else:
                url = await stack.enter_async_context(serve_pty(device, faults=on_any))
            client = TracerClient(url, backoff=(0.1, 5.0), start_offline=True)
            await stack.enter_async_context(client)
            clients.append(client)
            users.append(use(client, device, tally, random.Random(f"{seed} {number}"), exchanges))
        await asyncio.gather(*users, watch_memory(tally, exchanges))
        tally.links = sum(client.stats.links for client in clients)
    tally.faults = on_any.injected + on_network.injected
    return tally


async def watch_memory(tally: Tally, exchanges: int) -> None:
    """Note the memory in use once everything has happened a few times, and at the end."""
    for part in (0.3, 1.0):
        while tally.requests < exchanges * part:
            await asyncio.sleep(SCALE * 0.05)
        gc.collect()
        tally.memory.append(resident())
        tally.blocks.append(sys.getallocatedblocks())


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def report(tallies: list[Tally], seconds: float) -> bool:
    """Print what came of all shares; return whether it is good."""
    outcomes = sum((tally.outcomes for tally in tallies), Counter[str]())
    faults = sum((tally.faults for tally in tallies), Counter[str]())
    wrong = [text for tally in tallies for text in tally.wrong]
    growth = max(tally.memory[1] - tally.memory[0] for tally in tallies)
    requests = sum(tally.requests for tally in tallies)
    print(f"{'exchanges':<52} {requests:>9,} in {seconds:.0f} s, on a clock {SCALE:g} times as fast as life")
    for name, count in sorted(outcomes.items(), key=lambda item: -item[1]):
        print(f"{name:<52} {count:>9,}")
    print(f"{'WRONG':<52} {len(wrong):>9,}")
    print("faults injected      ", ", ".join(f"{kind} {count:,}" for kind, count in sorted(faults.items())))
    print(f"{'links established':<52} {sum(tally.links for tally in tallies):>9,}")
    for number, tally in enumerate(tallies):
        first, last = (size / 1e6 for size in tally.memory)
        blocks = f"{tally.blocks[0]:,} to {tally.blocks[1]:,} objects"
        print(f"memory of process {number}  {first:.2f} MB after a third, {last:.2f} MB at the end; {blocks}")
    for text in wrong[:20]:
        print("WRONG:", text)
    return not wrong and growth < 1_000_000


def main() -> int:
    """Share the work among processes, one for each core."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shard", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.shard:
        logging.disable()  # of lost links there are thousands
        with asyncio.Runner(loop_factory=FastLoop) as runner:
            tally = runner.run(soak(options.exchanges, options.seed))
        json.dump(vars(tally), sys.stdout)
        return 0
    begun = time.monotonic()
    share = -(-options.exchanges // options.shards)
    shards = [
        subprocess.Popen(
            [sys.executable, __file__, "--shard", f"--exchanges={share}", f"--seed={options.seed + 100 * number}"],
            stdout=subprocess.PIPE,
            # The simulator's servers read into 256 KiB at a time: given back at once, it leaves no holes in the heap.
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
        )
        for number in range(options.shards)
    ]
    tallies = []
    for shard in shards:
        output, _ = shard.communicate()
        values = json.loads(output)
        values["outcomes"], values["faults"] = Counter(values["outcomes"]), Counter(values["faults"])
        tallies.append(Tally(**values))
    return 0 if report(tallies, time.monotonic() - begun) else 1


if __name__ == "__main__":
    sys.exit(main())
