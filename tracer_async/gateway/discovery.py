"""What Home Assistant has to know about a controller: the payload of MQTT device discovery.

One message describes the device and all its entities. Source: Home Assistant's documentation, "MQTT discovery" and
the pages of the platforms sensor, binary_sensor and switch. Names are not abbreviated.
"""

from __future__ import annotations

import re
from typing import Any

from tracer_async import __version__
from tracer_async.gateway._mqtt_messages import whole_seconds
from tracer_async.gateway._topics import Topics
from tracer_async.gateway.events import Controller

__all__ = ["device_discovery"]

# Component and field of the state: name, device class, unit, state class, further options.
_SENSORS: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "battery_voltage": ("Battery voltage", "voltage", "V", "measurement", {"suggested_display_precision": 2}),
    "battery_temperature": ("Battery temperature", "temperature", "°C", "measurement", {}),
    "pv_voltage": ("PV voltage", "voltage", "V", "measurement", {"suggested_display_precision": 2}),
    "charge_current": ("Charge current", "current", "A", "measurement", {"suggested_display_precision": 2}),
    "charge_power": ("Charge power", "power", "W", "measurement", {"suggested_display_precision": 1}),
    "load_current": ("Load current", "current", "A", "measurement", {"suggested_display_precision": 2}),
    "load_power": ("Load power", "power", "W", "measurement", {"suggested_display_precision": 1}),
    "charge_energy": ("Charge energy", "energy", "kWh", "total_increasing", {"suggested_display_precision": 3}),
    "load_energy": ("Load energy", "energy", "kWh", "total_increasing", {"suggested_display_precision": 3}),
    "charge_energy_today": (
        "Charge energy today",
        "energy",
        "kWh",
        "total_increasing",
        {"suggested_display_precision": 3},
    ),
    "load_energy_today": ("Load energy today", "energy", "kWh", "total_increasing", {"suggested_display_precision": 3}),
    "over_discharge_voltage": (
        "Over-discharge voltage",
        "voltage",
        "V",
        "measurement",
        {"entity_category": "diagnostic", "suggested_display_precision": 2},
    ),
    "battery_full_voltage": (
        "Battery full voltage",
        "voltage",
        "V",
        "measurement",
        {"entity_category": "diagnostic", "suggested_display_precision": 2},
    ),
}

# Component and field of the state: name, device class.
_BINARY_SENSORS: dict[str, tuple[str, str | None]] = {
    "charging": ("Charging", "battery_charging"),
    "battery_full": ("Battery full", None),
    "overload": ("Load overload", "problem"),
    "load_short_circuit": ("Load short circuit", "problem"),
    "battery_over_voltage": ("Battery over-voltage", "problem"),
    "over_discharge": ("Battery over-discharge", "problem"),
}


def device_discovery(controller: Controller, topics: Topics, *, commands: bool) -> dict[str, Any]:
    """Return the payload. Without *commands* the load is a binary sensor instead of a switch.

    An entity is available if both the gateway and the controller are. Only "Connection" is shown while the controller
    is offline: it has the reason among its attributes.
    """
    bridge = {"topic": topics.bridge}
    return {
        "device": {
            "identifiers": [f"tracer_async_{controller.id}"],
            "name": controller.title,
            "manufacturer": "EPsolar",
            "model": "Tracer (MT-5)",
        },
        "origin": {"name": "tracer-async", "sw_version": __version__},
        "availability": [bridge, {"topic": topics.availability(controller.name)}],
        "availability_mode": "all",
        "state_topic": topics.state(controller.name),
        "components": {
            **{field: _sensor(controller, field) for field in _SENSORS},
            **{field: _binary_sensor(controller, field, *_BINARY_SENSORS[field]) for field in _BINARY_SENSORS},
            **_load(controller, topics, commands=commands),
            "connection": {
                **_entity(controller, "binary_sensor", "connection", "Connection"),
                "device_class": "connectivity",
                "entity_category": "diagnostic",
                "availability": [bridge],
                "state_topic": topics.availability(controller.name),
                "value_template": "{{ 'ON' if value == 'online' else 'OFF' }}",
                "json_attributes_topic": topics.connection(controller.name),
                "expire_after": whole_seconds(controller.lifetime),
            },
        },
    }


def _entity(controller: Controller, platform: str, key: str, name: str) -> dict[str, Any]:
    return {
        "platform": platform,
        "unique_id": f"tracer_async_{controller.id}_{key}",
        "default_entity_id": _entity_id(platform, controller.id, key),
        "name": name,
    }


def _entity_id(platform: str, controller_id: str, key: str) -> str:
    """Home Assistant allows a-z, 0-9 and single underscores, none at the end."""
    words = re.findall(r"[a-z0-9]+", f"tracer_{controller_id}_{key}")
    return f"{platform}.{'_'.join(words)}"


def _sensor(controller: Controller, field: str) -> dict[str, Any]:
    name, device_class, unit, state_class, options = _SENSORS[field]
    return {
        **_entity(controller, "sensor", field, name),
        "value_template": f"{{{{ value_json.{field} }}}}",
        "device_class": device_class,
        "unit_of_measurement": unit,
        "state_class": state_class,
        "expire_after": whole_seconds(controller.reading_lifetime),
        **options,
    }


def _binary_sensor(controller: Controller, field: str, name: str, device_class: str | None) -> dict[str, Any]:
    return {
        **_entity(controller, "binary_sensor", field, name),
        "value_template": _on_or_off(field),
        "expire_after": whole_seconds(controller.reading_lifetime),
        **({} if device_class is None else {"device_class": device_class}),
    }


def _load(controller: Controller, topics: Topics, *, commands: bool) -> dict[str, Any]:
    """Return the load as a switch or as a binary sensor, and the order to remove the other one.

    Home Assistant removes a component that consists of its platform alone, and ignores the order if there is no such
    component. So the payload is right whatever was announced before, in this run or in an earlier one.
    """
    if commands:
        return {"load": _load_switch(controller, topics), "load_on": {"platform": "binary_sensor"}}
    return {"load_on": _binary_sensor(controller, "load_on", "Load", None), "load": {"platform": "switch"}}


def _load_switch(controller: Controller, topics: Topics) -> dict[str, Any]:
    # Not optimistic: it changes when a reading shows the change. The platform has no expire_after.
    return {
        **_entity(controller, "switch", "load", "Load"),
        "device_class": "switch",
        "value_template": _on_or_off("load_on"),
        "command_topic": topics.load_set(controller.name),
        "payload_on": "ON",
        "payload_off": "OFF",
        "optimistic": False,
        "retain": False,
        "qos": 1,
    }


def _on_or_off(field: str) -> str:
    return f"{{{{ 'ON' if value_json.{field} else 'OFF' }}}}"
