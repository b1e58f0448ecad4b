"""The simulated controller answers as the protocol document says, and its readings are plausible."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer_async.protocol import CommandCode, ControlSettings, Frame, FrameDecoder, LoadMode, RealtimeData
from tracer_async.simulator import Installation, SimulatedTracer, Stage
from tracer_async.simulator._plant import Plant

READ = Frame(0x16, CommandCode.READ_REALTIME, b"")
ON = Frame(0x16, CommandCode.MANUAL_CONTROL, b"\x01")
OFF = Frame(0x16, CommandCode.MANUAL_CONTROL, b"\x00")
CLEAR_SKY = Installation(cloudiness=0.0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def reply_data(tracer: SimulatedTracer, request: Frame) -> bytes:
    wire = tracer.answer(request)
    assert wire is not None
    (event,) = FrameDecoder().feed(wire)
    assert isinstance(event, Frame)
    assert (event.controller_id, event.command) == (0, request.command)
    return event.data


def with_mode(mode_1: LoadMode, mode_2: LoadMode = LoadMode.OFF) -> Frame:
    values = replace(SimulatedTracer().settings, load_mode_1=mode_1, load_mode_2=mode_2)
    return Frame(0x16, CommandCode.WRITE_SETTINGS, values.to_bytes())


# Commands


@pytest.mark.parametrize("controller_id", [0x16, 0x01, 0x00, 0xFF])
@pytest.mark.parametrize("data", [b"", b"\x03", bytes(200)])
def test_a_read_is_answered_for_any_controller_id_and_data(controller_id: int, data: bytes) -> None:
    answer = reply_data(SimulatedTracer(), Frame(controller_id, CommandCode.READ_REALTIME, data))
    assert RealtimeData.from_bytes(answer).to_bytes() == answer


def test_command_aa_switches_the_load_and_returns_its_state(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    assert tracer.realtime().load_on
    assert reply_data(tracer, OFF) == b"\x00"
    assert not tracer.realtime().load_on
    assert tracer.realtime().load_current == 0.0
    assert reply_data(tracer, ON) == b"\x01"
    assert tracer.realtime().load_current > 0.0


def test_command_ad_stores_the_settings_and_its_reply_has_no_data(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    written = ControlSettings(
        battery_type=2,  # type: ignore[arg-type]
        battery_capacity=200,
        temperature_compensation=0,
        load_mode_1=LoadMode.MANUAL,
        load_mode_2=LoadMode.OFF,
    )
    assert reply_data(tracer, Frame(0x16, CommandCode.WRITE_SETTINGS, written.to_bytes())) == b""
    assert tracer.settings == written
    assert tracer.realtime().battery_full_voltage > SimulatedTracer(clock=clock).realtime().battery_full_voltage


@pytest.mark.parametrize(
    "request_",
    [
        Frame(0x16, CommandCode.MANUAL_CONTROL, b""),
        Frame(0x16, CommandCode.MANUAL_CONTROL, b"\x02"),
        Frame(0x16, CommandCode.MANUAL_CONTROL, b"\x01\x00"),
        Frame(0x16, CommandCode.WRITE_SETTINGS, b""),
        Frame(0x16, CommandCode.WRITE_SETTINGS, bytes.fromhex("00000301001112")),
        Frame(0x16, 0xA1, b""),
    ],
)
def test_an_invalid_request_gets_no_reply_and_changes_nothing(clock: Any, request_: Frame) -> None:
    tracer = SimulatedTracer(clock=clock)
    before = tracer.answer(READ), tracer.settings
    assert tracer.answer(request_) is None
    assert (tracer.answer(READ), tracer.settings) == before
    assert list(tracer.requests) == [READ, request_, READ]


@pytest.mark.parametrize(("mode", "is_on"), [(LoadMode.TEST, True), (LoadMode.OFF, False)])
def test_command_aa_switches_the_load_only_in_the_manual_mode(clock: Any, mode: LoadMode, is_on: bool) -> None:
    tracer = SimulatedTracer(clock=clock)
    tracer.answer(with_mode(mode))
    assert tracer.load_on is is_on
    assert reply_data(tracer, OFF if is_on else ON) == bytes([is_on])
    # A change to the manual mode does not switch the load.
    tracer.answer(with_mode(LoadMode.MANUAL))
    assert tracer.load_on is is_on


@pytest.mark.parametrize(
    ("mode_1", "mode_2", "hours_on"),
    [
        (LoadMode.DUSK_TO_DAWN, LoadMode.OFF, range(19, 30)),
        (LoadMode.hours(3), LoadMode.OFF, range(19, 22)),
        (LoadMode.hours(3), LoadMode.hours(2), [19, 20, 21, 28, 29]),
    ],
)
@pytest.mark.parametrize("start_hour", [10.5, 20.5])
def test_the_night_modes_switch_the_load_at_the_right_hours(
    clock: Any, mode_1: LoadMode, mode_2: LoadMode, hours_on: Any, start_hour: float
) -> None:
    tracer = SimulatedTracer(clock=clock, start_hour=start_hour, installation=CLEAR_SKY)
    tracer.answer(with_mode(mode_1, mode_2))
    expected = {hour % 24 for hour in hours_on}
    for _ in range(30):
        assert tracer.load_on is (int(tracer.hour) in expected), tracer.hour
        clock.advance(hours=1)


def test_an_irradiance_of_0_starts_the_night(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock, start_hour=12.0)
    tracer.answer(with_mode(LoadMode.hours(1)))
    seen = [tracer.load_on]
    tracer.irradiance = 0.0
    seen.append(tracer.load_on)
    clock.advance(hours=1)
    seen.append(tracer.load_on)
    assert seen == [False, True, False]
    tracer.irradiance = None
    assert tracer.irradiance > 100.0


# Protections


def test_over_discharge_switches_the_load_off_until_the_reconnect_voltage(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock, start_hour=22.0)
    tracer.state_of_charge = 0.0
    reading = tracer.realtime()
    assert reading.over_discharge
    assert not reading.load_on
    assert reading.battery_voltage < reading.over_discharge_voltage
    assert reply_data(tracer, ON) == b"\x00"
    tracer.state_of_charge = 0.4  # above the over-discharge voltage, but below the reconnect voltage
    assert tracer.realtime().over_discharge
    tracer.state_of_charge = 1.0
    assert not tracer.realtime().over_discharge
    assert tracer.load_on


def test_a_load_that_a_weak_battery_cannot_supply_is_off_in_every_reading(clock: Any) -> None:
    weak = Installation(battery_capacity=5.0, panel_watts=32.0, rated_current=15.0, load_watts=154.0)
    tracer = SimulatedTracer(clock=clock, installation=weak)
    tracer.state_of_charge = 0.0
    for _ in range(60):
        reading = tracer.realtime()
        assert reading.over_discharge or reading.battery_voltage >= reading.over_discharge_voltage
        assert not reading.load_on
        clock.advance(seconds=1)


def test_a_discharged_battery_disconnects_the_load_until_the_sun_has_charged_it(clock: Any) -> None:
    tracer = SimulatedTracer(
        clock=clock, start_hour=20.0, state_of_charge=0.3, installation=Installation(load_watts=60.0)
    )
    lowest = 99.0
    for _ in range(10 * 60):
        clock.advance(seconds=60)
        lowest = min(lowest, tracer.realtime().battery_voltage)
    assert tracer.realtime().over_discharge
    assert 10.8 < lowest < 11.2
    for _ in range(8):
        clock.advance(hours=1)
        if tracer.load_on:
            break
    assert tracer.load_on
    assert not tracer.realtime().over_discharge


def test_a_load_switched_off_during_a_protection_stays_off_afterwards(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    tracer.short_circuit = True
    assert reply_data(tracer, OFF) == b"\x00"
    assert reply_data(tracer, ON) == b"\x00"
    tracer.short_circuit = False
    assert not tracer.load_on
    assert reply_data(tracer, ON) == b"\x01"


def test_a_short_circuit_switches_the_load_off(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    tracer.short_circuit = True
    reading = tracer.realtime()
    assert (reading.load_short_circuit, reading.load_on, reading.load_current) == (True, False, 0.0)
    assert reply_data(tracer, ON) == b"\x00"
    tracer.short_circuit = False
    assert tracer.realtime().load_on


def test_an_overload_switches_the_load_off(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    assert tracer.load_watts == tracer.installation.load_watts
    tracer.load_watts = 400.0
    reading = tracer.realtime()
    assert (reading.overload, reading.load_on) == (True, False)
    tracer.load_watts = 20.0
    assert tracer.load_on


def test_over_voltage_stops_the_charging(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    tracer.battery_voltage = 16.5
    reading = tracer.realtime()
    assert (reading.battery_over_voltage, reading.charging) == (True, False)
    tracer.battery_voltage = None
    reading = tracer.realtime()
    assert (reading.battery_over_voltage, reading.charging) == (False, True)


# The day


@pytest.mark.parametrize("seed", range(4))
def test_the_default_simulation_charges_the_battery_for_two_hours(clock: Any, seed: int) -> None:
    tracer = SimulatedTracer(clock=clock, seed=seed)
    seen = set()
    for _ in range(2 * 60):
        reading = tracer.realtime()
        assert reading.charging
        assert reading.load_on
        seen.add(reading)
        clock.advance(seconds=60)
    assert len(seen) > 110


def test_the_charge_current_changes_every_second(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    currents = []
    for _ in range(60):
        currents.append(tracer.realtime().charge_current)
        clock.advance(seconds=1)
    assert sum(left != right for left, right in pairwise(currents)) > 45


def test_a_clear_day_has_all_three_charging_stages(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock, start_hour=7.0, installation=CLEAR_SKY)
    stages = [tracer.stage]
    while tracer.hour < 17.0:
        clock.advance(seconds=60)
        reading = tracer.realtime()
        assert reading.battery_full is (tracer.stage is Stage.FLOAT)
        if tracer.stage is not stages[-1]:
            stages.append(tracer.stage)
    assert stages == [Stage.BULK, Stage.ABSORPTION, Stage.FLOAT]


def test_a_full_battery_starts_at_the_battery_full_voltage(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock, start_hour=12.0, state_of_charge=1.0)
    assert tracer.stage is Stage.ABSORPTION
    assert tracer.realtime().battery_voltage == pytest.approx(tracer.realtime().battery_full_voltage, abs=0.05)


def check_plausible(tracer: SimulatedTracer, *, nominal_pv: float) -> None:
    reading = tracer.realtime()
    assert RealtimeData.from_bytes(reading.to_bytes()).to_bytes() == reading.to_bytes()
    assert 10.4 <= reading.battery_voltage <= 14.75
    assert 10.9 <= reading.over_discharge_voltage <= 11.3
    assert 14.1 <= reading.battery_full_voltage <= 14.7
    assert 10 <= reading.battery_temperature <= 35
    assert 0.0 <= reading.charge_current <= tracer.installation.rated_current
    assert 0.0 <= reading.load_current <= tracer.installation.rated_current
    assert reading.charging is (reading.charge_current > 0.0)
    if tracer.irradiance == 0.0:
        assert 0.2 <= reading.pv_voltage <= 0.4
        assert not reading.charging
    if reading.charging:
        assert reading.battery_voltage < reading.pv_voltage < 1.4 * nominal_pv
    if reading.load_on:
        assert reading.load_current > 0.0
        assert not reading.over_discharge
    else:
        assert reading.load_current == 0.0
    if reading.battery_full:
        assert reading.battery_voltage > 13.1
    if reading.battery_voltage < reading.over_discharge_voltage:
        assert reading.over_discharge
    assert not reading.overload
    assert not reading.load_short_circuit
    assert not reading.battery_over_voltage
    assert reading.reserved[:2] + reading.reserved[3:] == bytes(3)
    assert 0x14 <= reading.reserved[2] <= 0x60
    assert 0.0 <= tracer.state_of_charge <= 1.0


@settings(max_examples=1, deadline=None)
@given(
    seed=st.integers(),
    start=st.floats(0.0, 23.99),
    charge=st.floats(0.0, 1.0),
    nominal_pv=st.sampled_from([17.0, 34.0]),
    cloudiness=st.floats(0.0, 1.0),
    load_watts=st.floats(5.0, 60.0),
    pauses=st.lists(st.floats(0.1, 14_400.0), min_size=5, max_size=20),
)
def test_a_week_of_readings_is_plausible(
    seed: int,
    start: float,
    charge: float,
    nominal_pv: float,
    cloudiness: float,
    load_watts: float,
    pauses: list[float],
) -> None:
    clock = Clock()
    tracer = SimulatedTracer(
        seed=seed,
        clock=clock,
        start_hour=start,
        state_of_charge=charge,
        installation=Installation(panel_voltage=nominal_pv, cloudiness=cloudiness, load_watts=load_watts),
    )
    while clock.now < 7 * 86_400:
        for pause in pauses:
            check_plausible(tracer, nominal_pv=nominal_pv)
            clock.now += pause
        clock.now += 10_000.0


@settings(max_examples=15, deadline=None)
@given(
    capacity=st.floats(5.0, 2000.0),
    panel_watts=st.floats(0.0, 2000.0),
    rated_current=st.floats(1.0, 100.0),
    load_watts=st.floats(0.0, 2000.0),
    charges=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4),
    pause=st.sampled_from([1.0, 60.0, 3600.0, 86_400.0]),
)
def test_readings_are_plausible_for_any_installation(
    capacity: float, panel_watts: float, rated_current: float, load_watts: float, charges: list[float], pause: float
) -> None:
    clock = Clock()
    installation = Installation(
        battery_capacity=capacity, panel_watts=panel_watts, rated_current=rated_current, load_watts=load_watts
    )
    tracer = SimulatedTracer(clock=clock, installation=installation)
    for charge in charges:
        tracer.state_of_charge = charge
        for _ in range(4):
            reading = tracer.realtime()
            reading.to_bytes()
            assert 6.0 <= reading.battery_voltage <= 14.9
            assert reading.charge_current <= round(rated_current, 2)
            assert not (reading.load_on and reading.over_discharge)
            clock.now += pause


# Time


def test_the_same_seed_and_clock_give_the_same_bytes(clock: Any) -> None:
    one, two, other = (SimulatedTracer(seed=seed, clock=clock) for seed in (7, 7, 8))
    differences = 0
    for _ in range(20):
        clock.advance(seconds=317.3)
        assert one.answer(READ) == two.answer(READ)
        differences += one.answer(READ) != other.answer(READ)
    assert differences > 15


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.floats(0.0, 890.0), max_size=40))
def test_the_frequency_of_requests_does_not_change_the_result(cuts: list[float]) -> None:
    clock_1, clock_2 = Clock(), Clock()
    rarely_asked, often_asked = SimulatedTracer(clock=clock_1), SimulatedTracer(clock=clock_2)
    for cut in sorted(cuts):
        clock_2.now = cut
        often_asked.realtime()
    clock_1.now = clock_2.now = 895.0
    assert rarely_asked.answer(READ) == often_asked.answer(READ)


@pytest.mark.parametrize("seconds", [900, 901, 86_400, 2 * 86_400, 2 * 86_400 + 1, 100 * 365 * 86_400 + 5])
def test_any_idle_time_takes_at_most_900_steps(clock: Any, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    steps: list[int] = []
    step = Plant.step

    def counted(self: Plant, seconds: int) -> None:
        steps.append(seconds)
        step(self, seconds)

    monkeypatch.setattr(Plant, "step", counted)
    tracer = SimulatedTracer(clock=clock, start_hour=22.0)
    clock.advance(seconds=seconds)
    check_plausible(tracer, nominal_pv=34.0)
    assert len(steps) <= 900
    assert tracer.hour == pytest.approx((22.0 + seconds / 3600.0) % 24.0)


def test_long_steps_give_nearly_the_same_state_of_charge(clock: Any) -> None:
    fine, coarse = (SimulatedTracer(clock=clock, start_hour=6.0) for _ in range(2))
    for _ in range(13 * 6):
        clock.advance(seconds=600)
        fine.realtime()
    assert coarse.state_of_charge == pytest.approx(fine.state_of_charge, abs=0.01)


def test_time_can_be_scaled_and_stopped_and_never_runs_backwards(clock: Any) -> None:
    fast = SimulatedTracer(clock=clock, time_scale=3600.0)
    still = SimulatedTracer(clock=clock, time_scale=0.0)
    clock.advance(seconds=3)
    assert (fast.hour, still.hour) == (13.0, 10.0)
    before = fast.realtime()
    clock.advance(seconds=-2)
    assert fast.realtime() == before


# Misuse


@pytest.mark.parametrize(
    "wrong", [{"time_scale": -1.0}, {"time_scale": float("nan")}, {"start_hour": 24.0}, {"state_of_charge": 1.1}]
)
def test_a_value_out_of_range_raises_value_error_with_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatedTracer(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"panel_watts": -1.0}, {"cloudiness": 2.0}, {"battery_capacity": 0.0}, {"panel_voltage": float("nan")}]
)
def test_an_installation_value_out_of_range_raises_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Installation(**wrong)


def test_sunset_must_be_after_sunrise() -> None:
    with pytest.raises(ValueError, match="rise"):
        Installation(sunrise=20.0, sunset=6.0)


@pytest.mark.parametrize("name", ["irradiance", "battery_voltage", "load_watts", "state_of_charge"])
def test_an_invalid_assignment_changes_nothing(clock: Any, name: str) -> None:
    tracer = SimulatedTracer(clock=clock)
    before = tracer.realtime()
    with pytest.raises(ValueError, match=name):
        setattr(tracer, name, -1.0)
    assert tracer.realtime() == before
