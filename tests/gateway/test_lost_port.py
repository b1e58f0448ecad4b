"""A listened port that is lost: the owner reads why there are no readings."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tty
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.gateway.hub_outputs import RecordingOutput
from tests.gateway.mqtt_broker import Broker
from tests.gateway.mqtt_gateway import gateway
from tests.promise.stamping_controller import READ, frame, realtime
from tests.promise.virtual_time import virtual_time
from tracer_async.gateway.config import ControllerConfig, MqttConfig, WebConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.web import WebOutput


def listened(url: str) -> ControllerConfig:
    return ControllerConfig.model_validate({"listen": url, "interval": 1})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
async def test_who_unplugs_the_adapter_reads_that_in_the_log_in_mqtt_and_on_the_dashboard(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    port = tmp_path / "adapter"
    port.symlink_to(os.ttyname(slave))
    async with (
        broker.subscriber() as judge,
        gateway(tmp_path, MqttConfig(url=broker.url), {"roof": listened(str(port))}) as (hub, _),
    ):
        web = WebOutput(WebConfig(listen="127.0.0.1:0"), hub, history=None, zone=None)
        hub.start(web)
        async with asyncio.timeout(20):
            await web.listening.wait()
            while hub.latest("roof") is None:
                os.write(master, frame(READ, realtime(1234)))
                await asyncio.sleep(0.02)
        await judge.wait("tracer/roof/connection", state="online")
        with caplog.at_level(logging.WARNING):
            port.unlink()
            os.close(slave)
            os.close(master)
            reason = (await judge.wait("tracer/roof/connection", state="offline")).json["reason"]
        assert str(port) in reason
        assert "no such" in reason
        assert f"roof is offline: {reason}" in caplog.messages
        headers = {"Connection": "close"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{web.url}api/controllers/roof", headers=headers) as response,
        ):
            assert (await response.json())["reason"] == "the serial port does not exist"
        await hub.stop(web)


class Bridge:
    """Sends a reading to each listener, and ends the connections that a test tells it to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    def hang_up(self) -> None:
        self._writers.pop().close()

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def send(self) -> None:
        self._writers[-1].write(frame(READ, realtime(len(self._writers))))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.send()
        await reader.read()
        writer.close()


@virtual_time
async def _lost_bridge(path: Path) -> None:
    bridge = Bridge(path)
    await bridge.start()
    hub, output = Hub(EnergyLedger(Path("unused"), zone=None, flush_seconds=60)), RecordingOutput()
    await hub.apply({"roof": listened(f"unix:{path}")})
    hub.start(output)
    running = asyncio.create_task(hub.run())
    await output.until(lambda events: events[-1:] and events[-1].online)
    for number in range(2, 5):
        bridge.hang_up()
        await output.until(lambda events, number=number: len(events) == number)  # type: ignore[misc]
        assert output.events[-1].online
        assert output.events[-1].stats.links == number
    bridge.hang_up()
    bridge.stop()
    await output.until(lambda events: not events[-1].online, seconds=60)
    assert str(path) in str(output.events[-1].reason)
    assert output.events[-1].stats.links == 4
    await bridge.start()
    await output.until(lambda events: events[-1].online, seconds=60)
    assert output.events[-1].stats.links == 5
    # The bridge is there, and nobody sends: it is not blamed any more.
    await output.until(lambda events: not events[-1].online, seconds=60)
    assert "no reading heard" in str(output.events[-1].reason)
    await hub.stop(output)
    await hub.aclose()
    await running
    bridge.stop()


def test_the_reason_is_that_of_the_lost_connection_and_each_connection_is_counted(tmp_path: Path) -> None:
    _lost_bridge(tmp_path / "bridge")
