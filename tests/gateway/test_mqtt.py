"""The MQTT output with a real Mosquitto. Mosquitto's own clients say what the broker has."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr

from tests.conftest import entered_in_one_task
from tests.gateway import stub_hub
from tests.gateway.mqtt_broker import Broker, Require
from tests.gateway.mqtt_gateway import controller, gateway
from tests.peer import Peer, realtime
from tracer_async import LoadState
from tracer_async.gateway.config import MqttConfig
from tracer_async.gateway.mqtt import MqttOutput
from tracer_async.simulator import SimulatedTracer, serve_tcp


@pytest.fixture
def tracer() -> SimulatedTracer:
    return SimulatedTracer()


@pytest.fixture
async def url(tracer: SimulatedTracer) -> AsyncIterator[str]:
    async with entered_in_one_task(serve_tcp(tracer)) as url:
        yield url


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait until a warning contains *text*."""
    async with asyncio.timeout(15):
        while not any(text in record.getMessage() for record in warnings(caplog)):
            await asyncio.sleep(0.01)


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def error_of(output: MqttOutput) -> str | None:
    return output.state.error


# Readings


async def test_a_reading_is_one_retained_json_object_that_expires_after_three_intervals(
    broker: Broker, tmp_path: Path, url: str, tracer: SimulatedTracer
) -> None:
    async with (
        broker.subscriber() as judge,
        gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url, interval=1.5)}),
    ):
        message = await judge.wait("tracer/roof/state", load_on=tracer.realtime().load_on)
        assert message.retained
        assert message.properties["message-expiry-interval"] == 5
        availability = await judge.wait("tracer/roof/availability", "online")
        assert availability.retained
        # It is replaced when the next reading fails, which may take longer.
        assert availability.properties["message-expiry-interval"] > 5
        bridge = await judge.wait("tracer/bridge/state", "online")
        assert bridge.retained
        assert "message-expiry-interval" not in bridge.properties
    state = message.json
    assert abs((datetime.now(UTC) - datetime.fromisoformat(state.pop("time"))).total_seconds()) < 60
    assert 0 <= state.pop("age") < 10
    measured = {key: value for key, value in state.items() if "energy" not in key}
    assert measured.keys() == tracer.realtime().to_dict().keys()
    assert measured["battery_voltage"] == pytest.approx(tracer.realtime().battery_voltage, abs=0.5)


async def test_energy_arrives_in_kilowatt_hours(broker: Broker, tmp_path: Path, url: str) -> None:
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url)}):
        while True:
            state = (await judge.wait("tracer/roof/state")).json
            if state["charge_energy"]:
                break
    # The simulated panel gives less than 1 kW, so in some seconds it is a small part of 1 kWh.
    assert 0 < state["charge_energy"] < 0.1
    assert state["charge_energy_today"] <= state["charge_energy"]


async def test_the_state_is_published_before_the_availability(broker: Broker, tmp_path: Path, url: str) -> None:
    """Whoever follows the availability never sees a value of an earlier run as a present one."""
    roof = {"roof": controller(url, interval=60)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        await judge.wait_anywhere("tracer/roof/availability", "online")
        await judge.wait_anywhere("tracer/bridge/state", "online")
        seen = [message.topic for message in judge.messages if message.payload != "offline"]
        assert seen.index("tracer/roof/state") < seen.index("tracer/roof/availability")


async def test_without_a_reading_of_this_run_the_controller_is_offline(
    broker: Broker, tmp_path: Path, peer: Peer
) -> None:
    await broker.publish("tracer/roof/availability", "online", "-r")
    slow = controller(peer.url, timeout=30)
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": slow}):
        await judge.wait("tracer/roof/availability", "offline")
        await judge.wait("tracer/bridge/state", "online")


async def test_a_controller_without_answer_is_offline_with_the_reason_and_its_state_stays_old(
    broker: Broker, tmp_path: Path, peer: Peer
) -> None:
    options = controller(peer.url, timeout=0.05, retries=0, interval=0.5)
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": options}):
        await peer.request()
        peer.send(realtime())
        await judge.wait("tracer/roof/availability", "online")
        await judge.wait("tracer/roof/connection", state="online", reason=None)
        await judge.wait("tracer/roof/availability", "offline")
        problem = (await judge.wait("tracer/roof/connection", state="offline")).json
        assert "no answer" in problem["reason"].lower() or "timeout" in problem["reason"].lower(), problem
        datetime.fromisoformat(problem["since"])
        await judge.wait("tracer/roof/connection", state="offline", since=problem["since"])
        assert judge.payloads("tracer/roof/state") == []


async def test_while_a_controller_answers_its_connection_does_not_expire(
    broker: Broker, tmp_path: Path, url: str
) -> None:
    roof = {"roof": controller(url, retries=0)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        first = (await judge.wait("tracer/roof/connection", state="online", reason=None)).json
        again = (await judge.wait("tracer/roof/connection", state="online", reason=None)).json
        assert again == first
    assert not judge.payloads("tracer/roof/connection")


# Home Assistant


async def test_the_device_is_announced_again_when_home_assistant_starts(
    broker: Broker, tmp_path: Path, url: str
) -> None:
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url)}):
        first = await judge.wait("homeassistant/device/roof/config")
        assert first.retained
        assert first.json["device"]["name"] == "roof"
        await judge.wait("tracer/bridge/state", "online")
        assert judge.payloads("homeassistant/device/roof/config") == []
        await broker.publish("homeassistant/status", "online")
        again = await judge.wait("homeassistant/device/roof/config")
        assert again.payload == first.payload


async def test_discovery_can_be_switched_off_and_then_what_was_announced_is_deleted(
    broker: Broker, tmp_path: Path, url: str
) -> None:
    roof = {"roof": controller(url)}
    async with broker.subscriber() as judge:
        async with gateway(tmp_path, MqttConfig(url=broker.url), roof):
            await judge.wait("tracer/bridge/state", "online")
        async with gateway(tmp_path, MqttConfig(url=broker.url, discovery=False), roof):
            await judge.wait("homeassistant/device/roof/config", "")
            await judge.wait("tracer/bridge/state", "online")
        assert "homeassistant/device/roof/config" not in await broker.retained()


async def test_a_hostile_title_changes_no_topic_and_arrives_unchanged(broker: Broker, tmp_path: Path, url: str) -> None:
    title = '"><script>alert(1)</script>/+/#\n\u202e{{ states }}'
    roof = {"roof": controller(url, title=title)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof):
        assert (await judge.wait("homeassistant/device/roof/config")).json["device"]["name"] == title
        await judge.wait("tracer/roof/state")
        assert set(await broker.retained()) == {
            "homeassistant/device/roof/config",
            "tracer/bridge/state",
            "tracer/roof/availability",
            "tracer/roof/connection",
            "tracer/roof/state",
        }


# Controllers that go


async def test_a_controller_removed_at_run_time_is_deleted_from_the_broker(
    broker: Broker, tmp_path: Path, url: str
) -> None:
    both = {"roof": controller(url), "shed": controller("sim:")}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), both) as (hub, _):
        await judge.wait_anywhere("tracer/shed/state")
        await judge.wait_anywhere("tracer/bridge/state", "online")
        await hub.remove("shed")
        await judge.wait("homeassistant/device/shed/config", "")
        await judge.wait("tracer/roof/state")
        await judge.wait("tracer/roof/state")
        assert not [topic for topic in await broker.retained() if "shed" in topic]


async def test_a_controller_added_at_run_time_is_announced_before_its_state(
    broker: Broker, tmp_path: Path, url: str
) -> None:
    roof = {"roof": controller(url)}
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), roof) as (hub, _):
        await judge.wait("tracer/bridge/state", "online")
        hub.add("shed", controller("sim:"))
        await judge.wait("homeassistant/device/shed/config")
        await judge.wait("tracer/shed/state")
        await judge.wait("tracer/shed/availability", "online")


async def test_what_changed_while_the_gateway_was_stopped_is_cleaned_up(
    broker: Broker, tmp_path: Path, url: str
) -> None:
    """A controller is gone, one has another name, one has another ID, and then the prefixes change."""
    before = {name: controller("sim:", interval=0.5) for name in ("gone", "named", "numbered")}
    after = {
        "renamed": controller("sim:", interval=0.5, id="named"),
        "numbered": controller("sim:", interval=0.5, id="other"),
    }
    for prefix, discovery_prefix, controllers, ids in [
        ("tracer", "homeassistant", before, {"gone", "named", "numbered"}),
        ("tracer", "homeassistant", after, {"named", "other"}),
        ("home/solar", "ha", after, {"named", "other"}),
    ]:
        config = MqttConfig(url=broker.url, prefix=prefix, discovery_prefix=discovery_prefix)
        async with broker.subscriber() as judge, gateway(tmp_path, config, controllers):
            for name in controllers:
                await judge.wait_anywhere(f"{prefix}/{name}/availability", "online")
            await judge.wait_anywhere(f"{prefix}/bridge/state", "online")
        kinds = ("state", "availability", "connection")
        assert set(await broker.retained()) == {
            f"{prefix}/bridge/state",
            *(f"{discovery_prefix}/device/{each}/config" for each in ids),
            *(f"{prefix}/{name}/{kind}" for name in controllers for kind in kinds),
        }


async def test_a_file_of_topics_that_is_damaged_is_reported_and_written_anew(
    broker: Broker, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mqtt-topics.json"
    file.write_bytes(b'{"version": 1, "topics": \xff')
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url)}):
        await judge.wait("tracer/bridge/state", "online")
    assert any("mqtt-topics.json" in record.getMessage() for record in warnings(caplog))
    assert "tracer/roof/state" in json.loads(file.read_text())["topics"]


# Commands


async def test_a_command_switches_the_load_and_the_state_follows(
    broker: Broker, tmp_path: Path, url: str, tracer: SimulatedTracer
) -> None:
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url)}):
        for on in (False, True):
            await judge.wait("tracer/roof/state", load_on=not on)
            await broker.publish("tracer/roof/load/set", "ON" if on else "OFF")
            await judge.wait("tracer/roof/state", load_on=on)
            assert tracer.realtime().load_on is on


@pytest.mark.parametrize(
    ("topic", "payload", "options", "reason"),
    [
        ("tracer/roof/load/set", "OFF", ["-r"], "retained"),
        ("tracer/roof/load/set", "off", [], "must be ON or OFF"),
        ("tracer/roof/load/set", "ON" * 1000, [], "must be ON or OFF"),
        ("tracer/roof/load/set", "", [], "must be ON or OFF"),
        ("tracer/nobody/load/set", "OFF", [], "no such controller"),
    ],
)
async def test_a_wrong_command_is_ignored_with_a_warning(
    broker: Broker,
    tmp_path: Path,
    tracer: SimulatedTracer,
    url: str,
    caplog: pytest.LogCaptureFixture,
    topic: str,
    payload: str,
    options: list[str],
    reason: str,
) -> None:
    before = tracer.realtime().load_on
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url)}):
        await judge.wait("tracer/bridge/state", "online")
        await broker.publish(topic, payload, *options)
        await logged(caplog, reason)
        await judge.wait("tracer/roof/state", load_on=before)
    assert all(frame.command == 0xA0 for frame in tracer.requests)
    assert all(len(record.getMessage()) < 250 for record in warnings(caplog))


async def test_a_command_that_was_retained_before_the_start_is_ignored_with_a_warning(
    broker: Broker, tmp_path: Path, tracer: SimulatedTracer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.publish("tracer/roof/load/set", "OFF", "-r")
    async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url)}):
        await logged(caplog, "retained")
        await judge.wait("tracer/roof/state", load_on=True)
    assert all(frame.command == 0xA0 for frame in tracer.requests)


async def test_the_broker_queues_no_command_while_the_gateway_is_away(
    broker: Broker, tmp_path: Path, tracer: SimulatedTracer, url: str
) -> None:
    config = MqttConfig(url=broker.url)
    async with broker.subscriber() as judge:
        async with gateway(tmp_path, config, {"roof": controller(url)}):
            await judge.wait("tracer/bridge/state", "online")
        await broker.publish("tracer/roof/load/set", "OFF")
        async with gateway(tmp_path, config, {"roof": controller(url)}):
            await judge.wait("tracer/bridge/state", "online")
            for _ in range(3):
                await judge.wait("tracer/roof/state", load_on=True)
    assert all(frame.command == 0xA0 for frame in tracer.requests)
    # c1: clean start. The client's ID is the same both times.
    assert broker.log.count("as tracer-async-tracer (p5, c1") == 2


@pytest.mark.slow
async def test_a_command_that_fails_is_logged_and_the_true_state_is_published_again(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The controller answers one reading. Then it refuses connections."""
    async with Peer() as peer:
        options = controller(peer.url, interval=30, timeout=0.2, retries=0)
        async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": options}):
            await peer.request()
            peer.send(realtime())
            state = await judge.wait("tracer/roof/state")
            await judge.wait("tracer/bridge/state", "online")
            await broker.publish("tracer/roof/load/set", "ON")
            await logged(caplog, "the load was not switched on: ")
            again = await judge.wait("tracer/roof/state")
            assert again.json == state.json


class SlowHub(stub_hub.StubHub):
    """A hub whose controllers switch only when the test allows it."""

    def __init__(self, *names: str) -> None:
        super().__init__(*(stub_hub.controller(name) for name in names))
        self.started: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self.allowed = asyncio.Semaphore(0)

    async def set_load(self, name: str, on: bool, *, within: float) -> LoadState:
        self.started.put_nowait((name, on))
        await self.allowed.acquire()
        return await super().set_load(name, on, within=within)


@pytest.fixture
async def slow(broker: Broker, tmp_path: Path) -> AsyncIterator[SlowHub]:
    hub = SlowHub("roof", "shed")
    output = MqttOutput(MqttConfig(url=broker.url), hub, directory=tmp_path)
    for each in hub.controllers:
        output.add(each)
    async with broker.subscriber() as judge:
        running = asyncio.create_task(output.run())
        await judge.wait("tracer/bridge/state", "online")
        yield hub
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await output.drain()


async def test_one_command_at_a_time_is_followed_for_each_controller_and_the_newest_wins(
    broker: Broker, slow: SlowHub, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.publish("tracer/roof/load/set", "ON")
    assert await slow.started.get() == ("roof", True)
    for payload in ("OFF", "ON", "OFF"):
        await broker.publish("tracer/roof/load/set", payload)
    await broker.publish("tracer/shed/load/set", "ON")
    assert await slow.started.get() == ("shed", True)  # another controller does not wait
    assert slow.started.empty()
    for _ in range(3):
        slow.allowed.release()
    assert await slow.started.get() == ("roof", False)
    await broker.publish("tracer/roof/load/set", "ON")
    assert await slow.started.get() == ("roof", True)
    assert warnings(caplog) == []


@pytest.mark.slow
async def test_a_command_whose_expiry_ends_while_it_waits_is_late(
    broker: Broker, slow: SlowHub, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.publish("tracer/roof/load/set", "ON")
    await slow.started.get()
    await broker.publish("tracer/roof/load/set", "OFF", "-D", "publish", "message-expiry-interval", "1")
    await asyncio.sleep(1.1)
    slow.allowed.release()
    await logged(caplog, "it is late")
    assert slow.switched == [("roof", True)]
    assert slow.started.empty()


@pytest.mark.slow
@pytest.mark.parametrize(("expiry", "stall"), [(1, 1.2), (None, 5.1)])
async def test_a_command_whose_time_ends_while_the_gateway_is_blocked_is_not_followed(
    broker: Broker, slow: SlowHub, caplog: pytest.LogCaptureFixture, expiry: int | None, stall: float
) -> None:
    """It waited in the socket. Its time began when the gateway read it."""
    options = () if expiry is None else ("-D", "publish", "message-expiry-interval", str(expiry))
    publishing = threading.Thread(
        target=lambda: asyncio.run(broker.publish("tracer/roof/load/set", "OFF", *options))  # from outside
    )
    publishing.start()
    publishing.join()
    time.sleep(stall)  # noqa: ASYNC251  # it blocks the gateway
    await logged(caplog, "the gateway was suspended or blocked, so the command may be")
    assert slow.started.empty()
    await asyncio.sleep(1.1)  # what is read later arrived later
    await broker.publish("tracer/roof/load/set", "ON", *options)
    assert await slow.started.get() == ("roof", True)


async def test_the_time_that_a_command_waited_while_the_gateway_was_blocked_is_part_of_its_5_s(
    broker: Broker, slow: SlowHub
) -> None:
    slow.allowed.release()
    publishing = threading.Thread(target=lambda: asyncio.run(broker.publish("tracer/roof/load/set", "OFF")))
    publishing.start()
    publishing.join()
    time.sleep(1.5)  # noqa: ASYNC251  # it blocks the gateway
    assert await slow.started.get() == ("roof", False)
    while not slow.deadlines:
        await asyncio.sleep(0.01)
    assert 0 < slow.deadlines[0] <= 3.5


@pytest.mark.slow
async def test_the_log_says_what_becomes_of_the_commands_that_the_end_of_the_output_interrupts(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload of ``[mqtt]`` ends the output. Such a command was never mentioned."""
    async with Peer() as peer:
        options = controller(peer.url, interval=3600, timeout=30, retries=0)
        async with (
            broker.subscriber() as judge,
            gateway(tmp_path, MqttConfig(url=broker.url), {"roof": options}) as (hub, output),
        ):
            await peer.request(0xA0)
            peer.send(realtime())
            await judge.wait("tracer/bridge/state", "online")
            await broker.publish("tracer/roof/load/set", "ON")
            await peer.request(0xA0)
            await broker.publish("tracer/roof/load/set", "OFF")  # it waits
            peer.send(realtime())
            await peer.request(0xAA)
            await hub.stop(output)
            lines = [record.getMessage() for record in warnings(caplog)]
            assert lines == [
                "roof: the load was not switched off: the MQTT output was stopped",
                "roof: it is unknown whether the load was switched on: the gateway stopped waiting for it",
            ]


async def test_a_command_may_be_sent_for_5_s_after_its_arrival_or_until_it_expires(
    broker: Broker, slow: SlowHub
) -> None:
    slow.allowed.release()
    await broker.publish("tracer/roof/load/set", "ON")
    await slow.started.get()
    await broker.publish("tracer/roof/load/set", "OFF", "-D", "publish", "message-expiry-interval", "2")
    await slow.started.get()
    await broker.publish("tracer/shed/load/set", "ON")  # the one before waits
    await slow.started.get()
    for _ in range(2):
        slow.allowed.release()
    async with asyncio.timeout(15):
        while len(slow.deadlines) < 3:
            await asyncio.sleep(0.01)
    first, expiring, last = slow.deadlines
    assert 0 < first <= 5
    assert 0 < expiring <= 2
    assert 2 < last <= 5


@pytest.mark.slow
async def test_a_command_that_is_not_confirmed_within_5_s_is_given_up_and_the_next_one_is_followed(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Peer() as peer:
        options = controller(peer.url, interval=3600, timeout=30, retries=0)
        async with broker.subscriber() as judge, gateway(tmp_path, MqttConfig(url=broker.url), {"roof": options}):
            await peer.request(0xA0)
            peer.send(realtime())
            await judge.wait("tracer/bridge/state", "online")
            for payload, data in (("ON", b"\x01"), ("OFF", b"\x00")):
                await broker.publish("tracer/roof/load/set", payload)
                await peer.request(0xA0)
                peer.send(realtime())
                assert (await peer.request(0xAA)).data == data
                unknown = f"it is unknown whether the load was switched {payload.lower()}: roof: it was not confirmed"
                await logged(caplog, f"{unknown} within 5 s")


async def test_commands_are_off_where_the_configuration_says_so_and_the_load_is_no_switch(
    broker: Broker, tmp_path: Path, url: str, tracer: SimulatedTracer
) -> None:
    """A broker that other machines reach, without a user name, has the same effect: `accepts_commands`."""
    assert not MqttConfig(url="mqtt://broker.local").accepts_commands
    assert MqttConfig(url="mqtt://broker.local", username="solar").accepts_commands
    assert MqttConfig(url=broker.url).accepts_commands
    config = MqttConfig(url=broker.url, commands=False)
    async with broker.subscriber() as judge, gateway(tmp_path, config, {"roof": controller(url)}):
        components = (await judge.wait("homeassistant/device/roof/config")).json["components"]
        assert components["load"] == {"platform": "switch"}  # removed
        assert components["load_on"]["platform"] == "binary_sensor"
        await judge.wait("tracer/bridge/state", "online")
        await broker.publish("tracer/roof/load/set", "OFF")
        for _ in range(3):
            await judge.wait("tracer/roof/state", load_on=True)
    assert all(frame.command == 0xA0 for frame in tracer.requests)
    assert "load/set (QoS" not in broker.log  # not subscribed


async def test_after_a_change_of_commands_the_other_entity_of_the_load_is_removed(
    broker: Broker, tmp_path: Path, url: str
) -> None:
    roof, topic = {"roof": controller(url)}, "homeassistant/device/roof/config"
    async with broker.subscriber() as judge:
        for commands in (True, False, True):
            async with gateway(tmp_path, MqttConfig(url=broker.url, commands=commands), roof):
                components = (await judge.wait(topic)).json["components"]
                if commands:
                    assert components["load"]["name"] == "Load"
                    assert components["load_on"] == {"platform": "binary_sensor"}
                else:
                    assert components["load_on"]["name"] == "Load"
                    assert components["load"] == {"platform": "switch"}
                await judge.wait_anywhere("tracer/bridge/state", "online")
                assert judge.payloads(topic) == []
                await judge.wait("tracer/bridge/state", "online")


# Connections


@pytest.mark.slow
async def test_after_an_outage_of_the_broker_everything_is_published_again_and_one_line_is_logged(
    broker: Broker, tmp_path: Path, url: str, tracer: SimulatedTracer, caplog: pytest.LogCaptureFixture
) -> None:
    roof = {"roof": controller(url)}
    async with gateway(tmp_path, MqttConfig(url=broker.url), roof) as (hub, output):
        async with broker.subscriber() as judge:
            await judge.wait("tracer/bridge/state", "online")
        await broker.kill()
        await logged(caplog, f"mqtt: broker 127.0.0.1:{broker.port}: ")
        tracer.switch_load(on=False)
        event = hub.latest("roof")
        while event is None or event.reading.data is None or event.reading.data.load_on:
            await asyncio.sleep(0.01)
            event = hub.latest("roof")
        await asyncio.sleep(2)  # at least one more attempt fails, without a line in the log
        assert error_of(output) is not None
        await broker.start()
        async with broker.subscriber() as judge:
            await judge.wait("homeassistant/device/roof/config")
            state = await judge.wait("tracer/roof/state")
            assert state.json["load_on"] is False
            assert datetime.fromisoformat(state.json["time"]).timestamp() >= event.reading.time
            await judge.wait("tracer/roof/availability", "online")
            await judge.wait("tracer/bridge/state", "online")
            await broker.publish("tracer/roof/load/set", "ON")
            await judge.wait("tracer/roof/state", load_on=True)
        assert error_of(output) is None
        assert output.state.dropped == 0
    assert len([record for record in warnings(caplog) if record.getMessage().startswith("mqtt")]) == 1


@pytest.mark.slow
async def test_the_broker_says_offline_when_the_gateway_is_killed(broker: Broker, tmp_path: Path, url: str) -> None:
    async with broker.subscriber() as judge:
        command = [sys.executable, "-m", "tests.gateway.mqtt_gateway", str(tmp_path), broker.url, url]
        process = await asyncio.create_subprocess_exec(*command)
        try:
            await judge.wait("tracer/bridge/state", "online")
            await judge.wait("tracer/roof/availability", "online")
        finally:
            process.kill()
            await process.wait()
        will = await judge.wait("tracer/bridge/state", "offline")
        assert will.retained
        # A controller that was configured before is cleaned up, although the process could not say goodbye.
        async with gateway(tmp_path, MqttConfig(url=broker.url), {"shed": controller("sim:")}):
            await judge.wait("homeassistant/device/roof/config", "")
            await judge.wait("tracer/bridge/state", "online")
        assert not [topic for topic in await broker.retained() if "roof" in topic]


@pytest.mark.slow
async def test_a_command_that_arrives_while_the_gateway_is_suspended_is_ignored(
    broker: Broker, tmp_path: Path, url: str, tracer: SimulatedTracer
) -> None:
    """It waits in the socket, so nobody knows how old it is."""
    command = [sys.executable, "-m", "tests.gateway.mqtt_gateway", str(tmp_path), broker.url, url]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with broker.subscriber() as judge:
            await judge.wait("tracer/bridge/state", "online")
            await judge.wait("tracer/roof/availability", "online")
            await asyncio.sleep(0.05)  # between two readings: no message of its own waits for a confirmation
            process.send_signal(signal.SIGSTOP)
            await broker.publish("tracer/roof/load/set", "OFF")
            await asyncio.sleep(6.5)
            process.send_signal(signal.SIGCONT)
            async with asyncio.timeout(10):
                while b"suspended" not in await process.stderr.readline():
                    pass
            await judge.wait("tracer/roof/state", load_on=True)
    finally:
        process.kill()
        await process.communicate()
    assert all(frame.command == 0xA0 for frame in tracer.requests)


async def test_a_gateway_that_stops_says_offline_itself(broker: Broker, tmp_path: Path, url: str) -> None:
    async with broker.subscriber() as judge:
        async with gateway(tmp_path, MqttConfig(url=broker.url), {"roof": controller(url)}):
            await judge.wait("tracer/bridge/state", "online")
        await judge.wait("tracer/bridge/state", "offline")
    assert "Client tracer-async-tracer disconnected.\n" in broker.log


@pytest.mark.slow
async def test_it_stops_while_a_broker_accepts_the_connection_and_does_not_answer(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is closed: a late answer must not take the session from the next connection."""
    connections: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()
    writers = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        connections.put_nowait(reader)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    config = MqttConfig(url=f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with gateway(tmp_path, config, {"roof": controller(url)}):
        assert await (await connections.get()).read() == b""  # only tests whether the port is open
        reader = await connections.get()
        assert (await reader.read(1)) == b"\x10"  # CONNECT
    async with asyncio.timeout(10):
        await reader.read()
    assert "does not end" not in caplog.text
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


@pytest.mark.slow
async def test_it_ends_at_whatever_moment_it_is_cancelled(broker: Broker, tmp_path: Path) -> None:
    """In Python 3.11 `wait_for`, which aiomqtt uses, sometimes forgets a cancellation."""
    controllers = [stub_hub.controller(f"c{number}", interval=1.0) for number in range(20)]
    hub, measured = stub_hub.StubHub(*controllers), stub_hub.data()
    delivered = 0
    for number in range(40):
        output = MqttOutput(MqttConfig(url=broker.url), hub, directory=tmp_path)
        for each in controllers:
            output.add(each)
        running = asyncio.create_task(output.run())
        while not output.state.connected:
            await asyncio.sleep(0.001)
        for _ in range(number):
            for each in controllers:
                output.publish(stub_hub.event(each, measured))
            await asyncio.sleep(0)
        running.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([running])
        assert running.cancelled()
        delivered += output.state.delivered
    assert delivered > 0


@pytest.mark.slow
async def test_a_second_gateway_with_the_same_client_id_is_reported_with_the_reason(
    broker: Broker, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    config = MqttConfig(url=broker.url, client_id="twin")
    async with broker.subscriber() as judge, gateway(tmp_path / "first", config, {"roof": controller(url)}):
        await judge.wait("tracer/bridge/state", "online")
        async with gateway(tmp_path / "second", config, {"shed": controller("sim:")}):
            # Newer brokers say it at the first time, Mosquitto 2.0.11 does not.
            await logged(caplog, "client ID 'twin'")


async def test_a_password_is_needed_and_a_wrong_one_is_reported_without_it(
    tmp_path: Path, require: Require, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    passwords = tmp_path / "passwords"
    program = require("mosquitto_passwd")
    process = await asyncio.create_subprocess_exec(program, "-c", "-b", passwords, "solar", "correct horse")
    assert await process.wait() == 0
    broker = Broker(require, tmp_path, settings=f"allow_anonymous false\npassword_file {passwords}")
    broker.options = ["-u", "solar", "-P", "correct horse"]
    await broker.start()
    try:
        right = MqttConfig(url=broker.url, username="solar", password=SecretStr("correct horse"))
        async with broker.subscriber() as judge, gateway(tmp_path, right, {"roof": controller(url)}):
            await judge.wait("tracer/bridge/state", "online")
        wrong = MqttConfig(url=broker.url, username="solar", password=SecretStr("battery staple"))
        async with gateway(tmp_path, wrong, {"roof": controller(url)}):
            await logged(caplog, "it does not authorise this client")
        assert "staple" not in caplog.text
    finally:
        await broker.kill()


async def test_tls_with_an_own_authority_and_a_client_certificate(
    tmp_path: Path, require: Require, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, issuer in (("server", authority), ("client", authority), ("stranger", stranger)):
        certificate = issuer.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        certificate.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
    stranger.cert_pem.write_to_path(str(tmp_path / "other-ca.pem"))
    settings = (
        f"cafile {tmp_path}/ca.pem\ncertfile {tmp_path}/server.pem\nkeyfile {tmp_path}/server.key\n"
        "require_certificate true\nallow_anonymous true"
    )
    broker = Broker(require, tmp_path, settings=settings)
    files = [f"{tmp_path}/{name}" for name in ("ca.pem", "client.pem", "client.key")]
    broker.options = ["--cafile", files[0], "--cert", files[1], "--key", files[2]]
    await broker.start()

    def config(authority: str = "ca", certificate: str = "client") -> MqttConfig:
        return MqttConfig(
            url=broker.url.replace("mqtt:", "mqtts:"),
            ca_file=tmp_path / f"{authority}.pem",
            cert_file=tmp_path / f"{certificate}.pem",
            key_file=tmp_path / f"{certificate}.key",
        )

    try:
        roof = {"roof": controller(url)}
        async with broker.subscriber() as judge, gateway(tmp_path, config(), roof):
            await judge.wait("tracer/roof/state")
            await judge.wait("tracer/roof/availability", "online")
        for wrong, reason in (
            (config(authority="other-ca"), "CERTIFICATE_VERIFY_FAILED"),
            (config(certificate="stranger"), "ALERT_UNKNOWN_CA"),
            (config(authority="missing"), "ca_file"),
        ):
            caplog.clear()
            async with gateway(tmp_path, wrong, roof) as (_, output):
                await logged(caplog, reason)
                assert not output.state.connected
    finally:
        await broker.kill()
