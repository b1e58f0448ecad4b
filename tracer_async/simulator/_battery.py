"""A model of a 12 V lead-acid battery: its state of charge and its voltage.

Terminal voltage = open-circuit voltage (depends on the state of charge) + polarization (changes slowly) + current times
series resistance (changes at once). A current into the battery is positive. The constants are those of a healthy 100 Ah
battery. The resistances scale with the capacity.
"""

from __future__ import annotations

from bisect import bisect_right
from math import exp

__all__ = ["Battery"]

# State of charge and resting volts at 25 degrees Celsius: the usual table, plus the steep drop of an empty battery.
_RESTING_VOLTAGES = (
    (0.0, 10.5),
    (0.03, 11.0),
    (0.1, 11.5),
    (0.2, 11.78),
    (0.3, 11.95),
    (0.5, 12.2),
    (0.7, 12.43),
    (0.9, 12.66),
    (1.0, 12.82),
)
# Time constant of the polarization in seconds, and resistances of a 100 Ah battery in ohms.
_POLARIZATION_TIME = 150.0
_SERIES_RESISTANCE = 0.02
_DISCHARGE_POLARIZATION_RESISTANCE = 0.02


class Battery:
    """The state of the battery. It changes only through `apply_current`, `settle` and assignments."""

    __slots__ = ("_scale", "capacity", "polarization", "state_of_charge")

    def __init__(self, capacity: float, state_of_charge: float) -> None:
        self.capacity: float = capacity
        """Ampere-hours."""
        self.state_of_charge: float = state_of_charge
        """0 to 1."""
        self.polarization: float = 0.0
        """Volts."""
        self._scale = 100.0 / capacity

    @property
    def resting_voltage(self) -> float:
        """Volts without current, after a long time."""
        charge = self.state_of_charge
        right = min(max(bisect_right(_RESTING_VOLTAGES, (charge, 99.0)), 1), len(_RESTING_VOLTAGES) - 1)
        (charge_0, volts_0), (charge_1, volts_1) = _RESTING_VOLTAGES[right - 1], _RESTING_VOLTAGES[right]
        return volts_0 + (volts_1 - volts_0) * (charge - charge_0) / (charge_1 - charge_0)

    def current_at(self, voltage: float, seconds: float) -> float:
        """Return the amperes that bring the battery to *voltage* within *seconds*.

        The result includes the polarization that the current builds up in this time. Without it, long steps would make
        the voltage oscillate.
        """
        remaining = exp(-seconds / _POLARIZATION_TIME)
        difference = voltage - self.resting_voltage - self.polarization * remaining
        slow = self._polarization_resistance(charging=difference > 0.0) * (1.0 - remaining)
        return difference / (_SERIES_RESISTANCE * self._scale + slow)

    def voltage(self, current: float) -> float:
        """Return the terminal voltage at *current* amperes."""
        return self.resting_voltage + self.polarization + current * _SERIES_RESISTANCE * self._scale

    def apply_current(self, current: float, seconds: float) -> None:
        """Update the state for *current* amperes during *seconds*."""
        remaining = exp(-seconds / _POLARIZATION_TIME)
        self._polarize(current, remaining)
        gain = current * seconds / 3600.0 / self.capacity
        if gain > 0.0:
            # In an almost full battery most of the current produces gas instead of charge.
            gain *= 0.97 * (1.0 - self.state_of_charge**16)
        self.state_of_charge = min(max(self.state_of_charge + gain, 0.0), 1.0)

    def settle(self, current: float) -> None:
        """Set the polarization that *current* leads to after a long time. The state of charge does not change."""
        self._polarize(current, 0.0)

    def _polarize(self, current: float, remaining: float) -> None:
        target = current * self._polarization_resistance(charging=current > 0.0)
        self.polarization = target + (self.polarization - target) * remaining

    def _polarization_resistance(self, *, charging: bool) -> float:
        if not charging:
            return _DISCHARGE_POLARIZATION_RESISTANCE * self._scale
        # The resistance rises with the state of charge, so that a current of a tenth of the capacity per hour brings
        # the battery to 14.4 V at about 85 %.
        return (0.06 + 3.0 * exp(20.0 * (self.state_of_charge - 1.0))) * self._scale
