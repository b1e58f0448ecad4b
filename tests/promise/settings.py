"""Settings that the tests write, and the calls of a client that change something."""

from __future__ import annotations

import pytest

from tests.promise.logging_controller import SWITCH, WRITE
from tracer_async import BatteryType, ControlSettings, LoadMode

SETTINGS = ControlSettings(
    battery_type=BatteryType.GEL,
    battery_capacity=100,
    temperature_compensation=3,
    load_mode_1=LoadMode.MANUAL,
    load_mode_2=LoadMode.OFF,
)

# Each with the code of its command.
CALLS = [
    pytest.param(lambda tracer: tracer.set_load(True), SWITCH, id="set_load"),
    pytest.param(lambda tracer: tracer.write_settings(SETTINGS), WRITE, id="write_settings"),
]
