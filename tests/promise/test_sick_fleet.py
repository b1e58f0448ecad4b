"""The short version of ``make sick-fleet``: healthy controllers keep their intervals next to faulty ones."""

from __future__ import annotations

import pytest

from stress.sick_fleet import complaints, run

pytestmark = pytest.mark.slow


async def test_faulty_controllers_do_not_delay_the_healthy_ones_of_a_fleet() -> None:
    outcome = await run(40, 4.0, 1.0)
    assert complaints(outcome, 1.0) == []
    assert len(outcome.arrivals) == 32
    # The faulty controllers give no readings.
    assert {name.partition(" ")[0] for name in outcome.answered} == {"healthy", "flapping"}


async def test_a_fleet_that_misses_its_interval_is_detected() -> None:
    """The verdict uses only the controllers' logs: with another interval, each log shows a violation."""
    outcome = await run(10, 2.5, 1.0)
    assert complaints(outcome, 1.0) == []
    assert len(complaints(outcome, 0.4)) == len(outcome.arrivals)
    assert len(complaints(outcome, 10.0)) == len(outcome.arrivals)
