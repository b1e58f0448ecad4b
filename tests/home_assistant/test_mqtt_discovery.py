"""Home Assistant's MQTT integration with the payloads of the gateway."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from homeassistant.const import STATE_OFF, STATE_ON, STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.core import HomeAssistant, State
from homeassistant.helpers import device_registry, entity_registry
from pytest_homeassistant_custom_component.common import async_fire_mqtt_message, async_fire_time_changed

from tests.gateway import stub_hub
from tracer_async import RealtimeData
from tracer_async.gateway._mqtt_messages import connection_message, state_message
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.discovery import device_discovery
from tracer_async.gateway.events import EnergyTotals

TOPICS = Topics("tracer", "homeassistant")
TITLE = 'Roof "1" <b>&amp;\n{{ states }}'
ROOF = stub_hub.controller("roof", title=TITLE)
DATA = RealtimeData(
    battery_voltage=12.95,
    pv_voltage=31.4,
    load_current=1.27,
    over_discharge_voltage=11.1,
    battery_full_voltage=14.4,
    load_on=True,
    overload=False,
    load_short_circuit=True,
    battery_over_voltage=False,
    over_discharge=False,
    battery_full=False,
    charging=True,
    battery_temperature=-7,
    charge_current=4.2,
)
ENERGY = EnergyTotals(
    charge=123456.7, load=2345.6, day=date(2026, 6, 1), charge_today=812.3, load_today=99.0, unknown=3.0
)

# Name, class, unit, state class, state, category.
SENSORS = {
    "battery_voltage": ("Battery voltage", "voltage", "V", "measurement", 12.95, None),
    "battery_temperature": ("Battery temperature", "temperature", "°C", "measurement", -7, None),
    "pv_voltage": ("PV voltage", "voltage", "V", "measurement", 31.4, None),
    "charge_current": ("Charge current", "current", "A", "measurement", 4.2, None),
    "charge_power": ("Charge power", "power", "W", "measurement", 54.39, None),
    "load_current": ("Load current", "current", "A", "measurement", 1.27, None),
    "load_power": ("Load power", "power", "W", "measurement", 16.45, None),
    "charge_energy": ("Charge energy", "energy", "kWh", "total_increasing", 123.4567, None),
    "load_energy": ("Load energy", "energy", "kWh", "total_increasing", 2.3456, None),
    "charge_energy_today": ("Charge energy today", "energy", "kWh", "total_increasing", 0.8123, None),
    "load_energy_today": ("Load energy today", "energy", "kWh", "total_increasing", 0.099, None),
    "over_discharge_voltage": ("Over-discharge voltage", "voltage", "V", "measurement", 11.1, "diagnostic"),
    "battery_full_voltage": ("Battery full voltage", "voltage", "V", "measurement", 14.4, "diagnostic"),
}
# Name, class, state, category.
BINARY_SENSORS = {
    "charging": ("Charging", "battery_charging", STATE_ON, None),
    "battery_full": ("Battery full", None, STATE_OFF, None),
    "overload": ("Load overload", "problem", STATE_OFF, None),
    "load_short_circuit": ("Load short circuit", "problem", STATE_ON, None),
    "battery_over_voltage": ("Battery over-voltage", "problem", STATE_OFF, None),
    "over_discharge": ("Battery over-discharge", "problem", STATE_OFF, None),
    "connection": ("Connection", "connectivity", STATE_ON, "diagnostic"),
}


class House:
    """A Home Assistant that receives what the gateway publishes."""

    def __init__(self, hass: HomeAssistant, client: Any) -> None:
        self.hass = hass
        self.client = client

    async def receive(self, topic: str, payload: bytes | str) -> None:
        text = payload if isinstance(payload, str) else payload.decode()
        async_fire_mqtt_message(self.hass, topic, text)
        await self.hass.async_block_till_done()

    async def discover(self, *, commands: bool = True) -> None:
        payload = device_discovery(ROOF, TOPICS, commands=commands)
        await self.receive(TOPICS.discovery("roof"), json.dumps(payload))

    async def read(self, energy: EnergyTotals = ENERGY, **changes: Any) -> None:
        event = stub_hub.event(ROOF, DATA._replace(**changes), energy=energy)
        await self.receive(TOPICS.state("roof"), state_message(event))
        await self.receive(TOPICS.availability("roof"), "online")
        await self.receive(TOPICS.connection("roof"), connection_message(event.since, None))

    def entity(self, platform: str, key: str) -> entity_registry.RegistryEntry:
        registry = entity_registry.async_get(self.hass)
        entity_id = registry.async_get_entity_id(platform, "mqtt", f"tracer_async_roof_{key}")
        assert entity_id is not None, key
        entry = registry.async_get(entity_id)
        assert entry is not None
        return entry

    def state(self, platform: str, key: str) -> State:
        state = self.hass.states.get(self.entity(platform, key).entity_id)
        assert state is not None
        return state

    def states(self) -> dict[str, str]:
        """The states of all entities by their keys, except the one of the connection."""
        registry = entity_registry.async_get(self.hass)
        keys = {
            each.unique_id.removeprefix("tracer_async_roof_"): each.entity_id for each in registry.entities.values()
        }
        del keys["connection"]
        return {key: self.hass.states.get(entity_id).state for key, entity_id in keys.items()}


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What Home Assistant's log has against the messages."""
    return [
        record.getMessage()
        for record in caplog.get_records("setup") + caplog.get_records("call")
        if record.levelno >= logging.WARNING
        and (record.name.startswith("homeassistant.components.mqtt") or "tracer" in record.getMessage())
    ]


@pytest.fixture
async def house(hass: HomeAssistant, mqtt_mock: Any, caplog: pytest.LogCaptureFixture) -> AsyncIterator[House]:
    """A house that knows the device. At the end its log must have no warning about it."""
    house = House(hass, mqtt_mock)
    await house.discover()
    yield house
    await hass.async_block_till_done()
    assert complaints(caplog) == []


@pytest.fixture
async def online(house: House) -> House:
    """A house that has received a reading."""
    await house.receive(TOPICS.bridge, "online")
    await house.read()
    return house


async def test_there_is_one_device_with_the_title_as_its_name(house: House) -> None:
    devices = device_registry.async_get(house.hass)
    device = devices.async_get_device({("mqtt", "tracer_async_roof")})
    assert device is not None
    assert (device.name, device.manufacturer) == (TITLE, "EPsolar")
    registry = entity_registry.async_get(house.hass)
    entities = entity_registry.async_entries_for_device(registry, device.id)
    assert len(entities) == len(SENSORS) + len(BINARY_SENSORS) + 1


@pytest.mark.parametrize("key", SENSORS)
async def test_sensor(online: House, key: str) -> None:
    name, device_class, unit, state_class, value, category = SENSORS[key]
    entry, state = online.entity("sensor", key), online.state("sensor", key)
    assert float(state.state) == pytest.approx(value)
    assert state.attributes["device_class"] == device_class
    assert state.attributes["unit_of_measurement"] == unit
    assert state.attributes["state_class"] == state_class
    assert entry.original_name == name
    assert entry.entity_category == category
    assert entry.disabled_by is None


@pytest.mark.parametrize("key", BINARY_SENSORS)
async def test_binary_sensor(online: House, key: str) -> None:
    name, device_class, value, category = BINARY_SENSORS[key]
    entry, state = online.entity("binary_sensor", key), online.state("binary_sensor", key)
    assert state.state == value
    assert state.attributes.get("device_class") == device_class
    assert entry.original_name == name
    assert entry.entity_category == category


async def test_the_load_is_a_switch_that_waits_for_the_confirmation(online: House) -> None:
    switch = online.state("switch", "load")
    assert switch.state == STATE_ON
    assert switch.attributes["device_class"] == "switch"
    assert "assumed_state" not in switch.attributes
    await online.hass.services.async_call("switch", "turn_off", {"entity_id": switch.entity_id}, blocking=True)
    online.client.async_publish.assert_called_once_with("tracer/roof/load/set", "OFF", 1, False)
    assert online.state("switch", "load").state == STATE_ON
    await online.read(load_on=False)
    assert online.state("switch", "load").state == STATE_OFF
    online.client.async_publish.reset_mock()
    await online.hass.services.async_call("switch", "turn_on", {"entity_id": switch.entity_id}, blocking=True)
    online.client.async_publish.assert_called_once_with("tracer/roof/load/set", "ON", 1, False)


async def test_before_the_first_reading_everything_is_unavailable(house: House) -> None:
    assert set(house.states().values()) == {STATE_UNAVAILABLE}
    await house.receive(TOPICS.bridge, "online")
    assert set(house.states().values()) == {STATE_UNAVAILABLE}


async def test_without_the_gateway_everything_is_unavailable(online: House) -> None:
    await online.receive(TOPICS.bridge, "offline")
    assert set(online.states().values()) == {STATE_UNAVAILABLE}
    assert online.state("binary_sensor", "connection").state == STATE_UNAVAILABLE


async def test_a_controller_that_is_offline_is_unavailable_and_the_connection_says_why(online: House) -> None:
    await online.receive(TOPICS.availability("roof"), "offline")
    await online.receive(TOPICS.connection("roof"), connection_message(time.time(), "no answer"))
    assert set(online.states().values()) == {STATE_UNAVAILABLE}
    connection = online.state("binary_sensor", "connection")
    assert connection.state == STATE_OFF
    assert connection.attributes["reason"] == "no answer"
    datetime.fromisoformat(connection.attributes["since"])
    await online.read()
    assert STATE_UNAVAILABLE not in online.states().values()
    assert online.state("binary_sensor", "connection").attributes["reason"] is None


async def test_energy_that_is_not_known_is_unknown_and_not_0(online: House) -> None:
    await online.read(energy=EnergyTotals())
    unknown = {key for key, state in online.states().items() if state == STATE_UNKNOWN}
    assert unknown == {"charge_energy", "load_energy", "charge_energy_today", "load_energy_today"}


async def test_readings_expire_after_three_intervals(online: House) -> None:
    async_fire_time_changed(online.hass, datetime.now(UTC) + timedelta(seconds=14))
    await online.hass.async_block_till_done()
    assert STATE_UNAVAILABLE not in online.states().values()
    async_fire_time_changed(online.hass, datetime.now(UTC) + timedelta(seconds=17))
    await online.hass.async_block_till_done()
    states = online.states()
    del states["load"]  # a switch has no expire_after
    assert set(states.values()) == {STATE_UNAVAILABLE}


async def test_the_connection_expires_when_the_next_event_is_overdue(online: House) -> None:
    async_fire_time_changed(online.hass, datetime.now(UTC) + timedelta(seconds=ROOF.lifetime - 1))
    await online.hass.async_block_till_done()
    assert online.state("binary_sensor", "connection").state == STATE_ON
    async_fire_time_changed(online.hass, datetime.now(UTC) + timedelta(seconds=ROOF.lifetime + 2))
    await online.hass.async_block_till_done()
    assert online.state("binary_sensor", "connection").state == STATE_UNAVAILABLE


async def test_discovery_that_is_repeated_changes_nothing(online: House) -> None:
    before = online.states()
    await online.discover()
    assert online.states() == before


async def test_empty_messages_remove_the_device_with_all_entities(online: House) -> None:
    # All at once, as they arrive: Home Assistant has not yet removed the entities when the empty state arrives.
    for topic in (TOPICS.discovery("roof"), *TOPICS.retained(ROOF)):
        async_fire_mqtt_message(online.hass, topic, "")
    await online.hass.async_block_till_done()
    assert online.hass.states.async_all() == []
    assert entity_registry.async_get(online.hass).entities.data == {}
    assert device_registry.async_get(online.hass).async_get_device({("mqtt", "tracer_async_roof")}) is None


async def test_the_load_changes_between_switch_and_sensor_and_leaves_no_entity_behind(online: House) -> None:
    """As after a change of `commands`, or from `url` to `listen` and back, while the gateway was stopped."""
    registry = entity_registry.async_get(online.hass)
    number = len(registry.entities)
    for commands in (False, True):
        await online.discover(commands=commands)
        await online.receive(TOPICS.bridge, "online")  # a broker gives retained messages to a new subscriber
        await online.read()
        switch = registry.async_get_entity_id("switch", "mqtt", "tracer_async_roof_load")
        sensor = registry.async_get_entity_id("binary_sensor", "mqtt", "tracer_async_roof_load_on")
        assert (switch is not None, sensor is not None) == (commands, not commands)
        assert len(registry.entities) == number
        assert STATE_UNAVAILABLE not in online.states().values()


async def test_a_warning_would_be_seen(hass: HomeAssistant, mqtt_mock: Any, caplog: pytest.LogCaptureFixture) -> None:
    payload = device_discovery(ROOF, TOPICS, commands=True)
    payload["components"]["battery_voltage"]["unit_of_measurement"] = "W"
    await House(hass, mqtt_mock).receive(TOPICS.discovery("roof"), json.dumps(payload))
    assert len(complaints(caplog)) > 0
