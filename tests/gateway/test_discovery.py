"""The payload of Home Assistant's device discovery, held against a schema written from its documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.gateway.stub_hub import controller, data, event
from tracer_async.gateway._mqtt_messages import state_message
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.discovery import device_discovery

SCHEMA = json.loads(Path(__file__).with_name("mqtt_discovery_schema.json").read_text())
TOPICS = Topics("home/solar", "homeassistant")
NAMES = ["roof", "a", "_", "--", "roof__2", "-roof-", "x" * 64]


def payload(name: str = "roof", *, commands: bool = True, **options: Any) -> dict[str, Any]:
    """The payload after a way through JSON, as Home Assistant receives it."""
    result: dict[str, Any] = json.loads(
        json.dumps(device_discovery(controller(name, **options), TOPICS, commands=commands))
    )
    return result


def entities(whole: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The components except those that consist of their platform alone, which Home Assistant removes."""
    return {key: value for key, value in whole["components"].items() if value.keys() != {"platform"}}


def of_platform(platform: str, **options: Any) -> dict[str, dict[str, Any]]:
    return {key: value for key, value in entities(payload(**options)).items() if value["platform"] == platform}


def test_the_schema_itself_is_valid_and_rejects_what_home_assistant_does_not_have() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    validator = Draft202012Validator(SCHEMA)
    wrong_changes: dict[str, list[dict[str, Any]]] = {
        "battery_voltage": [
            {"unit_of_measurement": "W"},
            {"object_id": "x"},
            {"expire_after": 1.5},
            {"state_class": "total"},
            {"default_entity_id": "sensor.a__b"},
        ],
        "overload": [{"unit_of_measurement": "V"}, {"device_class": "trouble"}],
        "load": [{"expire_after": 15}, {"command_topic": "a/#"}],
        "load_on": [{"name": "Load"}, {"platform": "light"}],
    }
    for key, changes in wrong_changes.items():
        for change in changes:
            wrong = payload()
            wrong["components"][key].update(change)
            assert not validator.is_valid(wrong), (key, change)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("commands", [True, False])
def test_the_payload_matches_the_schema(name: str, commands: bool) -> None:
    Draft202012Validator(SCHEMA).validate(
        payload(name, commands=commands, title='"><script>\n{{ 1 + 1 }}', interval=0.2)
    )


def test_every_entity_has_an_id_of_its_own_also_among_controllers() -> None:
    components = [each for name in ("roof", "shed") for each in entities(payload(name)).values()]
    for key in ("unique_id", "default_entity_id"):
        assert len({each[key] for each in components}) == len(components)


def test_ids_depend_on_the_stable_id_and_topics_on_the_name() -> None:
    before = device_discovery(controller("roof"), TOPICS, commands=True)
    renamed = controller("garage")
    after = device_discovery(type(renamed)("garage", "Garage", "roof", 5.0), TOPICS, commands=True)
    assert after["device"]["identifiers"] == before["device"]["identifiers"]
    for key, component in entities(after).items():
        assert component["unique_id"] == before["components"][key]["unique_id"]
    assert after["state_topic"] == "home/solar/garage/state"
    assert after["components"]["load"]["command_topic"] == "home/solar/garage/load/set"


def test_entities_are_available_if_bridge_and_controller_are() -> None:
    whole = payload()
    assert whole["availability_mode"] == "all"
    assert [each["topic"] for each in whole["availability"]] == [
        "home/solar/bridge/state",
        "home/solar/roof/availability",
    ]
    overriding = [key for key, value in whole["components"].items() if "availability" in value]
    assert overriding == ["connection"]  # it shows that the controller is offline, so it must be available then


@pytest.mark.parametrize(("interval", "seconds"), [(0.2, 1), (1, 3), (5, 15), (7.5, 23), (3600, 10800)])
def test_readings_expire_after_three_intervals_and_the_switch_has_no_such_option(interval: float, seconds: int) -> None:
    readings = of_platform("sensor", interval=interval) | of_platform("binary_sensor", interval=interval)
    connection = readings.pop("connection")
    assert {each["expire_after"] for each in readings.values()} == {seconds}
    # It says that the controller is offline, too. The next such message may take longer.
    assert connection["expire_after"] >= max(seconds, 10)
    assert all("expire_after" not in each for each in of_platform("switch", interval=interval).values())


def test_energies_are_increasing_totals_in_kilowatt_hours() -> None:
    energies = {key: each for key, each in of_platform("sensor").items() if "energy" in key}
    assert set(energies) == {"charge_energy", "load_energy", "charge_energy_today", "load_energy_today"}
    for each in energies.values():
        assert (each["device_class"], each["unit_of_measurement"], each["state_class"]) == (
            "energy",
            "kWh",
            "total_increasing",
        )


def test_every_fault_is_a_binary_sensor_of_class_problem() -> None:
    problems = {key for key, each in of_platform("binary_sensor").items() if each.get("device_class") == "problem"}
    assert problems == {"overload", "load_short_circuit", "battery_over_voltage", "over_discharge"}


def test_the_load_is_a_switch_that_waits_for_the_controller() -> None:
    (switch,) = of_platform("switch").values()
    assert switch["optimistic"] is False
    assert switch["retain"] is False
    assert (switch["payload_on"], switch["payload_off"]) == ("ON", "OFF")


def test_without_commands_there_is_no_switch_but_the_load_is_shown() -> None:
    assert of_platform("switch", commands=False) == {}
    assert "value_json.load_on" in of_platform("binary_sensor", commands=False)["load_on"]["value_template"]


@pytest.mark.parametrize("commands", [True, False])
def test_the_other_entity_of_the_load_is_removed_whatever_was_announced_before(commands: bool) -> None:
    now, other = payload(commands=commands), payload(commands=not commands)
    (gone,) = entities(other).keys() - entities(now).keys()
    assert now["components"].keys() - entities(now).keys() == {gone}
    assert now["components"][gone] == {"platform": entities(other)[gone]["platform"]}


def test_every_field_in_a_template_is_a_field_of_the_state() -> None:
    state = json.loads(state_message(event(controller(), data())))
    for commands in (True, False):
        for key, component in entities(payload(commands=commands)).items():
            fields = re.findall(r"value_json\.(\w+)", component["value_template"])
            assert len(fields) == (0 if key == "connection" else 1)
            assert set(fields) <= state.keys()


def test_a_title_stands_in_the_name_of_the_device_and_nowhere_else() -> None:
    title = 'Dach "Süd" <b>\n+/#'
    whole = payload(title=title)
    assert whole["device"].pop("name") == title
    assert "Dach" not in json.dumps(whole, ensure_ascii=False)
