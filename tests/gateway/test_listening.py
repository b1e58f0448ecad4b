"""A gateway that listens beside a meter: the meter's readings arrive, and nothing is written on its line."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path

import aiohttp
import pytest

from tests.gateway.heard_line import heard_line
from tests.gateway.hub_outputs import RecordingOutput
from tests.gateway.mqtt_broker import Broker
from tests.gateway.mqtt_gateway import gateway
from tests.promise.stamping_controller import READ, SYNC, checksum, frame, realtime
from tracer_async import LoadError, TracerClient
from tracer_async.gateway.config import ControllerConfig, MqttConfig, WebConfig
from tracer_async.gateway.config_file import ConfigError, load_config
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.service import Gateway
from tracer_async.gateway.web import WebOutput
from tracer_async.simulator import SimulatedTracer, serve_tcp


def listened(url: str, *, interval: float = 1.0) -> ControllerConfig:
    return ControllerConfig.model_validate({"listen": url, "interval": interval})


@asynccontextmanager
async def running(folder: Path, **controllers: ControllerConfig) -> AsyncIterator[tuple[Hub, RecordingOutput]]:
    ledger = EnergyLedger(folder / "energy.json", zone=None, flush_seconds=0.05)
    ledger.load()
    hub, output = Hub(ledger), RecordingOutput()
    await hub.apply(controllers)
    hub.start(output)
    tasks = [asyncio.create_task(hub.run()), asyncio.create_task(ledger.run())]
    try:
        yield hub, output
    finally:
        await hub.stop(output)
        await hub.aclose()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await ledger.aclose()


async def read_until(meter: TracerClient, condition: Callable[[], object]) -> None:
    """Let the meter read until *condition* holds."""
    async with asyncio.timeout(20):
        while not condition():
            await meter.read_realtime()
            await asyncio.sleep(0.02)


# Readings


async def test_the_readings_of_the_meter_become_events(tmp_path: Path) -> None:
    async with heard_line() as (line, meter), running(tmp_path, roof=listened(line.url)) as (hub, output):
        await line.heard()
        read = [await meter.read_realtime() for _ in range(10)]
        await output.until(lambda events: events[-1:] and events[-1].reading.data == read[-1])
        # The first ones may have come before the gateway was ready.
        assert len(output.events) >= 5
        assert [event.reading.data for event in output.events] == read[-len(output.events) :]
        assert all(abs(event.reading.time - time.time()) < 60 for event in output.events)
        assert output.events[-1].stats.frames >= 2 * len(output.events)
        assert output.events[-1].stats.requests == 0
        assert hub.latest("roof") is output.events[-1]
        async with asyncio.timeout(10):
            while output.events[-1].reading.age == inf:  # at first it can have waited in the bridge
                await meter.read_realtime()
        assert output.events[-1].reading.age < 5
        assert line.written == b""


async def test_energy_is_counted_from_what_is_heard(tmp_path: Path) -> None:
    noon = SimulatedTracer(start_hour=12)
    async with heard_line(noon) as (line, meter), running(tmp_path, roof=listened(line.url)) as (_, output):
        await line.heard()
        await read_until(meter, lambda: output.events and output.events[-1].energy.charge > 0)
        first, last = output.events[0], output.events[-1]
        highest = max(event.reading.data.charge_power for event in output.events if event.reading.data)
        assert 0 < last.energy.charge <= highest * (last.monotonic - first.monotonic) / 3600


async def test_a_listened_controller_and_a_polled_one_run_side_by_side(tmp_path: Path) -> None:
    polled = ControllerConfig(url="sim:", interval=0.2)
    async with heard_line() as (line, meter), running(tmp_path, shed=polled, roof=listened(line.url)) as (hub, output):
        await line.heard()
        await read_until(meter, lambda: {event.controller.name for event in output.events} == {"shed", "roof"})
        assert [(each.name, each.switchable) for each in hub.all()] == [("shed", True), ("roof", False)]
        assert hub.is_polling()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
async def test_a_service_hears_both_directions_on_two_ports_and_writes_nothing(tmp_path: Path) -> None:
    wires = [os.openpty() for _ in range(2)]
    for _, slave in wires:
        tty.setraw(slave)
    path = tmp_path / "gateway.toml"
    path.write_text(
        f"[controllers.roof]\nlisten = {json.dumps([os.ttyname(slave) for _, slave in wires])}\n"
        '[mqtt]\nurl = "mqtt://127.0.0.1"\n'
    )
    asked = bytes((0x16, READ, 0))
    request = SYNC + asked + checksum(asked).to_bytes(2, "big") + b"\x7f"
    output = RecordingOutput()
    service = Gateway(path, load_config(path), make_output=lambda *_: output)
    task = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(20):
            # The meter reads every 50 ms, from before the gateway listens.
            while not any(event.online for event in output.events):
                os.write(wires[0][0], request)
                os.write(wires[1][0], frame(READ, realtime(1234)))
                await asyncio.sleep(0.05)
    finally:
        service.stop()
        await task
    assert {event.reading.data.battery_voltage for event in output.events if event.reading.data} == {12.34}
    for master, slave in wires:
        os.set_blocking(master, False)
        with pytest.raises(BlockingIOError):
            os.read(master, 1)
        os.close(master)
        os.close(slave)


# No reading


@pytest.mark.slow
async def test_a_silent_line_is_offline_with_the_reason_until_a_reading_is_heard(tmp_path: Path) -> None:
    async with heard_line() as (line, meter), running(tmp_path, roof=listened(line.url, interval=0.2)) as (_, output):
        await line.heard()
        await read_until(meter, lambda: output.events)
        await output.until(lambda events: len(events) > 1 and not events[-2].online, seconds=40)
        silent = output.events[-2:]
        assert all(not event.online and event.reading.data is None for event in silent)
        assert str(silent[0].reason).startswith("no reading heard for 10 s")
        assert silent[0].since == silent[1].since
        # While the line is silent, the last event always describes the present.
        assert silent[0].is_current(silent[1].monotonic)
        await meter.read_realtime()
        await output.until(lambda events: events[-1].online)
        assert line.listeners() == 1


async def test_a_port_that_cannot_be_opened_is_offline_with_the_reason_and_is_tried_again(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    async with running(tmp_path, roof=listened(str(missing))) as (_, output):
        await output.until(lambda events: len(events) == 2)
        assert [event.online for event in output.events] == [False, False]
        assert all(str(missing) in str(event.reason) for event in output.events)


# The load


async def test_the_load_of_a_listened_controller_is_not_switched(tmp_path: Path) -> None:
    async with heard_line() as (line, meter), running(tmp_path, roof=listened(line.url)) as (hub, output):
        await line.heard()
        before = await meter.read_realtime()
        with pytest.raises(LoadError, match="roof: the gateway only listens to this controller"):
            await hub.set_load("roof", not before.load_on, within=5)
        assert (await meter.read_realtime()).load_on == before.load_on
        await read_until(meter, lambda: output.events)
        assert line.written == b""


async def test_the_web_api_answers_why_the_load_cannot_be_switched(tmp_path: Path) -> None:
    async with heard_line() as (line, _), running(tmp_path, roof=listened(line.url)) as (hub, _):
        web = WebOutput(WebConfig(listen="127.0.0.1:0"), hub, history=None, zone=None)
        hub.start(web)
        try:
            async with asyncio.timeout(20):
                await web.listening.wait()
            assert web.url is not None
            headers = {"Origin": web.url.rstrip("/"), "X-Tracer-Async": "1", "Connection": "close"}
            address = f"{web.url}api/controllers/roof/load"
            async with (
                aiohttp.ClientSession() as session,
                session.post(address, json={"on": True}, headers=headers) as response,
            ):
                assert response.status == 409
                assert "the gateway only listens to this controller" in await response.text()
        finally:
            await hub.stop(web)


@pytest.mark.slow
async def test_home_assistant_gets_no_switch_and_a_command_is_ignored(
    require: Callable[[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(require, tmp_path)
    await broker.start()
    config = MqttConfig(url=broker.url)
    topic = "homeassistant/device/roof/config"

    def components(payload: str) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = json.loads(payload)["components"]
        return found

    try:
        async with heard_line() as (line, meter), broker.subscriber() as judge:
            roof = {"roof": listened(line.url)}
            async with gateway(tmp_path, config, roof) as (hub, _):
                await line.heard()
                await read_until(meter, lambda: hub.latest("roof"))
                state = await judge.wait_anywhere("tracer/roof/state")
                assert 10 < state.json["battery_voltage"] < 16
                await judge.wait_anywhere("tracer/bridge/state", "online")
                with caplog.at_level(logging.WARNING):
                    await broker.publish("tracer/roof/load/set", "ON")
                    async with asyncio.timeout(20):
                        while "only listens to this controller" not in caplog.text:
                            await asyncio.sleep(0.02)
                (payload,) = map(components, judge.payloads(topic))
                # A switch of an earlier configuration is removed.
                assert payload["load"] == {"platform": "switch"}
                assert payload["load_on"]["name"] == "Load"
                await judge.wait(topic)
                await hub.apply({"roof": ControllerConfig(url="sim:", interval=0.2)})
                payload = components((await judge.wait(topic)).payload)
                assert payload["load_on"] == {"platform": "binary_sensor"}
                assert payload["load"]["name"] == "Load"
    finally:
        await broker.kill()


# A changed configuration


async def test_a_reload_changes_between_polling_and_listening(tmp_path: Path) -> None:
    async with serve_tcp(SimulatedTracer()) as url, heard_line() as (line, meter):
        polled, heard = ControllerConfig(url=url, interval=0.2), listened(line.url)
        async with running(tmp_path, roof=heard) as (hub, output):
            await line.heard()
            await read_until(meter, lambda: output.events)
            await hub.apply({"roof": polled})
            assert hub.latest("roof") is None
            await line.left()
            number = len(output.events)
            await output.until(lambda events: len(events) > number + 1)
            assert output.events[-1].stats.requests >= 2
            await hub.apply({"roof": heard})
            number = len(output.events)
            await read_until(meter, lambda: len(output.events) > number)
            assert output.events[-1].stats.requests == 0
            assert [(word, each.switchable) for word, each in output.told] == [
                ("add", False),
                ("add", True),
                ("add", False),
            ]


async def test_a_new_title_keeps_the_connection(tmp_path: Path) -> None:
    async with heard_line() as (line, meter), running(tmp_path, roof=listened(line.url)) as (hub, output):
        await line.heard()
        await read_until(meter, lambda: output.events)
        await hub.apply({"roof": listened(line.url).model_copy(update={"title": "House"})})
        frames = output.events[-1].stats.frames
        number = len(output.events)
        await read_until(meter, lambda: len(output.events) > number)
        assert output.events[-1].controller.title == "House"
        assert output.events[-1].stats.frames > frames
        assert output.events[-1].stats.links == 1


async def test_a_removed_controller_is_not_listened_to_any_more(tmp_path: Path) -> None:
    async with heard_line() as (line, _), running(tmp_path, roof=listened(line.url)) as (hub, _):
        await line.heard()
        with pytest.raises(ValueError, match="roof"):
            hub.add("roof", ControllerConfig(url="sim:"))
        await hub.remove("roof")
        await line.left()


# The file


def errors_of(path: Path, text: str) -> list[str]:
    file = path / "gateway.toml"
    file.write_text(text)
    with suppress(ConfigError):
        load_config(file, environment={"SECRET_PORT": "hunter2"})
        return []
    with pytest.raises(ConfigError) as caught:
        load_config(file, environment={"SECRET_PORT": "hunter2"})
    return [error.removeprefix(f"{file}: ") for error in caught.value.errors]


@pytest.mark.parametrize(
    ("written", "expected"),
    [('"/dev/ttyUSB1"', ("/dev/ttyUSB1",)), ('["bridge:1", "bridge:2"]', ("bridge:1", "bridge:2"))],
)
def test_listen_is_one_url_or_two(written: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"[controllers.roof]\nlisten = {written}\n")
    roof = load_config(file).controllers["roof"]
    assert (roof.listen, roof.url) == (expected, None)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ('url = "h:1"\nlisten = "h:2"', "controllers.roof: give url or listen, not both"),
        ("interval = 1", "controllers.roof: url is missing: the address of the controller; or write listen"),
        ('listen = "h:1"\ntimeout = 1', "controllers.roof: timeout has no effect with listen"),
        ('listen = "h:1"\nretries = 2', "controllers.roof: retries has no effect with listen"),
        ('listen = "h:1"\ncontroller_id = 22', "controllers.roof: controller_id has no effect with listen"),
        ('listen = "h"', 'controllers.roof.listen: found "h"; write h:8088 for a bridge'),
        ("listen = []", "controllers.roof.listen: found a list; write one URL, or two if each direction has its own"),
        ('listen = ["h:1", "h:2", "h:3"]', "controllers.roof.listen: found a list; write one URL, or two"),
        ('listen = ["h:1", "H:1"]', "controllers.roof.listen: found a list; both URLs are the same port"),
        ('listen = "sim:"', 'controllers.roof.listen: found "sim:"; sim: has no line to listen to'),
        ("listen = 3", "controllers.roof.listen: found 3; expected a string or a list of strings"),
        ('listen = ["h:1", 3]', "controllers.roof.listen[1]: found 3; expected a string"),
    ],
)
def test_a_wrong_table_is_one_clear_error(keys: str, reason: str, tmp_path: Path) -> None:
    (error,) = errors_of(tmp_path, f"[controllers.roof]\n{keys}\n")
    assert error.startswith(reason)


def test_the_value_of_a_variable_is_in_no_error(tmp_path: Path) -> None:
    (error,) = errors_of(tmp_path, '[controllers.roof]\nlisten = ["h:1", "h:${SECRET_PORT}"]\n')
    assert "hunter2" not in error


@pytest.mark.parametrize("other", ['url = "H:2"', 'listen = "h:2"', 'listen = ["h:3", "tcp://h:2"]'])
def test_two_controllers_cannot_have_one_line(other: str, tmp_path: Path) -> None:
    (error,) = errors_of(tmp_path, f'[controllers.roof]\nlisten = ["h:1", "h:2"]\n[controllers.shed]\n{other}\n')
    assert error.startswith("controllers.shed: it has the same url as controllers.roof")
