"""The charger of the controller: a panel at its maximum power point, and the three charging stages."""

from __future__ import annotations

from enum import StrEnum
from math import log, sqrt
from typing import NamedTuple

from tracer_async.protocol import BatteryType, ControlSettings

__all__ = ["Charger", "Panel", "SetPoints", "Stage"]

# Heat, dirt and wiring cost a panel 10 % of its rated power, and the conversion in the controller costs 5 %.
_PANEL_EFFICIENCY = 0.9
_CONVERSION_EFFICIENCY = 0.95
# Watts below which the controller does not start to charge.
_MIN_PANEL_POWER = 2.0

# Volts at 25 degrees Celsius. 14.375 V minus 18 mV per degree, and 11.1 V plus 8.5 mV per degree, match the captures
# at 13, 17, 21 and 28 degrees to 0.01 V. The other types and voltages are the usual values; no capture has them.
_ABSORPTION = {BatteryType.GEL: 14.175, BatteryType.SEALED: 14.375, BatteryType.FLOODED: 14.575}
_FLOAT = 13.775
_REBULK_VOLTAGE = 13.2
_OVER_DISCHARGE = 11.1
_CELLS = 6

# Absorption ends after this time in seconds, or earlier when the battery is full: when its current per hour is below
# this fraction of its capacity.
_ABSORPTION_TIME = 7200.0
_TAIL_CURRENT = 0.01


class Stage(StrEnum):
    """The charging stage."""

    BULK = "bulk"
    """All available current charges the battery."""
    ABSORPTION = "absorption"
    """The battery-full voltage is constant, and the current falls."""
    FLOAT = "float"
    """The battery is full. A lower voltage keeps it full."""


class SetPoints(NamedTuple):
    """The voltage limits of the controller, for its settings and the battery temperature."""

    absorption: float
    """Volts. Reported as battery-full voltage."""
    float_: float
    """Volts."""
    over_discharge: float
    """Volts."""

    @classmethod
    def of(cls, settings: ControlSettings, temperature: int) -> SetPoints:
        """Return the set points at *temperature* degrees Celsius.

        The unit of the compensation coefficient is millivolts per degree and cell: the protocol document gives no unit,
        and with this one the value 3 matches the captures.
        """
        above_25 = temperature - 25
        compensation = settings.temperature_compensation / 1000 * _CELLS * above_25
        return cls(
            _ABSORPTION[settings.battery_type] - compensation,
            _FLOAT - compensation,
            _OVER_DISCHARGE + 0.0085 * above_25,
        )


class Panel:
    """A solar panel: *watts* at 1000 W/m2, and *voltage* at its maximum power point on a typical day."""

    __slots__ = ("_voltage", "_watts")

    def __init__(self, watts: float, voltage: float) -> None:
        self._watts = watts
        self._voltage = voltage

    def power(self, irradiance: float) -> float:
        """Return the maximum power in watts at *irradiance* W/m2."""
        return self._watts * _PANEL_EFFICIENCY * irradiance / 1000.0

    def terminal_voltage(self, irradiance: float, used: float) -> float:
        """Return the volts while the fraction *used*, 0 to 1, of its power is drawn. A dark panel has 0 V."""
        # Smaller values could become 0 in the division below, and the logarithm of 0 is undefined.
        if irradiance < 1e-6:
            return 0.0
        light = log(irradiance / 700.0)
        at_max_power = self._voltage * (1.0 + 0.025 * light)
        open_circuit = self._voltage * (1.24 + 0.05 * light) * irradiance / (irradiance + 1.5)
        # The power falls with the square of the distance from the maximum power point. So the voltage is that of the
        # maximum power point if all power is used, and the open-circuit voltage if none is.
        voltage = at_max_power + (open_circuit - at_max_power) * sqrt(1.0 - used) if used else open_circuit
        return max(voltage, 0.0)


class Charger:
    """The charging stage, and the limits of the current."""

    __slots__ = ("_absorption_seconds", "rated_current", "stage")

    def __init__(self, rated_current: float) -> None:
        self.rated_current: float = rated_current
        """Maximum charge current in amperes."""
        self.stage: Stage = Stage.BULK
        self._absorption_seconds = 0.0

    def max_current(self, panel_power: float, voltage: float) -> float:
        """Return the maximum current in amperes that *panel_power* allows at a battery voltage of *voltage*."""
        if panel_power < _MIN_PANEL_POWER:
            return 0.0
        return min(panel_power * _CONVERSION_EFFICIENCY / voltage, self.rated_current)

    def panel_power(self, current: float, voltage: float) -> float:
        """Return the watts that are drawn from the panel for *current* amperes at *voltage* volts."""
        return current * voltage / _CONVERSION_EFFICIENCY

    def voltage_limit(self, points: SetPoints) -> float:
        """Return the voltage at which the charger limits the current."""
        return points.float_ if self.stage is Stage.FLOAT else points.absorption

    def update_stage(self, points: SetPoints, voltage: float, tail_current: float, seconds: float) -> None:
        """Change to the next stage, or back to bulk.

        *voltage* is the battery voltage, *tail_current* the current into the battery as a fraction of its capacity per
        hour.
        """
        if voltage < _REBULK_VOLTAGE:
            self.stage = Stage.BULK
        # Compared at the resolution of the controller, 0.01 V: the computed voltage may stay slightly below the limit.
        is_at_limit = voltage >= points.absorption - 0.01
        if self.stage is Stage.BULK and is_at_limit:
            self.stage = Stage.ABSORPTION
            self._absorption_seconds = 0.0
        elif self.stage is Stage.ABSORPTION and is_at_limit:
            self._absorption_seconds += seconds
            # Not in a step of 0 s: that only applies a change from outside, and the current has not settled yet.
            if self._absorption_seconds >= _ABSORPTION_TIME or (seconds and tail_current < _TAIL_CURRENT):
                self.stage = Stage.FLOAT
