"""The simulated installation: panel, charger, battery, load switch and protections."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tracer_async.protocol import BatteryType, ControlSettings, LoadMode, RealtimeData
from tracer_async.protocol._numbers import check_number
from tracer_async.simulator._battery import Battery
from tracer_async.simulator._charger import Charger, Panel, SetPoints, Stage
from tracer_async.simulator._weather import Weather, noise

__all__ = ["Installation", "Plant"]

_DAY = 86_400.0

# Volts: limits for over-voltage and for reconnecting the load, as usual in 12 V systems (no capture shows them).
_OVER_VOLTAGE = 16.0
_OVER_VOLTAGE_END = 15.0
_RECONNECT_VOLTAGE = 12.6
_NOMINAL_VOLTAGE = 12.0
# The load may exceed the rated current by 5 %: its power varies by 2 %, which alone must not trip the protection.
_OVERLOAD = 1.05
# Amperes that the controller itself draws, and the irradiance in W/m2 below which it is night.
_OWN_CURRENT = 0.01
_NIGHT_IRRADIANCE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The devices that are connected to a simulated controller, and their environment.

    Raises TypeError for a value that is not a number, ValueError for a number out of range (``docs/ranges.md``).
    """

    panel_watts: float = 200.0
    """Rated power of the panel in watts, at 1000 W/m2."""
    panel_voltage: float = 34.0
    """Volts at the maximum power point of the panel: about 34 for a 24 V panel, about 17 for a 12 V panel."""
    battery_capacity: float = 100.0
    """Ampere-hours of a 12 V lead-acid battery."""
    load_watts: float = 18.0
    """Watts that the load draws while it is on, at any voltage."""
    rated_current: float = 20.0
    """Maximum charge current, and maximum load current, in amperes."""
    sunrise: float = 6.0
    """Hour of the day."""
    sunset: float = 19.0
    """Hour of the day."""
    cloudiness: float = 0.25
    """Mean cloud cover, 0 (always clear) to 1."""
    temperature: float = 22.0
    """Mean temperature of the battery, degrees Celsius."""

    def __post_init__(self) -> None:
        for field in fields(self):
            name = field.name
            # The control settings also have a field of this name, with a different range.
            checked = f"Installation.{name}" if name == "battery_capacity" else name
            # object.__setattr__, because the dataclass is frozen. A plain float, because a numpy.float64 would turn all
            # values computed from it, and thus the readings, into numpy.float64.
            object.__setattr__(self, name, check_number(checked, getattr(self, name)))
        if not self.sunrise < self.sunset:
            raise ValueError(f"sunset must be above sunrise, which is {self.sunrise} h, not {self.sunset}")


class Plant:
    """The state of the installation at the time ``now``, in simulated seconds since midnight of the first day.

    `step` advances the time. Call `rebalance` after an assignment to a public attribute.
    """

    def __init__(self, installation: Installation, *, seed: int, now: int) -> None:
        self.installation = installation
        self.now: int = now
        self.settings: ControlSettings = ControlSettings(
            battery_type=BatteryType.SEALED,
            battery_capacity=min(max(round(installation.battery_capacity / 10) * 10, 10), 2550),
            temperature_compensation=3,
            load_mode_1=LoadMode.MANUAL,
            load_mode_2=LoadMode.OFF,
        )
        self.switch: bool = True
        """The last requested state of the load, for the manual load mode."""
        self.load_watts: float = installation.load_watts
        self.short_circuit: bool = False
        self.forced_irradiance: float | None = None
        self.forced_voltage: float | None = None
        self.battery: Battery = Battery(installation.battery_capacity, 0.5)
        self.charger: Charger = Charger(installation.rated_current)
        self.voltage: float = self.battery.resting_voltage
        """Volts at the battery, without noise."""
        self.load_on: bool = False
        self.charge_energy: float = 0.0
        """Watt-hours from the charger since the start. Skipped time adds nothing."""
        self.load_energy: float = 0.0
        """Watt-hours to the load since the start. Skipped time adds nothing."""
        self._panel = Panel(installation.panel_watts, installation.panel_voltage)
        self._seed = seed * 64  # weather and noise use the seeds from this one on
        self._weather = Weather(
            seed=self._seed,
            sunrise=installation.sunrise,
            sunset=installation.sunset,
            cloudiness=installation.cloudiness,
            temperature=installation.temperature,
        )
        hour = now / 3600.0
        self._dark_since: float | None = None
        if not installation.sunrise < hour < installation.sunset:
            self._dark_since = now - (hour - installation.sunset) % 24.0 * 3600.0
        self._overload = self._over_discharge = self._over_voltage = False
        self._charge_current = self._load_current = 0.0

    @property
    def light(self) -> float:
        """Irradiance in W/m2: the forced one, or that of the weather."""
        forced = self.forced_irradiance
        return self._weather.irradiance(self.now) if forced is None else forced

    @property
    def is_protected(self) -> bool:
        """Whether a protection keeps the load off."""
        return self.short_circuit or self._overload or self._over_discharge

    def step(self, seconds: int) -> None:
        """Advance the time by *seconds*, in one step."""
        self.now += seconds
        self._update(seconds)

    def skip(self, seconds: int) -> None:
        """Advance the time by *seconds* without simulating them."""
        self.now += seconds
        if self._dark_since is not None:
            self._dark_since += seconds

    def rebalance(self) -> None:
        """Apply a change from outside, in a step of 0 s."""
        self._update(0)

    def charge_to(self, state_of_charge: float) -> None:
        """Set the state of charge, 0 to 1, and the voltage that the battery has after a long time in this state."""
        battery = self.battery
        # The polarization depends on the current, and the current on the polarization. So first compute the current
        # without polarization, then settle at no more than the current that is left after a day at the voltage limit.
        battery.state_of_charge, battery.polarization = state_of_charge, 0.0
        self._update(0)
        steady_current = battery.current_at(self.charger.voltage_limit(self._points()), _DAY)
        battery.settle(min(self._charge_current - self._load_current, steady_current))
        self._update(0)

    def _update(self, seconds: int) -> None:
        """Update the currents, the voltage and the protections for a step of *seconds*."""
        light = self.light
        if light >= _NIGHT_IRRADIANCE:
            self._dark_since = None
        elif self._dark_since is None:
            self._dark_since = self.now
        points = self._points()
        self._update_currents(light, points, seconds)
        # A protection that trips or ends changes the currents, so compute them again. Also after a change from
        # outside, because the load current uses the voltage of the previous pass.
        if self._update_protections(points) or not seconds:
            self._update_currents(light, points, 0)
            # In this pass a protection can only trip. A weak battery is below one limit with its load and above the
            # other without it: if the protection ended here, the load would be on in a reading without the flag.
            if self._update_protections(points, can_end=False):
                self._update_currents(light, points, 0)

    def _update_currents(self, light: float, points: SetPoints, seconds: int) -> None:
        charger, battery = self.charger, self.battery
        watts = self.load_watts * (1.0 + 0.02 * noise(self._seed + 10, self.now, 7.0))
        self._overload = watts > _NOMINAL_VOLTAGE * charger.rated_current * _OVERLOAD
        self.load_on = self._is_load_requested() and not self.is_protected
        self._load_current = watts / self.voltage if self.load_on else 0.0
        drawn = self._load_current + _OWN_CURRENT
        charge = 0.0 if self._over_voltage else charger.max_current(self._panel.power(light), self.voltage)
        if self.forced_voltage is None:
            limit = battery.current_at(charger.voltage_limit(points), seconds) + drawn
            self._charge_current = min(charge, max(limit, 0.0))
            battery.apply_current(self._charge_current - drawn, seconds)
            # A load that is too large for a small battery lowers the voltage, but not below 1 V: the load current is
            # divided by it.
            self.voltage = max(battery.voltage(self._charge_current - drawn), 1.0)
        else:
            self.voltage = self.forced_voltage
            self._charge_current = charge if self.voltage < charger.voltage_limit(points) else 0.0
        # The currents flow during the whole step. So this is the exact integral of the model.
        self.charge_energy += self.voltage * self._charge_current * seconds / 3600.0
        self.load_energy += self.voltage * self._load_current * seconds / 3600.0
        charger.update_stage(points, self.voltage, (self._charge_current - drawn) / battery.capacity, seconds)

    def _update_protections(self, points: SetPoints, *, can_end: bool = True) -> bool:
        """Update the voltage protections. Return whether one has changed."""
        before = over_discharge, over_voltage = self._over_discharge, self._over_voltage
        # Compare the measured voltage, noise included: otherwise a reading could contradict its own flags. The start
        # and the end of a protection are different voltages, so that noise does not switch the load on and off.
        voltage = self._measured_voltage()
        if can_end or not over_discharge:
            self._over_discharge = voltage < (_RECONNECT_VOLTAGE if over_discharge else points.over_discharge)
        if can_end or not over_voltage:
            self._over_voltage = voltage >= (_OVER_VOLTAGE_END if over_voltage else _OVER_VOLTAGE)
        return before != (self._over_discharge, self._over_voltage)

    def _is_load_requested(self) -> bool:
        mode, mode_2 = self.settings.load_mode_1, self.settings.load_mode_2
        if mode is LoadMode.MANUAL:
            return self.switch
        if mode is LoadMode.TEST or mode is LoadMode.OFF:
            return mode is LoadMode.TEST
        if self._dark_since is None or mode is LoadMode.DUSK_TO_DAWN:
            return self._dark_since is not None
        to_dawn = (self.installation.sunrise * 3600.0 - self.now) % _DAY
        return self.now - self._dark_since < mode * 3600 or (mode_2 is not LoadMode.OFF and to_dawn <= mode_2 * 3600)

    def _temperature(self) -> int:
        return round(self._weather.battery_temperature(self.now))

    def _points(self) -> SetPoints:
        return SetPoints.of(self.settings, self._temperature())

    def _measured_voltage(self) -> float:
        # The switched charge current disturbs the measurement: a capture shows 12.2 to 12.5 V within seconds.
        spread = 0.01 + 0.004 * self._charge_current
        return round(self.voltage + spread * noise(self._seed + 11, self.now, 2.0), 2)

    def measure(self) -> RealtimeData:
        """Return the reading of the controller at the present time."""
        light, points, voltage = self.light, self._points(), self._measured_voltage()
        power = self._panel.power(light)
        used = self.charger.panel_power(self._charge_current, self.voltage) / power if power else 0.0
        # In captures a dark panel reads 0.2 to 0.4 V. The voltage of a panel in use varies by about 1 V, because the
        # controller searches for the maximum power point.
        pv = self._panel.terminal_voltage(light, min(used, 1.0))
        pv *= 1.0 + 0.015 * noise(self._seed + 12, self.now, 3.0)
        pv += 0.3 + 0.05 * noise(self._seed + 13, self.now, 900.0)
        charge = round(self._charge_current, 2)
        return RealtimeData(
            battery_voltage=voltage,
            pv_voltage=round(pv, 2),
            load_current=round(self._load_current, 2),
            over_discharge_voltage=round(points.over_discharge, 2),
            battery_full_voltage=round(points.absorption, 2),
            load_on=self.load_on,
            overload=self._overload,
            load_short_circuit=self.short_circuit,
            battery_over_voltage=self._over_voltage,
            over_discharge=self._over_discharge,
            battery_full=self.charger.stage is Stage.FLOAT,
            charging=charge > 0.0,
            battery_temperature=self._temperature(),
            charge_current=charge,
            # In captures byte 15 follows the battery voltage: 1A at 11.94 V, 21 at 12.22 V, 29 at 12.46 V.
            reserved=bytes((0, 0, min(max(round(26 + 25 * (voltage - 11.94)), 0x14), 0x60), 0)),
        )
