"""The short version of ``make sick-fleet``: the healthy controllers of a sick fleet keep their intervals."""

from __future__ import annotations

from stress.sick_fleet import complaints, run


async def test_every_healthy_controller_of_a_sick_fleet_keeps_its_interval() -> None:
    outcome = await run(40, 4.0, 1.0)
    assert complaints(outcome, 1.0) == []
    assert len(outcome.arrivals) == 32
    # The others do answer nothing.
    assert {name.partition(" ")[0] for name in outcome.answered} == {"healthy", "flapping"}


async def test_a_fleet_that_keeps_no_interval_is_found_out() -> None:
    """The judge hears only what the controllers noted: with another interval each of them complains."""
    outcome = await run(10, 2.5, 1.0)
    assert complaints(outcome, 1.0) == []
    assert len(complaints(outcome, 0.4)) == len(outcome.arrivals)
    assert len(complaints(outcome, 10.0)) == len(outcome.arrivals)
