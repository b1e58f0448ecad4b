"""A simulated Tracer: sun, panel, battery and load behind the three commands. It uses no event loop and no socket.

Two rules:

1. Time comes from the given clock. Each call first advances the simulation to the last whole second, in steps of one
   simulated second, so the frequency of the calls does not change the result. After more than 15 simulated minutes
   without a call the steps are longer (at most 900 steps), and after more than two days all whole days except one are
   skipped. So no call takes more than a few milliseconds.
2. The simulation keeps no random state: weather and noise are functions of seed and time. The same seed and the same
   clock readings give the same bytes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from tracer_async.protocol import CommandCode, ControlSettings, Frame, LoadMode, LoadState, RealtimeData
from tracer_async.protocol._numbers import check_number, check_whole
from tracer_async.simulator._charger import Stage
from tracer_async.simulator._plant import Installation, Plant

__all__ = ["SimulatedTracer"]

_DAY = 86_400
_MAX_STEPS = 900


class SimulatedTracer:
    """A simulated controller with its panel, battery and load; not thread-safe.

    ``time_scale`` is the number of simulated seconds per second of ``clock`` (0 stops the simulation). ``start_hour``
    is the hour of the day, and ``state_of_charge`` (0 to 1) the charge of the battery, at the start.
    Raises TypeError for a value that is not a number, ValueError for a number out of range (``docs/ranges.md``).
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        time_scale: float = 1.0,
        start_hour: float = 10.0,
        state_of_charge: float = 0.6,
        installation: Installation | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        seed = check_whole("seed", seed)
        time_scale = check_number("time_scale", time_scale)
        start_hour = check_number("start_hour", start_hour)
        self.requests: deque[Frame] = deque(maxlen=1000)
        """The last 1000 good frames received, answered or not. You may clear it."""
        self._clock = clock
        self._clock_start = clock()
        self._time_scale = time_scale
        self._start_time = int(start_hour * 3600)
        self._plant = Plant(installation or Installation(), seed=seed, now=self._start_time)
        self._reading: RealtimeData | None = None
        self.state_of_charge = state_of_charge

    # The serial port

    def answer(self, frame: Frame) -> bytes | None:
        """Return the bytes of the reply to a request, or None if a controller does not reply.

        A reply has controller ID 00 and no start-up bytes, as in every capture. The data of an A0 request is ignored,
        because the MT-5 meter sends a byte. AA or AD with invalid data, and any other command, get no reply.
        """
        self.requests.append(frame)
        if frame.command == CommandCode.READ_REALTIME:
            data = self.realtime().to_bytes()
        # The protocol document defines only these two values for AA. No capture shows an answer to any other.
        elif frame.command == CommandCode.MANUAL_CONTROL and frame.data in (b"\x00", b"\x01"):
            data = LoadState(self.switch_load(on=frame.data == b"\x01")).to_bytes()
        elif frame.command == CommandCode.WRITE_SETTINGS:
            try:
                self.settings = ControlSettings.from_bytes(frame.data)
            except ValueError:
                return None
            data = b""
        else:
            return None
        return Frame(0, frame.command, data).encode(start_up=False)

    def realtime(self) -> RealtimeData:
        """Return the present reading of the controller."""
        plant = self._advanced_plant()
        # Kept until time or a change from outside moves the plant: most requests come within the same second.
        if self._reading is None:
            self._reading = plant.measure()
        return self._reading

    def switch_load(self, *, on: bool) -> bool:
        """Do the same as command AA. Return whether the load is on afterwards.

        The switch changes only in the manual load mode, and does not turn on while a protection is active.
        """
        plant = self._advanced_plant()
        # Switching off is always possible, and is remembered: the load stays off when the protection ends.
        if plant.settings.load_mode_1 is LoadMode.MANUAL and not (on and plant.is_protected):
            plant.switch = on
            self._rebalance()
        return plant.load_on

    # State that a test can read and change at any time

    @property
    def installation(self) -> Installation:
        """The installation that was passed to the constructor."""
        return self._plant.installation

    @property
    def settings(self) -> ControlSettings:
        """The control settings, as last written. An assignment does the same as command AD."""
        return self._plant.settings

    @settings.setter
    def settings(self, settings: ControlSettings) -> None:
        plant = self._advanced_plant()
        # A change to the manual mode must not switch the load: the switch takes over the state of the old mode.
        if plant.settings.load_mode_1 is not LoadMode.MANUAL:
            plant.switch = plant.load_on
        plant.settings = settings
        self._rebalance()

    @property
    def load_on(self) -> bool:
        """Whether the load switch is closed."""
        return self._advanced_plant().load_on

    @property
    def stage(self) -> Stage:
        """The charging stage."""
        return self._advanced_plant().charger.stage

    @property
    def hour(self) -> float:
        """The simulated hour of the day, 0 to 24."""
        return self._advanced_plant().now % _DAY / 3600.0

    @property
    def state_of_charge(self) -> float:
        """The charge of the battery, 0 to 1. An assignment also sets the voltage that belongs to this charge."""
        return self._advanced_plant().battery.state_of_charge

    @state_of_charge.setter
    def state_of_charge(self, charge: float) -> None:
        charge = check_number("state_of_charge", charge)
        self._advanced_plant().charge_to(charge)
        self._reading = None

    @property
    def charge_energy(self) -> float:
        """Watt-hours that the charger has delivered since the simulation began: to the battery and to the load.

        It is the exact integral of the model's power, without the noise and the rounding of a reading. Time that a long
        pause between two calls skips (see the module's first rule) adds nothing.
        """
        return self._advanced_plant().charge_energy

    @property
    def load_energy(self) -> float:
        """Watt-hours that the load has drawn since the simulation began. See `charge_energy`."""
        return self._advanced_plant().load_energy

    @property
    def irradiance(self) -> float:
        """Irradiance on the panel in W/m2. Assign a number to fix it (0 is night), or None to use the weather."""
        return self._advanced_plant().light

    @irradiance.setter
    def irradiance(self, irradiance: float | None) -> None:
        if irradiance is not None:
            irradiance = check_number("irradiance", irradiance)
        self._advanced_plant().forced_irradiance = irradiance
        self._rebalance()

    @property
    def battery_voltage(self) -> float:
        """Volts at the battery terminals, without noise.

        Assign a number to replace the battery by a power supply with this voltage (16.2 is over-voltage, 10.9
        over-discharge), or None to connect the battery again.
        """
        return self._advanced_plant().voltage

    @battery_voltage.setter
    def battery_voltage(self, voltage: float | None) -> None:
        if voltage is not None:
            voltage = check_number("SimulatedTracer.battery_voltage", voltage)
        self._advanced_plant().forced_voltage = voltage
        self._rebalance()

    @property
    def load_watts(self) -> float:
        """Watts that the load draws while it is on. More than the rated current is an overload.

        An overload keeps the switch open until the load is reduced.
        """
        return self._plant.load_watts

    @load_watts.setter
    def load_watts(self, watts: float) -> None:
        watts = check_number("load_watts", watts)
        self._advanced_plant().load_watts = watts
        self._rebalance()

    @property
    def short_circuit(self) -> bool:
        """Whether the load is short-circuited. The switch stays open while it is."""
        return self._plant.short_circuit

    @short_circuit.setter
    def short_circuit(self, short_circuit: bool) -> None:
        self._advanced_plant().short_circuit = short_circuit
        self._rebalance()

    def _rebalance(self) -> None:
        self._plant.rebalance()
        self._reading = None

    def _advanced_plant(self) -> Plant:
        """Return the plant, advanced to the present second."""
        plant = self._plant
        behind = self._start_time + int((self._clock() - self._clock_start) * self._time_scale) - plant.now
        if behind > 0:
            self._reading = None
            # Whole days only: the hour of the day, and with it sun and temperature, must stay right. The last day and
            # the rest of a day are simulated, so the battery still gets the state of a day like this.
            if behind > 2 * _DAY:
                days = behind // _DAY - 1
                plant.skip(days * _DAY)
                behind -= days * _DAY
            # Rounded up, so that _MAX_STEPS steps always suffice; 1 s for up to 15 minutes.
            step = -(-behind // _MAX_STEPS)
            while behind > 0:
                plant.step(min(step, behind))
                behind -= step
        return plant
