"""No two readings that were heard have the same millisecond, and no time is moved further than that needs."""

from __future__ import annotations

import math

import pytest

from tests.gateway.stub_hub import data
from tracer_async import Reading
from tracer_async.gateway._distinct_times import DistinctTimes

START = 1_767_225_600.0


def given(*times: float) -> list[float]:
    """The seconds since `START` that readings with these seconds are given."""
    distinct = DistinctTimes()
    return [round(distinct.distinct(Reading(START + time, data())).time - START, 6) for time in times]


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ((0.0, 1.0, 2.0), [0.0, 1.0, 2.0]),
        ((0.0004, 0.002, 0.0038), [0.0004, 0.002, 0.0038]),
        ((0.0, 0.0, 0.0, 1.0), [0.0, 0.001, 0.002, 1.0]),
        # Different times of one millisecond.
        ((0.0003, 0.0004), [0.0003, 0.001]),
        # The next one comes while the later times are taken.
        ((0.0, 0.0, 0.0, 0.002, 0.0033), [0.0, 0.001, 0.002, 0.003, 0.004]),
        # The two clocks that make a time were not read at the same moment.
        ((0.02, 0.01, 0.03), [0.02, 0.021, 0.03]),
        # The clock was set back.
        ((10.0, 10.0, 5.0, 5.0, 6.0), [10.0, 10.001, 5.0, 5.001, 6.0]),
    ],
)
def test_a_time_is_moved_to_the_next_free_millisecond_and_only_if_it_must(
    times: tuple[float, ...], wanted: list[float]
) -> None:
    assert given(*times) == wanted


def test_a_measurement_is_older_at_a_later_time() -> None:
    distinct = DistinctTimes()
    readings = [Reading(START, data(), age=age) for age in (0.5, 0.5, math.inf)]
    first, second, third = map(distinct.distinct, readings)
    assert first is readings[0]
    assert second.age == pytest.approx(0.501)
    assert second.time - second.age == pytest.approx(first.time - first.age)
    assert third.age == math.inf
