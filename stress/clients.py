"""The application of a soak: clients that read, switch and write, on an event loop that is sometimes blocked."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TextIO

from stress.clock import SCALE, fast_time
from stress.judge import OK, Claim, judge_reading
from stress.serving import has_second_master
from stress.stamp import stamp_of
from tracer_async import BatteryType, ControlSettings, LoadMode, LoadState, TracerClient, TracerError
from tracer_async.protocol import LATE_REPLY_WINDOW, ManualControl, WriteSettings

__all__ = ["Squad", "Tally", "resident"]

# Seconds for which the application blocks its event loop, and the mean time between two such stalls.
_SHORTEST_STALL, _LONGEST_STALL = 0.01, 12.0
_BETWEEN_STALLS = 8.0

_HEALTHY_WITHIN = 60.0
"""Seconds within which each client must read, write and switch once all faults have ended."""


@dataclass
class Tally:
    """Results of the run, as far as they can be judged immediately."""

    outcomes: Counter[str] = field(default_factory=Counter)
    links: int = 0
    requests: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)


class Squad:
    """The clients of one event loop."""

    def __init__(self, urls: dict[int, str], seed: int, limit: int, claims: TextIO, tally: Tally) -> None:
        self._urls = urls
        self._random = Random(f"{seed} {min(urls)}")
        self._limit = limit
        self._claims = claims
        self._tally = tally

    async def run(self, heal: Callable[[], object], *, watch: bool) -> None:
        """Use the controllers until the limit is reached; then call *heal*, and see that every client is well."""
        async with AsyncExitStack() as stack:
            users = []
            for number, url in self._urls.items():
                client = TracerClient(url, backoff=(0.1, 5.0), start_offline=True)
                await stack.enter_async_context(client)
                users.append(_User(number, client, self._tally, self._claims, Random(self._random.random())))
            stalls = asyncio.create_task(self._stall())
            watches = [self._watch_memory()] if watch else []
            await asyncio.gather(*(user.run(self._limit) for user in users), *watches)
            stalls.cancel()
            await asyncio.to_thread(heal)
            await asyncio.sleep(LATE_REPLY_WINDOW + 1.0)
            await asyncio.gather(*(user.check_health() for user in users))
            self._tally.links += sum(user.client.stats.links for user in users)
            for user in users:
                for name in ("late", "unsolicited", "echoes", "timeouts"):
                    self._tally.outcomes[f"frames or requests counted as {name}"] += getattr(user.client.stats, name)

    async def _stall(self) -> None:
        random = self._random
        while True:
            await asyncio.sleep(random.expovariate(1 / _BETWEEN_STALLS))
            seconds = math.exp(random.uniform(math.log(_SHORTEST_STALL), math.log(_LONGEST_STALL)))
            self._tally.outcomes[f"application stalls of {'over' if seconds > 1 else 'up to'} 1 s"] += 1
            time.sleep(seconds / SCALE)  # noqa: ASYNC251  # that is what applications do

    async def _watch_memory(self) -> None:
        """Record the memory in use after a warm-up period, and at the end."""
        for part in (0.3, 1.0):
            while self._tally.requests < self._limit * part:
                await asyncio.sleep(1.0)
            gc.collect()
            self._tally.memory.append(resident())
            self._tally.objects.append(sys.getallocatedblocks())


class _User:
    """The operations on one client."""

    def __init__(self, number: int, client: TracerClient, tally: Tally, claims: TextIO, random: Random) -> None:
        self.client = client
        self._number = number
        self._tally = tally
        self._claims = claims
        self._random = random
        self._writes = 0

    async def run(self, limit: int) -> None:
        """Read, switch and write, alone and many at a time, with and without pauses; cancel now and then."""
        random = self._random
        loop = asyncio.get_running_loop()
        done = 0
        while self._tally.requests < limit:
            operation = asyncio.create_task(self._operate())
            if random.random() < 0.01:
                loop.call_later(random.choice((0.0, 0.05, 0.5, 1.2)), operation.cancel)
            await asyncio.wait([operation])
            if not operation.cancelled():
                operation.result()
            requests = self.client.stats.requests
            self._tally.requests += requests - done
            done = requests
            if random.random() < 0.2:
                await asyncio.sleep(random.expovariate(4.0))

    async def _operate(self) -> None:
        draw = self._random.random()
        if draw < 0.88:
            await self._read()
        elif draw < 0.97:
            await self._write()
        else:
            writes = [self._write() for _ in range(self._random.randint(2, 4))]
            await asyncio.gather(*writes, self._read())

    def _write(self) -> Awaitable[object]:
        draw = self._random.random()
        on = self._random.random() < 0.5
        # A single answer may belong to another master. On such a line only a verified switch is proof.
        if draw < 0.6 or (draw < 0.75 and has_second_master(self._number)):
            return self._switch(on)
        if draw < 0.75:
            return self._send_load(on)
        return self._write_settings(manual=self._random.random() < 0.8)

    async def _read(self) -> bool:
        called = fast_time()
        try:
            reading = await self.client.read()
        except TracerError as error:
            self._count(type(error).__name__)
            return False
        except asyncio.CancelledError:
            self._count("cancelled")
            raise
        assert reading.data is not None
        wrong = judge_reading(self._number, stamp_of(reading.data), reading.time, reading.age)
        if wrong is not None:
            self._tally.wrong.append(f"{wrong}; called at {called:.3f}, returned at {fast_time():.3f}")
            return False
        self._count("right: reading")
        if reading.age > 1.0:
            self._count("right: reading that says it may be older than 1 s")
        return True

    async def _switch(self, on: bool) -> str:
        return await self._claim("switch", f"{on:02x}", self.client.set_load(on))

    async def _send_load(self, on: bool) -> str:
        call: Coroutine[Any, Any, LoadState] = self.client.execute(ManualControl(LoadState(on)))
        return await self._claim("load", f"{on:02x}", call)

    async def _write_settings(self, *, manual: bool) -> str:
        settings = self._new_settings(LoadMode.MANUAL if manual else LoadMode.OFF)
        execute = self._random.random() < 0.5
        call = self.client.execute(WriteSettings(settings)) if execute else self.client.write_settings(settings)
        return await self._claim("settings", settings.to_bytes().hex(), call)

    def _new_settings(self, mode: LoadMode) -> ControlSettings:
        """Return settings that this client has never written before."""
        self._writes += 1
        rest, capacity = divmod(self._writes, 255)
        rest, temperature_compensation = divmod(rest, 11)
        hours, battery_type = divmod(rest, len(BatteryType))
        return ControlSettings(
            battery_type=BatteryType(battery_type),
            battery_capacity=10 + capacity * 10,
            temperature_compensation=temperature_compensation,
            load_mode_1=mode,
            load_mode_2=LoadMode.hours(1 + hours),
        )

    async def _claim(self, what: str, data: str, call: Coroutine[Any, Any, object]) -> str:
        """Record the outcome of a call for the judge."""
        called = fast_time()
        outcome = "cancelled"
        try:
            value = await call
            outcome = str(int(value)) if what == "load" and isinstance(value, LoadState) else OK
        except TracerError as error:
            outcome = type(error).__name__
        finally:
            claim = Claim(self._number, what, data, called, fast_time(), outcome)
            self._claims.write(json.dumps(claim) + "\n")
            if outcome != OK and not outcome.isdecimal():
                self._count(outcome)
        return outcome

    def _count(self, outcome: str) -> None:
        self._tally.outcomes[outcome] += 1

    async def check_health(self) -> None:
        """Expect that the client reads, writes and switches, now that all faults have ended."""
        until = fast_time() + _HEALTHY_WITHIN
        while not await self._read():
            if fast_time() > until:
                self._tally.wrong.append(f"controller {self._number}: no reading on a healthy line")
                return
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: self._write_settings(manual=True),
            lambda: self._switch(True),
            lambda: self._switch(False),
        )
        for call in calls:
            while (outcome := await call()) != OK:  # a busy machine may take a second of this clock for an answer
                if fast_time() > until:
                    self._tally.wrong.append(f"controller {self._number}: {outcome} on a healthy line")
                    return
        self._count("clients that are well at the end")


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
