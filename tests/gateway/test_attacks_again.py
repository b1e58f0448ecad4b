"""Slow lines, stalls and suspends: each test is an attack that once did harm. See also `test_attacks`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.gateway.hub_outputs import RecordingOutput
from tests.gateway.mqtt_broker import Broker
from tests.gateway.mqtt_gateway import controller, gateway
from tests.peer import READING, Peer, realtime
from tracer_async.gateway.config import MqttConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub
from tracer_async.protocol import Frame

READ, SWITCH = 0xA0, 0xAA


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as peer:
        yield peer


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(15):
        while not any(text in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING):
            await asyncio.sleep(0.01)


async def test_a_command_that_waits_for_a_slow_reading_is_not_sent_after_its_time(
    broker: Broker, tmp_path: Path, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """The client sends a command after the reading that is in flight. It was sent 9 s late."""
    roof = {"roof": controller(peer.url, timeout=10, retries=0)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        await judge.wait("tracer/bridge/state", "online")
        await peer.request(READ)
        peer.send(realtime())
        await judge.wait("tracer/roof/availability", "online")
        await peer.request(READ)
        await broker.publish("tracer/roof/load/set", "ON", "-D", "publish", "message-expiry-interval", "1")
        await until_logged(caplog, "the load was not switched on: roof: the controller did not answer soon enough")
        peer.send(realtime())
        for _ in range(3):
            assert (await peer.request()).command == READ
            peer.send(realtime())


async def test_a_command_without_effect_is_not_repeated_after_its_time(
    broker: Broker, tmp_path: Path, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """The client repeats a command while the readings show that it had no effect."""
    roof = {"roof": controller(peer.url, timeout=0.2, retries=20)}
    requests: list[int] = []

    async def answer_readings() -> None:
        while True:
            requests.append((await peer.request()).command)
            if requests[-1] == READ:
                peer.send(realtime(READING._replace(load_on=False)))

    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        answering = asyncio.create_task(answer_readings())
        await judge.wait("tracer/bridge/state", "online")
        await judge.wait("tracer/roof/availability", "online")
        await broker.publish("tracer/roof/load/set", "ON", "-D", "publish", "message-expiry-interval", "2")
        await until_logged(caplog, "it is unknown whether the load was switched on: roof: it was not confirmed within")
        sent = requests.count(SWITCH)
        number = len(requests)
        async with asyncio.timeout(15):
            while len(requests) < number + 5:
                await asyncio.sleep(0.01)
        answering.cancel()
        assert sent > 1
        assert requests.count(SWITCH) == sent


@asynccontextmanager
async def answering(peer: Peer, battery_voltage: float) -> AsyncIterator[None]:
    """Answer each reading at once."""

    async def answer() -> None:
        while True:
            await peer.request(READ)
            peer.send(realtime(READING._replace(battery_voltage=battery_voltage)))

    task = asyncio.create_task(answer())
    yield
    task.cancel()


@pytest.mark.slow
async def test_an_answer_that_waited_while_the_gateway_was_stopped_is_not_shown_as_a_present_reading(
    broker: Broker, tmp_path: Path, peer: Peer
) -> None:
    """It was published as a present one, with the availability ``online`` and a full lifetime."""
    command = [sys.executable, "-m", "tests.gateway.mqtt_gateway", str(tmp_path), broker.url, peer.url]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        async with broker.subscriber() as judge:
            async with answering(peer, 11.0):
                await judge.wait("tracer/bridge/state", "online")
                await judge.wait("tracer/roof/state", battery_voltage=11.0)
            await peer.request(READ)
            process.send_signal(signal.SIGSTOP)
            judge.messages.clear()
            peer.send(realtime(READING._replace(battery_voltage=12.0)))
            await asyncio.sleep(12)
            process.send_signal(signal.SIGCONT)
            async with answering(peer, 13.0):
                await judge.wait_anywhere("tracer/roof/state", battery_voltage=13.0)
            states = [message.json for message in judge.messages if message.topic == "tracer/roof/state"]
            assert {state["battery_voltage"] for state in states} == {13.0}
    finally:
        process.kill()
        await process.wait()


async def test_a_controller_that_is_online_and_offline_in_turn_does_not_fill_the_log(
    tmp_path: Path, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each reading was a line: 50 MB a day for five readings a second."""
    caplog.set_level(logging.INFO)
    data = READING.to_bytes()
    nonsense = Frame(0x00, READ, data[:12] + b"\x07" + data[13:]).encode(start_up=False)
    output = RecordingOutput()
    hub = Hub(EnergyLedger(tmp_path / "energy.json", zone=None, flush_seconds=60))
    hub.add("roof", controller(peer.url))
    hub.start(output)
    running = asyncio.create_task(hub.run())
    for number in range(40):
        await peer.request(READ)
        peer.send(realtime() if number % 2 else nonsense)
        await output.until(lambda events, number=number: len(events) > number)  # type: ignore[misc]
    assert {event.online for event in output.events} == {True, False}
    messages = [record.getMessage() for record in caplog.records if record.getMessage().startswith("roof ")]
    assert len(messages) == 21
    assert messages[-1] == "roof changes too often; of this minute no more are logged"
    await hub.stop(output)
    await hub.aclose()
    await running
