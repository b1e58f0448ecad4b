"""The judge of the gateway's soak reports wrong and lost readings, and nothing else."""

from __future__ import annotations

import pytest

from stress.gateway_judge import Made, Shown, decreases, energy_of, judge, missing
from stress.stamp import STEP, Stamp, stamped
from tracer_async.simulator import SimulatedTracer

MADE = Made(1279, 21, 1, 0)
TICKS = 17_900_000_000_000
TIME = TICKS * STEP


def shown(*, controller: int = 3, time: float = TIME + 0.05, age: float | None = 0.1, made: Made = MADE) -> Shown:
    """A reading that controller 3 made at `TIME`."""
    reading = stamped(SimulatedTracer().realtime(), Stamp(3, (TICKS + 0.5) * STEP))
    fields = (reading.pv_voltage, reading.load_current, reading.charge_current, reading.over_discharge_voltage)
    a, b, c, d = (round(value * 100) for value in fields)
    return Shown(controller, time, age, (a, b, c, d), round(reading.battery_full_voltage * 100), made)


def test_a_right_reading_is_not_reported() -> None:
    judgement = judge("MQTT", [shown(), shown(age=None)], {(3, TICKS): MADE}, longest=1.0)
    assert judgement.wrong == []
    assert judgement.readings == {(3, TICKS): TIME + 0.05}


@pytest.mark.parametrize(
    "wrong",
    [
        shown(controller=4),
        shown(made=MADE._replace(battery=1280)),
        shown(made=MADE._replace(charging=1)),
        shown(time=TIME + 0.2),
        shown(time=TIME - 0.1),
        shown(time=TIME + 1.1, age=None),
        shown()._replace(check=0),
        shown()._replace(words=(1, 2, 3, 3)),
    ],
)
def test_a_wrong_reading_is_reported(wrong: Shown) -> None:
    judgement = judge("MQTT", [wrong], {(3, TICKS): MADE}, longest=1.0)
    assert len(judgement.wrong) == 1
    assert judgement.readings == {}


def test_a_reading_that_no_controller_logged_is_reported() -> None:
    assert len(judge("MQTT", [shown()], {}, longest=1.0).wrong) == 1


def test_a_reading_is_missed_only_within_the_calm_spans() -> None:
    there = judge("SQLite", [shown()], {(3, TICKS): MADE}, longest=1.0)
    here = judge("MQTT", [], {}, longest=1.0)
    assert len(missing("MQTT", here, there, [(TIME - 9, TIME - 5), (TIME - 1, TIME + 1)])) == 1
    assert missing("MQTT", here, there, [(TIME - 9, TIME - 5), (TIME + 1, TIME + 2)]) == []
    assert missing("MQTT", there, there, [(TIME - 1, TIME + 1)]) == []


def test_a_total_that_goes_back_is_reported() -> None:
    assert decreases("total", [None, 1.0, 1.0, None, 2.0]) == []
    assert len(decreases("total", [1.0, 3.0, None, 2.0, 4.0])) == 1


def test_energy_is_the_integral_without_the_long_gaps() -> None:
    assert energy_of([(0.0, 100.0), (3.0, 200.0), (10.0, 900.0), (12.0, 300.0)], 3.0) == pytest.approx(
        (3 * 150 + 2 * 600) / 3600
    )
