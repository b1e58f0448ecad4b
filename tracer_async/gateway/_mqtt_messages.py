"""The payloads that the MQTT output publishes about a controller."""

from __future__ import annotations

import json
from math import ceil

from tracer_async.gateway.events import ControllerEvent, EnergyTotals
from tracer_async.records import rounded_age, utc

__all__ = ["OFFLINE", "ONLINE", "connection_message", "state_message", "whole_seconds"]

ONLINE = b"online"
OFFLINE = b"offline"


def whole_seconds(lifetime: float) -> int:
    """Return a lifetime as MQTT and Home Assistant want it: whole seconds, at least 1."""
    return max(ceil(lifetime), 1)


def state_message(event: ControllerEvent) -> bytes:
    """Return the reading as one JSON object. Raises ValueError if the event carries an error.

    Energies are in kWh. What is not known is null, never 0: the totals before the first ones are on disk, and the age
    if nobody has stated it.
    """
    reading = event.reading
    if reading.data is None:
        raise ValueError("an error has no state")
    state = {
        "time": utc(reading.time),
        "age": rounded_age(reading.age),
        **reading.data.to_dict(),
        **_energies(event.energy),
    }
    return json.dumps(state, allow_nan=False).encode()


def connection_message(since: float, reason: str | None) -> bytes:
    """Return since when a controller is offline, and why, as JSON; *reason* is None if it is online."""
    state = "online" if reason is None else "offline"
    return json.dumps({"state": state, "since": utc(since), "reason": reason}).encode()


def _energies(energy: EnergyTotals) -> dict[str, float | str | None]:
    if energy.day is None:
        names = ("charge_energy", "load_energy", "charge_energy_today", "load_energy_today")
        return {**dict.fromkeys(names), "energy_day": None, "energy_unknown_seconds": None}
    return {
        "charge_energy": _kwh(energy.charge),
        "load_energy": _kwh(energy.load),
        "charge_energy_today": _kwh(energy.charge_today),
        "load_energy_today": _kwh(energy.load_today),
        "energy_day": energy.day.isoformat(),
        "energy_unknown_seconds": round(energy.unknown, 3),
    }


def _kwh(watt_hours: float) -> float:
    return round(watt_hours / 1000, 6)
