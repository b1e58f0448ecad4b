"""The energy integrals of the simulated controller are those of its powers."""

from __future__ import annotations

from typing import Any

import pytest

from tracer_async.simulator import Installation, SimulatedTracer


def test_constant_powers_give_power_times_time(clock: Any) -> None:
    # The sun gives more than the rated current, so the charger delivers exactly that.
    installation = Installation(panel_watts=2000.0, rated_current=10.0, load_watts=24.0)
    tracer = SimulatedTracer(clock=clock, installation=installation)
    tracer.battery_voltage = 12.0
    tracer.irradiance = 800.0
    for _ in range(12):
        clock.advance(seconds=300)
        assert tracer.realtime().charge_current == 10.0
    assert tracer.charge_energy == pytest.approx(120.0, rel=1e-9)
    # The load varies by up to 2 %, around a mean of 24 W.
    assert tracer.load_energy == pytest.approx(24.0, rel=0.005)


@pytest.mark.parametrize("seed", range(3))
def test_the_integrals_are_those_of_readings_every_second(clock: Any, seed: int) -> None:
    tracer = SimulatedTracer(clock=clock, seed=seed, start_hour=16.0)
    charge = load = 0.0
    for _ in range(4 * 3600):
        clock.advance(seconds=1)
        data = tracer.realtime()
        charge += data.charge_power / 3600.0
        load += data.load_power / 3600.0
    assert charge > 50.0
    assert tracer.charge_energy == pytest.approx(charge, rel=2e-3)
    assert tracer.load_energy == pytest.approx(load, rel=2e-3)


def test_the_frequency_of_calls_does_not_change_the_integrals(clock: Any) -> None:
    rarely, often = SimulatedTracer(clock=clock), SimulatedTracer(clock=clock)
    for _ in range(89):
        clock.advance(seconds=10)
        often.realtime()
    assert rarely.charge_energy == often.charge_energy > 0.0
    assert rarely.load_energy == often.load_energy > 0.0


def test_changes_from_outside_add_no_energy_and_a_load_that_is_off_draws_none(clock: Any) -> None:
    tracer = SimulatedTracer(clock=clock)
    clock.advance(seconds=100)
    before = tracer.charge_energy, tracer.load_energy
    tracer.irradiance = 0.0
    tracer.state_of_charge = 0.9
    tracer.switch_load(on=False)
    assert (tracer.charge_energy, tracer.load_energy) == before
    clock.advance(seconds=100)
    assert (tracer.charge_energy, tracer.load_energy) == before


def test_skipped_days_add_no_energy(clock: Any) -> None:
    one_day, year = SimulatedTracer(clock=clock), SimulatedTracer(clock=clock)
    clock.advance(hours=24)
    energy = one_day.charge_energy
    clock.advance(hours=364 * 24)
    assert 0.0 < year.charge_energy < 4.0 * energy
