"""The payloads of the MQTT output: nothing that is not known is shown as a number."""

from __future__ import annotations

import json
from datetime import date
from math import inf

import pytest

from tests.gateway.stub_hub import controller, data, event
from tracer_async.gateway._mqtt_messages import connection_message, state_message, whole_seconds
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.config import MqttConfig
from tracer_async.gateway.events import EnergyTotals

ROOF = controller("roof")
ENERGIES = ("charge_energy", "load_energy", "charge_energy_today", "load_energy_today", "energy_unknown_seconds")


def test_energy_that_is_not_on_disk_yet_is_null() -> None:
    state = json.loads(state_message(event(ROOF, data())))
    assert [state[name] for name in (*ENERGIES, "energy_day")] == [None] * 6


def test_energy_is_in_kilowatt_hours() -> None:
    energy = EnergyTotals(charge=1234567.8, load=0.5, day=date(2026, 2, 3), charge_today=0, load_today=1, unknown=2.25)
    state = json.loads(state_message(event(ROOF, data(), energy=energy)))
    assert [state[name] for name in ENERGIES] == [1234.5678, 0.0005, 0.0, 0.001, 2.25]
    assert state["energy_day"] == "2026-02-03"


def test_the_time_is_utc_with_its_offset_and_an_unknown_age_is_null() -> None:
    reading = event(ROOF, data(), at=1_700_000_000.25)
    assert json.loads(state_message(reading))["time"] == "2023-11-14T22:13:20.250Z"
    unknown = event(ROOF, data())
    unknown = type(unknown)(
        ROOF, unknown.reading._replace(age=inf), since=0, monotonic=0, energy=unknown.energy, stats=unknown.stats
    )
    assert json.loads(state_message(unknown))["age"] is None


def test_an_error_has_no_state() -> None:
    with pytest.raises(ValueError, match="no state"):
        state_message(event(ROOF, None))


def test_the_connection_says_since_when_and_why() -> None:
    assert json.loads(connection_message(0.0, 'no "answer"')) == {
        "state": "offline",
        "since": "1970-01-01T00:00:00.000Z",
        "reason": 'no "answer"',
    }
    assert json.loads(connection_message(0.0, None))["state"] == "online"


@pytest.mark.parametrize(("interval", "seconds"), [(0.2, 1), (0.5, 2), (5, 15), (3600, 10800)])
def test_a_reading_is_of_use_for_three_intervals_rounded_up(interval: float, seconds: int) -> None:
    assert whole_seconds(controller("roof", interval=interval).reading_lifetime) == seconds


@pytest.mark.parametrize("prefix", ["tracer", "home/solar", "load/set"])
def test_only_a_topic_that_the_filter_matches_commands_a_controller(prefix: str) -> None:
    topics = Topics.of(MqttConfig(url="mqtt://localhost", prefix=prefix))
    assert topics.commanded(topics.load_set("roof")) == "roof"
    for other in (topics.state("roof"), topics.bridge, "homeassistant/status", f"other/{prefix}/roof/load/set"):
        assert topics.commanded(other) is None
