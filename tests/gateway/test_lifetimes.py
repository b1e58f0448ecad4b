"""For how long an event describes the present: the next one comes earlier, whatever the controller's line does."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.gateway import stub_hub
from tests.gateway.browser import chromium, opened
from tests.gateway.heard_line import heard_line
from tests.gateway.hub_outputs import RecordingOutput
from tests.gateway.mqtt_broker import Broker, Subscriber
from tests.gateway.mqtt_gateway import controller, gateway
from tests.gateway.peer_process import free_port
from tests.gateway.web_site import site
from tests.peer import Peer, realtime
from tests.promise.virtual_time import virtual_time
from tracer_async.gateway._clock import uptime
from tracer_async.gateway.config import ControllerConfig, MqttConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.hub import Hub

INTERVALS = {"half": 0.5, "one": 1.0, "five": 5.0, "sixty": 60.0}
AVAILABILITY, CONNECTION = "tracer/roof/availability", "tracer/roof/connection"


@asynccontextmanager
async def running(**controllers: ControllerConfig) -> AsyncIterator[RecordingOutput]:
    # Nothing is read from the file or written to it.
    hub, output = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60)), RecordingOutput()
    await hub.apply(controllers)
    hub.start(output)
    task = asyncio.create_task(hub.run())
    yield output
    await hub.stop(output)
    await hub.aclose()
    await task


class BadBridge:
    """Accepts connections at times, ends them at random, and sends the beginnings of replies."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._chance = random.Random(seed)

    async def run(self) -> None:
        while True:
            server = await asyncio.start_unix_server(self._serve, self._path)
            try:
                await asyncio.sleep(self._chance.choice((0.1, 1.0, 10.0, 60.0)))
            finally:
                server.close()
                self._path.unlink(missing_ok=True)
            await asyncio.sleep(self._chance.uniform(0, 5))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chance = self._chance
        lasts = chance.choice((0.0, 0.9, 3.0, 100.0))
        asyncio.get_running_loop().call_later(lasts, writer.close)
        sends = chance.random() < 0.7
        with suppress(ConnectionError):
            while await reader.read(4096):
                await asyncio.sleep(chance.uniform(0.8, 0.99))
                if sends and not writer.is_closing():
                    writer.write(realtime()[: chance.randrange(12, 30)])
        writer.close()


async def events_of_bad_bridges(key: str, seed: int, directory: Path) -> list[tuple[float, list[ControllerEvent]]]:
    """Poll or listen to bad bridges for 3000 s. Return each interval with the events of its controller."""
    paths = {name: directory / name for name in INTERVALS}
    bridges = [asyncio.create_task(BadBridge(path, seed).run()) for path in paths.values()]
    configs = {
        name: ControllerConfig.model_validate({key: f"unix:{paths[name]}", "interval": INTERVALS[name]})
        for name in INTERVALS
    }
    async with running(**configs) as output:
        await asyncio.sleep(3000)
    for bridge in bridges:
        bridge.cancel()
    await asyncio.gather(*bridges, return_exceptions=True)
    await asyncio.sleep(200)  # virtual seconds, in which all connections end
    return [
        (interval, [event for event in output.events if event.controller.name == name])
        for name, interval in INTERVALS.items()
    ]


@pytest.mark.parametrize("seed", range(3))
def test_an_event_is_current_until_the_next_one_whatever_the_bridge_does(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @virtual_time
    async def check() -> None:
        monkeypatch.setattr("tracer_async.gateway.hub.uptime", asyncio.get_running_loop().time)
        for interval, events in await events_of_bad_bridges("url", seed, tmp_path):
            assert not any(event.online for event in events)
            assert len(events) > 2000 / max(interval, 25)
            assert [later.reason for before, later in pairwise(events) if not before.is_current(later.monotonic)] == []

    check()


def test_an_event_of_a_listened_line_is_current_until_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @virtual_time
    async def check() -> None:
        monkeypatch.setattr("tracer_async.gateway.hub.uptime", asyncio.get_running_loop().time)
        for interval, events in await events_of_bad_bridges("listen", 1, tmp_path):
            assert len(events) > 15
            gaps = [round(later.monotonic - before.monotonic) for before, later in pairwise(events)]
            # The lifetime is that of a line without faults: three intervals, at least 10 s, and what is on its way.
            assert max(gaps) <= max(3 * interval, 10.0)
            assert all(before.is_current(later.monotonic) for before, later in pairwise(events))

    check()


# What a broker and Home Assistant are told


async def check_offline(judge: Subscriber, *, times: int = 2) -> None:
    """Check that each message that the controller is offline comes before the one before has expired."""
    clock = asyncio.get_running_loop().time
    discovery = await judge.wait_anywhere("homeassistant/device/roof/config")
    expire_after = discovery.json["components"]["connection"]["expire_after"]
    await judge.wait("tracer/bridge/state", "online")
    await judge.wait(CONNECTION, state="offline")
    at = clock()
    for _ in range(times):
        availability = await judge.wait(AVAILABILITY, "offline")
        connection = await judge.wait(CONNECTION, state="offline")
        passed, at = clock() - at, clock()
        assert expire_after > passed
        assert availability.properties["message-expiry-interval"] > passed
        assert connection.properties["message-expiry-interval"] > passed


@pytest.mark.slow
async def test_offline_is_published_again_before_it_expires_if_nothing_answers(
    broker: Broker, tmp_path: Path, peer: Peer
) -> None:
    roof = {"roof": controller(peer.url, interval=0.5, timeout=0.6, retries=1)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        await check_offline(judge)


@pytest.mark.slow
async def test_offline_is_published_again_before_it_expires_if_there_is_no_connection(
    broker: Broker, tmp_path: Path
) -> None:
    roof = {"roof": controller(f"127.0.0.1:{free_port()}", interval=0.5)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        await check_offline(judge)


@pytest.mark.slow
async def test_offline_is_published_again_before_it_expires_if_a_meter_is_silent(
    broker: Broker, tmp_path: Path
) -> None:
    async with heard_line() as (line, _):
        roof = {"roof": ControllerConfig.model_validate({"listen": line.url, "interval": 0.5})}
        async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof) as (hub, _):
            async with asyncio.timeout(20):
                while not (event := hub.latest("roof")) or event.online:
                    await asyncio.sleep(0.02)
            judge.messages[:] = [
                message for message in judge.messages if message.topic not in (AVAILABILITY, CONNECTION)
            ]
            await check_offline(judge)


@pytest.mark.slow
async def test_a_reading_of_a_slow_line_comes_before_the_one_before_has_expired(
    broker: Broker, tmp_path: Path, peer: Peer
) -> None:
    loop = asyncio.get_running_loop()

    async def answer() -> None:
        while True:
            await peer.request(0xA0)
            await asyncio.sleep(1.5)  # the controller's delay
            peer.send(realtime())

    answering = asyncio.create_task(answer())
    roof = {"roof": controller(peer.url, interval=0.2, timeout=5, retries=0)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        message, at = await judge.wait("tracer/roof/state"), loop.time()
        for _ in range(2):
            later = await judge.wait("tracer/roof/state")
            assert message.properties["message-expiry-interval"] > loop.time() - at
            message, at = later, loop.time()
        sensors = (await judge_discovery(broker))["components"]
        assert sensors["battery_voltage"]["expire_after"] == message.properties["message-expiry-interval"]
    answering.cancel()


async def judge_discovery(broker: Broker) -> dict[str, dict[str, dict[str, int]]]:
    topic = "homeassistant/device/roof/config"
    return (await broker.retained(topic))[topic].json


# The dashboard


async def test_a_controller_is_online_to_the_dashboard_for_the_lifetime_that_it_is_told() -> None:
    async with site() as served:
        slow = dataclasses.replace(stub_hub.controller("roof"), event_gap=60.0)
        for ago, online in ((55, True), (70, False)):
            served.hub.put(stub_hub.event(slow, stub_hub.data(), monotonic=uptime() - ago))
            served.hub.controllers[:] = [slow]
            _, answer = await served.ask("GET", "/api/controllers/roof")
            assert answer["online"] is online
            assert (ago < answer["lifetime"]) is online


@pytest.mark.slow
async def test_the_dashboard_shows_a_reading_for_its_lifetime(
    require: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A message with the real time would show that the clock of the page was changed.
    monkeypatch.setattr("tracer_async.gateway.web.streams._KEEP_ALIVE", 600.0)
    slow = dataclasses.replace(stub_hub.controller("roof"), event_gap=23.0)
    hub = stub_hub.StubHub(slow)
    hub.put(stub_hub.event(slow, stub_hub.data(battery_voltage=12.34)))
    async with (
        chromium(require) as browser,
        site(hub) as served,
        opened(browser, "about:blank") as (page, watch),
    ):
        watch.origin = served.url
        await page.clock.install()
        await page.goto(served.url)
        card = page.locator("article")
        await expect(card).to_contain_text("12.34 V")
        await page.clock.fast_forward(20_000)
        await expect(card).to_contain_text(re.compile(r"2\d s ago"))
        await expect(card).to_contain_text("12.34 V")
        await page.clock.fast_forward(8_000)
        await expect(card).to_contain_text("no reading for")
        await expect(card).not_to_contain_text("12.34 V")
