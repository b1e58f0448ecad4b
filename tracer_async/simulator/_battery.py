"""A 12 V lead-acid battery: state of charge, and a voltage that follows it and the current.

Terminal voltage = open-circuit voltage (by state of charge) + polarization (slow) + current times resistance (at once).
Currents are positive into the battery. The figures are those of a healthy 100 Ah battery; resistances scale with size.
"""

from __future__ import annotations

from bisect import bisect_right
from math import exp

__all__ = ["Battery"]

# State of charge and resting volts at 25 degrees Celsius: the usual table, with the steep end of an empty battery.
_RESTING = (
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
_POLARIZATION_TIME = 150.0
_OHMS = 0.02
_DISCHARGE_OHMS = 0.02


class Battery:
    """The battery's state; it changes only through `carry` and by assignment."""

    __slots__ = ("_scale", "capacity", "polarization", "state_of_charge")

    def __init__(self, capacity: float, state_of_charge: float) -> None:
        self.capacity = capacity
        """Ampere-hours."""
        self.state_of_charge = state_of_charge
        """0 to 1."""
        self.polarization = 0.0
        """Volts."""
        self._scale = 100.0 / capacity

    @property
    def resting_voltage(self) -> float:
        """Volts without current, after a long rest."""
        charge = self.state_of_charge
        right = min(max(bisect_right(_RESTING, (charge, 99.0)), 1), len(_RESTING) - 1)
        (charge_0, volts_0), (charge_1, volts_1) = _RESTING[right - 1], _RESTING[right]
        return volts_0 + (volts_1 - volts_0) * (charge - charge_0) / (charge_1 - charge_0)

    def current_at(self, voltage: float, seconds: float) -> float:
        """Return the amperes that bring the battery to *voltage* within *seconds*.

        It counts on the polarization that the current itself builds up meanwhile, so that long steps do not swing.
        """
        keep = exp(-seconds / _POLARIZATION_TIME)
        left = voltage - self.resting_voltage - self.polarization * keep
        return left / (_OHMS * self._scale + self._slow_resistance(charging=left > 0.0) * (1.0 - keep))

    def voltage(self, current: float) -> float:
        """Return volts at the terminals with *current* amperes flowing."""
        return self.resting_voltage + self.polarization + current * _OHMS * self._scale

    def carry(self, current: float, seconds: float) -> None:
        """Let *current* amperes flow for *seconds*."""
        keep = exp(-seconds / _POLARIZATION_TIME)
        self._polarize(current, keep)
        gain = current * seconds / 3600.0 / self.capacity
        if gain > 0.0:
            # Near the end most of the current makes gas, not charge.
            gain *= 0.97 * (1.0 - self.state_of_charge**16)
        self.state_of_charge = min(max(self.state_of_charge + gain, 0.0), 1.0)

    def settle(self, current: float) -> None:
        """Take the polarization that *current* has when it has flowed for long, without charge or discharge."""
        self._polarize(current, 0.0)

    def _polarize(self, current: float, keep: float) -> None:
        target = current * self._slow_resistance(charging=current > 0.0)
        self.polarization = target + (self.polarization - target) * keep

    def _slow_resistance(self, *, charging: bool) -> float:
        if not charging:
            return _DISCHARGE_OHMS * self._scale
        # A charging battery resists the more the fuller it is: at a tenth of its capacity it meets 14.4 V near 85 %.
        return (0.06 + 3.0 * exp(20.0 * (self.state_of_charge - 1.0))) * self._scale
