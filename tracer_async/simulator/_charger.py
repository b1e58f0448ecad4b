"""The charging half of the controller: a panel at its maximum power point, and the three charging stages."""

from __future__ import annotations

from enum import StrEnum
from math import log, sqrt
from typing import NamedTuple

from tracer_async.protocol import BatteryType, ControlSettings

__all__ = ["Charger", "Panel", "SetPoints", "Stage"]

# Heat, dirt and wiring cost a panel a tenth of its rated power; the controller's conversion a twentieth.
_PANEL_EFFICIENCY = 0.9
_CONVERSION = 0.95
# Watts under which the controller does not start.
_LEAST_POWER = 2.0

# At 25 degrees Celsius. 14.375 V less 18 mV a degree, and 11.1 V plus 8.5 mV a degree, give what
# the captures have at 13, 17, 21 and 28 degrees, to the hundredth. Other types and voltages: the usual ones.
_ABSORPTION = {BatteryType.GEL: 14.175, BatteryType.SEALED: 14.375, BatteryType.FLOODED: 14.575}
_FLOAT = 13.775
_BACK_TO_BULK = 13.2
_OVER_DISCHARGE = 11.1
_CELLS = 6

# Seconds at the absorption voltage; cut short when the battery takes less than this part of its capacity an hour.
_ABSORPTION_TIME = 7200.0
_TAIL = 0.01


class Stage(StrEnum):
    """What the charger is doing to the battery."""

    BULK = "bulk"
    """As much current as the sun gives."""
    ABSORPTION = "absorption"
    """The battery-full voltage is held while the current falls."""
    FLOAT = "float"
    """The battery is full; a lower voltage keeps it so."""


class SetPoints(NamedTuple):
    """The voltages that the controller aims at, for its settings and the battery's temperature."""

    absorption: float
    """Volts; reported as battery-full voltage."""
    float_: float
    """Volts."""
    over_discharge: float
    """Volts."""

    @classmethod
    def of(cls, settings: ControlSettings, temperature: int) -> SetPoints:
        """Return the set points at *temperature* degrees Celsius.

        The coefficient is taken as millivolts a degree and cell (the document gives no unit); 3 fits the captures.
        """
        warmth = temperature - 25
        compensation = settings.temperature_compensation / 1000 * _CELLS * warmth
        return cls(
            _ABSORPTION[settings.battery_type] - compensation,
            _FLOAT - compensation,
            _OVER_DISCHARGE + 0.0085 * warmth,
        )


class Panel:
    """A solar panel of *watts* at 1000 W/m2, and of *voltage* volts at its maximum power point on a usual day."""

    __slots__ = ("_voltage", "_watts")

    def __init__(self, watts: float, voltage: float) -> None:
        self._watts = watts
        self._voltage = voltage

    def power(self, irradiance: float) -> float:
        """Return the most watts that there are to be had at *irradiance* W/m2."""
        return self._watts * _PANEL_EFFICIENCY * irradiance / 1000.0

    def terminal_voltage(self, irradiance: float, used: float) -> float:
        """Return volts while the part *used*, 0 to 1, of its power is drawn; a dark panel has none."""
        if irradiance < 1e-6:  # a number that is smaller still may round to 0 below, which has no logarithm
            return 0.0
        light = log(irradiance / 700.0)
        best = self._voltage * (1.0 + 0.025 * light)
        unloaded = self._voltage * (1.24 + 0.05 * light) * irradiance / (irradiance + 1.5)
        # Power falls with the square of the distance from the best voltage: all used, the best; none, unloaded.
        return max(best + (unloaded - best) * sqrt(1.0 - used), 0.0) if used else max(unloaded, 0.0)


class Charger:
    """The charging stage and what belongs to it."""

    __slots__ = ("_held", "rated_current", "stage")

    def __init__(self, rated_current: float) -> None:
        self.rated_current = rated_current
        """The most amperes it gives."""
        self.stage = Stage.BULK
        self._held = 0.0

    def most_current(self, panel_power: float, voltage: float) -> float:
        """Return the amperes that the sun allows into a battery of *voltage* volts."""
        if panel_power < _LEAST_POWER:
            return 0.0
        return min(panel_power * _CONVERSION / voltage, self.rated_current)

    def panel_power(self, current: float, voltage: float) -> float:
        """Return the watts taken from the panel for *current* amperes at *voltage* volts."""
        return current * voltage / _CONVERSION

    def aim(self, points: SetPoints) -> float:
        """Return the volts that the battery is not to be charged above."""
        return points.float_ if self.stage is Stage.FLOAT else points.absorption

    def follow(self, points: SetPoints, voltage: float, tail: float, seconds: float) -> None:
        """Move on to the next stage, or back to bulk.

        *voltage* is the battery's, *tail* the part of its capacity that flows into it an hour.
        """
        if voltage < _BACK_TO_BULK:
            self.stage = Stage.BULK
        at_aim = voltage >= points.absorption - 0.01
        if self.stage is Stage.BULK and at_aim:
            self.stage = Stage.ABSORPTION
            self._held = 0.0
        elif self.stage is Stage.ABSORPTION and at_aim:
            self._held += seconds
            if self._held >= _ABSORPTION_TIME or (seconds and tail < _TAIL):
                self.stage = Stage.FLOAT
