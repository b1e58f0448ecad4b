"""The gateway as its owner has it: simulated controllers on TCP ports, the hub, a history, and the web output."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any

from tests.gateway.stub_hub import NO_STATS
from tracer_async import Reading
from tracer_async.gateway._clock import uptime
from tracer_async.gateway.config import ControllerConfig, HistoryConfig, WebConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import Controller, ControllerEvent, EnergyTotals
from tracer_async.gateway.history.store import HistoryOutput
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.web import WebOutput
from tracer_async.protocol import Frame
from tracer_async.simulator import SimulatedTracer, serve_tcp


def zone_where_it_is(hour: int) -> tuple[tzinfo, str]:
    """A time zone in which it is between *hour* and *hour* + 1 now, and its name for a browser."""
    offset = (hour - datetime.now(UTC).hour + 11) % 24 - 11
    return timezone(timedelta(hours=offset)), f"Etc/GMT{-offset:+d}"


class SimulatedClock:
    """The clock of a simulated controller: set by hand while its past is made, and then as fast as time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._live_from: float | None = None

    def __call__(self) -> float:
        return self.now if self._live_from is None else self.now + time.monotonic() - self._live_from

    def go_live(self) -> None:
        self._live_from = time.monotonic()


class MuteTracer(SimulatedTracer):
    """A simulated controller that answers nothing while it is mute. With *mute_after* it is mute after that command."""

    mute = False
    mute_after: int | None = None

    def answer(self, frame: Frame) -> bytes | None:
        if self.mute:
            return None
        answer = super().answer(frame)
        self.mute = frame.command == self.mute_after
        return None if self.mute else answer


@dataclass
class Device:
    """A simulated controller, and what the configuration says about it."""

    title: str
    seed: int = 1
    state_of_charge: float = 0.6
    interval: float = 0.5
    past_days: int = 0
    mute: bool = False
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    tracer: MuteTracer = field(init=False)

    def start(self, local: datetime) -> None:
        """Make the controller, with a past that ends at the local time *local*."""
        begun = local - timedelta(days=self.past_days)
        self.tracer = MuteTracer(
            seed=self.seed,
            start_hour=begun.hour + begun.minute / 60,
            state_of_charge=self.state_of_charge,
            clock=self.clock,
        )
        self.tracer.mute = self.mute

    def past(self, controller: Controller, zone: tzinfo, step: float = 60.0) -> Iterator[ControllerEvent]:
        """The events of the last days, one a *step*. Leaves the controller as it is now."""
        start = time.time() - self.past_days * 86_400
        charge = load = charge_before = load_before = 0.0
        today: date | None = None
        for number in range(int(self.past_days * 86_400 / step)):
            self.clock.now = number * step
            at = start + number * step
            data = self.tracer.realtime()
            charge += data.charge_power * step / 3600
            load += data.load_power * step / 3600
            day = datetime.fromtimestamp(at, zone).date()
            if day != today:
                today, charge_before, load_before = day, charge, load
            energy = EnergyTotals(charge, load, day, charge - charge_before, load - load_before)
            monotonic = uptime() + at - time.time()
            yield ControllerEvent(controller, Reading(at, data, None, age=0.0), start, monotonic, energy, NO_STATS)
        self.clock.now = self.past_days * 86_400.0


@dataclass
class Dashboard:
    """A running gateway. `stop_web` and `start_web` take its web output away and bring it back."""

    hub: Hub
    devices: dict[str, Device]
    configs: dict[str, ControllerConfig]
    history: HistoryOutput | None
    zone: tzinfo
    config: WebConfig
    web: WebOutput | None = None
    url: str = ""

    async def stop_web(self) -> None:
        if self.web is not None:
            await self.hub.stop(self.web)
            self.hub.detach(self.web)
        self.web = None

    async def start_web(self) -> None:
        self.web = WebOutput(self.config, self.hub, history=self.history, zone=self.zone)
        self.hub.start(self.web)
        await self.web.listening.wait()
        assert self.web.url is not None
        self.url = self.web.url
        # It keeps its port.
        self.config = self.config.model_copy(update={"listen": self.url.removeprefix("http://").strip("/")})


@asynccontextmanager
async def dashboard(
    directory: Path,
    devices: dict[str, Device],
    *,
    with_history: bool = True,
    zone: tzinfo = UTC,
    **web: Any,
) -> AsyncIterator[Dashboard]:
    """Run a gateway."""
    async with AsyncExitStack() as stack:
        ledger = EnergyLedger(directory / "energy.json", zone=zone, flush_seconds=0.2)
        ledger.load()
        stack.push_async_callback(ledger.aclose)
        hub = Hub(ledger)
        history = None
        if with_history:
            history = HistoryOutput(HistoryConfig(flush_seconds=1), directory=directory, zone=zone)
            hub.start(history)
            stack.push_async_callback(hub.stop, history)
        for name, device in devices.items():
            device.start(datetime.now(zone))
            if history is not None:
                await write_past(history, ledger, device.past(Controller(name, device.title, name, 60), zone))
        configs = {}
        for name, device in devices.items():
            device.clock.go_live()
            url = await stack.enter_async_context(serve_tcp(device.tracer))
            configs[name] = ControllerConfig(
                url=url, interval=device.interval, title=device.title, timeout=0.3, retries=0
            )
            hub.add(name, configs[name])
        tasks = [asyncio.create_task(hub.run()), asyncio.create_task(ledger.run())]
        site = Dashboard(hub, devices, configs, history, zone, WebConfig(**{"listen": "127.0.0.1:0", **web}))
        await site.start_web()
        stack.push_async_callback(site.stop_web)
        stack.callback(tasks[1].cancel)
        stack.push_async_callback(hub.aclose)
        yield site


async def write_past(history: HistoryOutput, ledger: EnergyLedger, events: Iterator[ControllerEvent]) -> None:
    """Give the history and the ledger events, and wait until they are in the database."""
    before, count = history.state.delivered, 0
    for event in events:
        history.publish(event)
        ledger.record(event.controller, event.reading, event.monotonic)
        count += 1
        if count % 2000 == 0:
            await asyncio.sleep(0)
    while history.state.delivered - before < count:
        await asyncio.sleep(0.02)
    assert history.state.dropped == 0
