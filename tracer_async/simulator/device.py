"""A Tracer made of software: sun, panel, battery and load behind the three commands. It knows no event loop, no socket.

Two rules explain it:

1. Time is what the given clock says. The simulation goes in steps of one simulated second, to the last whole second
   before each question, so how often it is asked changes nothing. Only a jump of over 15 simulated minutes
   takes longer steps (900 of them), and of a longer idle time all whole days but one are left out: no question costs
   more than some milliseconds.
2. Nothing is drawn by lot on the way: weather and noise are functions of seed and time. Same seed, same clock
   readings, same bytes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from tracer_async.protocol import CommandCode, ControlSettings, Frame, LoadMode, LoadState, RealtimeData
from tracer_async.protocol._numbers import check_number, check_whole
from tracer_async.simulator._charger import Stage
from tracer_async.simulator.plant import Installation, Plant

__all__ = ["SimulatedTracer"]

_DAY = 86_400
_MOST_STEPS = 900


class SimulatedTracer:
    """A simulated controller with its panel, battery and load; not safe for use by several threads at once.

    ``time_scale`` is how many simulated seconds pass in one second of ``clock`` (0 stops the simulation);
    ``start_hour`` the hour of the day that it begins at; ``state_of_charge`` (0 to 1) what the battery has by then.
    Raises TypeError for what is no number, ValueError for a number out of range (``docs/ranges.md``).
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
        """The last 1000 good frames received, answered or not; clear it at will."""
        self._clock = clock
        self._begun = clock()
        self._scale = time_scale
        self._start = int(start_hour * 3600)
        self._plant = Plant(installation or Installation(), seed=seed, now=self._start)
        self._reading: RealtimeData | None = None
        self.state_of_charge = state_of_charge

    # What the wire sees

    def answer(self, frame: Frame) -> bytes | None:
        """Return the bytes of the reply to a request, or None where a controller stays silent.

        A reply has controller ID 00 and no start-up bytes, as in every capture. Data sent with A0 is passed over; an
        AA or AD with data that the protocol does not have, and any other command, gets no reply.
        """
        self.requests.append(frame)
        if frame.command == CommandCode.READ_REALTIME:
            data = self.realtime().to_bytes()
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
        """Return what the controller measures now."""
        plant = self._at_present()
        if self._reading is None:
            self._reading = plant.measure()
        return self._reading

    def switch_load(self, *, on: bool) -> bool:
        """Do what command AA does; return whether the load is on after it.

        The switch follows only in the manual load mode, and not to on while a protection keeps the load off.
        """
        plant = self._at_present()
        if plant.settings.load_mode_1 is LoadMode.MANUAL and not (on and plant.is_protected):
            plant.switch = on
            self._rebalance()
        return plant.load_on

    # What the owner sees and may change at any time

    @property
    def installation(self) -> Installation:
        """What the controller was made with."""
        return self._plant.installation

    @property
    def settings(self) -> ControlSettings:
        """The control settings, as last written. Assigning does what command AD does."""
        return self._plant.settings

    @settings.setter
    def settings(self, settings: ControlSettings) -> None:
        plant = self._at_present()
        if plant.settings.load_mode_1 is not LoadMode.MANUAL:
            plant.switch = plant.load_on
        plant.settings = settings
        self._rebalance()

    @property
    def load_on(self) -> bool:
        """Whether the load switch is closed."""
        return self._at_present().load_on

    @property
    def stage(self) -> Stage:
        """The charging stage."""
        return self._at_present().charger.stage

    @property
    def hour(self) -> float:
        """The simulated hour of the day, 0 to 24."""
        return self._at_present().now % _DAY / 3600.0

    @property
    def state_of_charge(self) -> float:
        """The battery's charge, 0 to 1. Assigning takes effect at once, as if it had been so for long."""
        return self._at_present().battery.state_of_charge

    @state_of_charge.setter
    def state_of_charge(self, charge: float) -> None:
        charge = check_number("state_of_charge", charge)
        self._at_present().charge_to(charge)
        self._reading = None

    @property
    def irradiance(self) -> float:
        """Light on the panel in W/m2. Assign a number to hold it there (0 is night), None to give the sky back."""
        return self._at_present().light

    @irradiance.setter
    def irradiance(self, irradiance: float | None) -> None:
        if irradiance is not None:
            irradiance = check_number("irradiance", irradiance)
        self._at_present().forced_irradiance = irradiance
        self._rebalance()

    @property
    def battery_voltage(self) -> float:
        """Volts at the battery terminals, without noise.

        Assign a number to put a bench supply in the battery's place (16.2 is over-voltage, 10.9 over-discharge), None
        to connect the battery again.
        """
        return self._at_present().voltage

    @battery_voltage.setter
    def battery_voltage(self, voltage: float | None) -> None:
        if voltage is not None:
            voltage = check_number("SimulatedTracer.battery_voltage", voltage)
        self._at_present().forced_voltage = voltage
        self._rebalance()

    @property
    def load_watts(self) -> float:
        """What the load draws while it is on, in watts; more than the rated current of it is an overload.

        An overload keeps the switch open until the load is made smaller.
        """
        return self._plant.load_watts

    @load_watts.setter
    def load_watts(self, watts: float) -> None:
        watts = check_number("load_watts", watts)
        self._at_present().load_watts = watts
        self._rebalance()

    @property
    def short_circuit(self) -> bool:
        """Whether the load's wires touch. The switch stays open while they do."""
        return self._plant.short_circuit

    @short_circuit.setter
    def short_circuit(self, short_circuit: bool) -> None:
        self._at_present().short_circuit = short_circuit
        self._rebalance()

    def _rebalance(self) -> None:
        self._plant.balance()
        self._reading = None

    def _at_present(self) -> Plant:
        """Return the plant, brought up to the present second."""
        plant = self._plant
        behind = self._start + int((self._clock() - self._begun) * self._scale) - plant.now
        if behind > 0:
            self._reading = None
            if behind > 2 * _DAY:
                days = behind // _DAY - 1
                plant.skip(days * _DAY)
                behind -= days * _DAY
            step = -(-behind // _MOST_STEPS)
            while behind > 0:
                plant.step(min(step, behind))
                behind -= step
        return plant
