"""The whole gateway, killed a hundred times at random moments, loses at most what it had not written yet."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.gateway.crash_site import CrashSite
from tests.gateway.mqtt_broker import Broker
from tracer_async.simulator import SimulatedTracer

KILLS = 100
CONTROLLERS = 5
COUNTERS = (
    "tracer_charge_energy_joules_total",
    "tracer_load_energy_joules_total",
    "tracer_energy_unknown_seconds_total",
)
# Seconds. A start or a flush that is late because the machine is busy is no loss.
FLUSH, PATIENCE = 1, 10.0


def energies(stored: dict[str, dict[str, float]]) -> dict[str, float]:
    """The totals in the gateway's file, by controller and kind."""
    return {f"{name} {kind}": total[kind] for name, total in stored.items() for kind in ("charge", "load", "unknown")}


def rows_of(file: Path) -> dict[str, set[int]]:
    """The times of the readings of each controller in the database, in ms. It must be intact."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    database = sqlite3.connect(file)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = "SELECT id, time FROM tracer_readings JOIN tracer_controllers ON key = controller"
        for name, at in database.execute(query):
            found[name].add(at)
    finally:
        database.close()
    return found


class Totals:
    """Totals from one place. None of them may ever be less than it was."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.last: dict[str, float] = {}

    def take(self, totals: dict[str, float]) -> None:
        for name, value in totals.items():
            assert value >= self.last.get(name, 0.0), f"{self._place}: {name} goes back"
        assert totals.keys() >= self.last.keys(), f"{self._place}: totals are gone"
        self.last = totals


@pytest.mark.slow
async def test_a_hundred_kills_under_load_damage_nothing_and_lose_at_most_the_last_flush(
    require: Callable[[str], str], tmp_path: Path
) -> None:
    random = Random(2)
    tracers = [SimulatedTracer(seed=number, state_of_charge=0.4) for number in range(CONTROLLERS)]
    for tracer in tracers:
        tracer.irradiance = 700
    begun = [tracer.charge_energy for tracer in tracers]
    broker = Broker(require, tmp_path)
    await broker.start()
    tables = f'[mqtt]\nurl = "{broker.url}"\n[history]\nflush_seconds = {FLUSH}\n'
    on_disk, scraped = Totals("energy.json"), Totals("metrics")
    killed: list[float] = []
    async with (
        CrashSite.of(tmp_path, tracers, interval=0.2, flush_seconds=FLUSH, tables=tables) as site,
        broker.subscriber("tracer/+/state") as subscriber,
    ):
        for number in range(KILLS):
            await site.start()
            if number % 4:
                await site.listening()
                scraped.take(await counters(site, scraped.last))
            await asyncio.sleep(random.uniform(0.0, 1.5))
            await site.kill()
            killed.append(time.time())
            on_disk.take(energies(site.stored()))
        joules = {name: total["charge"] * 3600 for name, total in site.stored().items()}
        await site.start()
        await site.listening()
        # Each controller has been read in this run, so all time before is either covered or unknown.
        await site.counter_above(COUNTERS[0], {name: before + 1 for name, before in joules.items()})
        await site.stop()
        stored = site.stored()
        on_disk.take(energies(stored))
        states = [
            (each.topic.split("/")[1], each.json) for each in subscriber.messages if each.topic != "tracer/bridge/state"
        ]
    await broker.kill()
    check_published(states, stored)
    check_rows(states, rows_of(tmp_path / "history.db"), killed)
    for number, tracer in enumerate(tracers):
        total = stored[f"c{number}"]
        # What is neither counted nor known to be unknown would be lost. The time before the first flush is neither.
        watts = tracer.realtime().charge_power
        covered = total["charge"] + watts * total["unknown"] / 3600
        assert covered == pytest.approx(tracer.charge_energy - begun[number], abs=watts * PATIENCE / 3600)


async def counters(site: CrashSite, before: dict[str, float]) -> dict[str, float]:
    """Return the counters of the metrics. A controller that has not answered yet has none."""
    now = {f"{name} {metric}": value for metric in COUNTERS for name, value in (await site.counter(metric)).items()}
    return before | now


def check_published(states: list[tuple[str, dict[str, Any]]], stored: dict[str, dict[str, float]]) -> None:
    """No total that was published goes back, or is more than what is on disk in the end."""
    series: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for name, state in states:
        for kind in ("charge", "load"):
            if state[f"{kind}_energy"] is not None:
                series[name, kind].append(state[f"{kind}_energy"])
    assert len(series) == 2 * CONTROLLERS
    for (name, kind), values in series.items():
        assert all(after >= before for before, after in pairwise(values)), (name, kind)
        assert values[-1] * 1000 <= stored[name][kind] + 0.001
        assert kind == "load" or len(set(values)) > KILLS / 10


def check_rows(states: list[tuple[str, dict[str, Any]]], rows: dict[str, set[int]], killed: list[float]) -> None:
    """Of the readings between two kills, only the last ones may be missing in the database."""
    published: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for name, state in states:
        at = round(datetime.fromisoformat(state["time"]).timestamp() * 1000)
        published[name, sum(kill * 1000 < at for kill in killed)].append(at)
    assert sum(map(len, published.values())) > KILLS * CONTROLLERS
    found = 0
    for (name, run), times in published.items():
        # MQTT cuts a time to milliseconds, the database rounds it.
        is_there = [bool({at, at + 1} & rows[name]) for at in sorted(times)]
        assert is_there == sorted(is_there, reverse=True), f"{name}: a reading is missing before others of run {run}"
        found += sum(is_there)
        lost = sorted(times)[sum(is_there) :]
        if lost:
            assert run < len(killed), "an orderly end loses nothing"
            assert killed[run] * 1000 - min(lost) < 1000 * (FLUSH + PATIENCE)
    assert found > KILLS
