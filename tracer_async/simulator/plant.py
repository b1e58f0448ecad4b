"""What a simulated controller is made of and connected to: panel, charger, battery, load switch and its protections."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tracer_async.protocol import BatteryType, ControlSettings, LoadMode, RealtimeData
from tracer_async.protocol._numbers import check_number
from tracer_async.simulator._battery import Battery
from tracer_async.simulator._charger import Charger, Panel, SetPoints, Stage
from tracer_async.simulator._weather import Weather, noise

__all__ = ["Installation", "Plant"]

_DAY = 86_400.0

# Volts: over-voltage and load reconnect limits, as usual for 12 V systems (no capture shows them).
_OVER_VOLTAGE = 16.0
_OVER_VOLTAGE_ENDS = 15.0
_RECONNECT = 12.6
_NOMINAL_VOLTAGE = 12.0
_OVERLOAD = 1.05
# Amperes that the controller itself draws, and W/m2 under which it takes it for night.
_OWN_CURRENT = 0.01
_DARK = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What is connected to a simulated controller, and where.

    Raises TypeError for what is no number, ValueError for a number out of range (``docs/ranges.md``).
    """

    panel_watts: float = 200.0
    """At 1000 W/m2, as on its label."""
    panel_voltage: float = 34.0
    """Volts at its maximum power point: some 34 for a 24 V panel, some 17 for a 12 V one."""
    battery_capacity: float = 100.0
    """Ampere-hours of a 12 V lead-acid battery."""
    load_watts: float = 18.0
    """What the load draws at any voltage while it is on."""
    rated_current: float = 20.0
    """Amperes that the controller can charge with, and that a load may draw."""
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
            # The control settings have a field of that name, too, with another range.
            checked = f"Installation.{name}" if name == "battery_capacity" else name
            # The dataclass is frozen. A plain float: a numpy.float64 would make everything that depends on it one.
            object.__setattr__(self, name, check_number(checked, getattr(self, name)))
        if not self.sunrise < self.sunset:
            raise ValueError(f"sunset must be above sunrise, which is {self.sunrise} h, not {self.sunset}")


class Plant:
    """The state of it all at one moment, ``now``, in simulated seconds since the midnight of the first day.

    `step` moves it on; whoever assigns to one of the public attributes calls `balance` after it.
    """

    def __init__(self, installation: Installation, *, seed: int, now: int) -> None:
        self.installation = place = installation
        self.now = now
        self.settings = ControlSettings(
            battery_type=BatteryType.SEALED,
            battery_capacity=min(max(round(place.battery_capacity / 10) * 10, 10), 2550),
            temperature_compensation=3,
            load_mode_1=LoadMode.MANUAL,
            load_mode_2=LoadMode.OFF,
        )
        self.switch = True
        """What was last asked for by hand."""
        self.load_watts = place.load_watts
        self.short_circuit = False
        self.forced_irradiance: float | None = None
        self.forced_voltage: float | None = None
        self.battery = Battery(place.battery_capacity, 0.5)
        self.charger = Charger(place.rated_current)
        self.voltage = self.battery.resting_voltage
        """Volts at the battery, without noise."""
        self.load_on = False
        self._panel = Panel(place.panel_watts, place.panel_voltage)
        self._seed = seed * 64  # leaves room for the seeds of weather and noise
        self._weather = Weather(
            seed=self._seed,
            sunrise=place.sunrise,
            sunset=place.sunset,
            cloudiness=place.cloudiness,
            temperature=place.temperature,
        )
        hour = now / 3600.0
        self._dark_since: float | None = None
        if not place.sunrise < hour < place.sunset:
            self._dark_since = now - (hour - place.sunset) % 24.0 * 3600.0
        self._overload = self._over_discharge = self._over_voltage = False
        self._charge_current = self._load_current = 0.0

    @property
    def light(self) -> float:
        """Irradiance in W/m2, forced or from the sky."""
        forced = self.forced_irradiance
        return self._weather.irradiance(self.now) if forced is None else forced

    @property
    def is_protected(self) -> bool:
        """Whether a protection keeps the load off."""
        return self.short_circuit or self._overload or self._over_discharge

    def step(self, seconds: int) -> None:
        """Move on by *seconds*, in one step."""
        self.now += seconds
        self._balance(seconds)

    def skip(self, seconds: int) -> None:
        """Set the time on without anything happening in it."""
        self.now += seconds
        if self._dark_since is not None:
            self._dark_since += seconds

    def balance(self) -> None:
        """Let a change made from outside take effect, in no time at all."""
        self._balance(0)

    def charge_to(self, state_of_charge: float) -> None:
        """Give the battery a state of charge, 0 to 1, and the voltage of one that has had it for long."""
        battery = self.battery
        battery.state_of_charge, battery.polarization = state_of_charge, 0.0
        self._balance(0)
        lasting = battery.current_at(self.charger.aim(self._points()), _DAY)
        battery.settle(min(self._charge_current - self._load_current, lasting))
        self._balance(0)

    def _balance(self, seconds: int) -> None:
        """Find the currents and the voltage that go together now, *seconds* after the last time, and what they trip."""
        light = self.light
        if light >= _DARK:
            self._dark_since = None
        elif self._dark_since is None:
            self._dark_since = self.now
        points = self._points()
        self._flow(light, points, seconds)
        # A tripped protection moves everything once more; so does a change made from outside, in no time at all.
        if self._trip(points) or not seconds:
            self._flow(light, points, 0)
            # A battery that recovers only while nothing is drawn trips once more: then the load stays off.
            if self._trip(points):
                self._flow(light, points, 0)

    def _flow(self, light: float, points: SetPoints, seconds: int) -> None:
        charger, battery = self.charger, self.battery
        watts = self.load_watts * (1.0 + 0.02 * noise(self._seed + 10, self.now, 7.0))
        self._overload = watts > _NOMINAL_VOLTAGE * charger.rated_current * _OVERLOAD
        self.load_on = self._is_load_wanted() and not self.is_protected
        self._load_current = watts / self.voltage if self.load_on else 0.0
        drawn = self._load_current + _OWN_CURRENT
        charge = 0.0 if self._over_voltage else charger.most_current(self._panel.power(light), self.voltage)
        if self.forced_voltage is None:
            limit = battery.current_at(charger.aim(points), seconds) + drawn
            self._charge_current = min(charge, max(limit, 0.0))
            battery.carry(self._charge_current - drawn, seconds)
            # A load that is too much for a small battery brings it down, but not below nothing.
            self.voltage = max(battery.voltage(self._charge_current - drawn), 1.0)
        else:
            self.voltage = self.forced_voltage
            self._charge_current = charge if self.voltage < charger.aim(points) else 0.0
        charger.follow(points, self.voltage, (self._charge_current - drawn) / battery.capacity, seconds)

    def _trip(self, points: SetPoints) -> bool:
        """Set the protections that go by voltage; return whether one has changed."""
        before = self._over_discharge, self._over_voltage
        # By the measured voltage, so that no reading contradicts its own flags.
        voltage = self._measured_voltage()
        self._over_discharge = voltage < (_RECONNECT if self._over_discharge else points.over_discharge)
        self._over_voltage = voltage >= (_OVER_VOLTAGE_ENDS if self._over_voltage else _OVER_VOLTAGE)
        return before != (self._over_discharge, self._over_voltage)

    def _is_load_wanted(self) -> bool:
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
        # The current that a charger switches shows in what it measures: 12.2 to 12.5 V within seconds in a capture.
        spread = 0.01 + 0.004 * self._charge_current
        return round(self.voltage + spread * noise(self._seed + 11, self.now, 2.0), 2)

    def measure(self) -> RealtimeData:
        """Return what the controller measures now."""
        light, points, voltage = self.light, self._points(), self._measured_voltage()
        power = self._panel.power(light)
        used = self.charger.panel_power(self._charge_current, self.voltage) / power if power else 0.0
        # A dark panel reads 0.2 to 0.4 V in captures; a working one moves by a volt as its best point is sought.
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
            # Byte 15 follows the battery voltage in captures: 1AH at 11.94 V, 21H at 12.22 V, 29H at 12.46 V.
            reserved=bytes((0, 0, min(max(round(26 + 25 * (voltage - 11.94)), 0x14), 0x60), 0)),
        )
