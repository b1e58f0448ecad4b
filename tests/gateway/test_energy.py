"""Energy is counted right: against the simulator's exact integrals, an independent oracle, and on awkward days."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import inf, isfinite, nan
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.gateway.energy_readings import power_reading as reading
from tracer_async import Reading, ResponseTimeoutError
from tracer_async.gateway.energy import MAX_DAYS, EnergyMeter, MeterState
from tracer_async.simulator import Installation, SimulatedTracer

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()
INTERVAL = 10.0


def failure(at: float) -> Reading:
    return Reading(at, None, ResponseTimeoutError("roof", 0xA0, 1.0, 3))


def count(meter: EnergyMeter, *readings: Reading, ahead: float = 0.0) -> MeterState:
    """Record readings whose wall clock is *ahead* of the monotonic clock by so many seconds."""
    for item in readings:
        meter.record(item, item.time - ahead, INTERVAL)
    return meter.state


def near(value: float) -> Any:
    return pytest.approx(value)


def day_sums(state: MeterState) -> dict[date, float]:
    return {entry.day: entry.charge for entry in state.days}


# Against the simulator


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_a_cloudy_day_is_counted_within_1_percent_at_5_s_and_3_percent_at_60_s(seed: int) -> None:
    clock = Clock()
    tracer = SimulatedTracer(
        seed=seed,
        clock=clock,
        start_hour=0.0,
        state_of_charge=0.4,
        installation=Installation(cloudiness=0.5, load_watts=40.0),
    )
    meters = {5: EnergyMeter(UTC), 60: EnergyMeter(UTC)}
    for second in range(0, 86_401, 5):
        clock.now = second
        data = tracer.realtime()
        for interval, meter in meters.items():
            if second % interval == 0:
                meter.record(Reading(NOON + second, data), 100.0 + second, interval)
    assert tracer.charge_energy > 400.0
    assert tracer.load_energy > 400.0
    for interval, limit in ((5, 0.01), (60, 0.03)):
        state = meters[interval].state
        assert state.charge == pytest.approx(tracer.charge_energy, rel=limit)
        assert state.load == pytest.approx(tracer.load_energy, rel=limit)
        assert state.unknown == 0.0


# Gaps, errors and restarts


def test_a_span_of_three_intervals_is_energy_and_a_longer_one_is_unknown_time() -> None:
    state = count(EnergyMeter(UTC), reading(NOON, 100.0, 10.0), reading(NOON + 30.0, 200.0, 30.0))
    assert (state.charge, state.load, state.unknown) == (near(1.25), near(1 / 6), 0.0)
    state = count(EnergyMeter(UTC), reading(NOON, 100.0), reading(NOON + 30.5, 200.0))
    assert (state.charge, state.unknown) == (0.0, 30.5)


def test_an_error_between_two_near_readings_changes_nothing() -> None:
    state = count(EnergyMeter(UTC), reading(NOON, 360.0), failure(NOON + 10.0), reading(NOON + 20.0, 360.0))
    assert (state.charge, state.unknown) == (near(2.0), 0.0)


def test_unknown_time_grows_with_each_error_of_a_long_outage() -> None:
    meter = EnergyMeter(UTC)
    count(meter, reading(NOON, 360.0))
    seen = [count(meter, failure(NOON + 10.0 * tick)).unknown for tick in range(1, 7)]
    assert seen == [0.0, 0.0, 0.0, 40.0, 50.0, 60.0]
    state = count(meter, reading(NOON + 65.0, 360.0), reading(NOON + 75.0, 360.0))
    assert (state.charge, state.unknown) == (near(1.0), 65.0)


def test_time_before_the_first_reading_is_not_counted() -> None:
    state = count(EnergyMeter(UTC), failure(NOON), failure(NOON + 1000.0), reading(NOON + 1010.0, 360.0))
    assert (state.charge, state.load, state.unknown) == (0.0, 0.0, 0.0)


BOOT = NOON - 86_400.0
"""When the machine started, by a right wall clock: its monotonic clock shows the seconds since then."""
YEAR = 366 * 86_400.0


@pytest.mark.parametrize("first", ["reading", "error"])
def test_a_restart_of_the_gateway_is_unknown_time(first: str) -> None:
    before = count(EnergyMeter(UTC), reading(NOON, 360.0), reading(NOON + 10.0, 360.0), ahead=BOOT)
    meter = EnergyMeter(UTC, before)
    again = reading(NOON + 15.0, 360.0) if first == "reading" else failure(NOON + 15.0)
    state = count(meter, again, reading(NOON + 17.0, 360.0), ahead=BOOT)
    assert state.charge == pytest.approx(1.0 + (0.2 if first == "reading" else 0.0))
    assert state.unknown == (5.0 if first == "reading" else 7.0)


def test_of_a_restart_of_the_machine_only_the_time_that_it_runs_is_unknown_time() -> None:
    before = count(EnergyMeter(UTC), reading(NOON, 360.0), reading(NOON + 100.0, 360.0), ahead=BOOT)
    # Off for an hour; the first reading comes 20 s after the start.
    state = count(EnergyMeter(UTC, before), reading(NOON + 3720.0, 360.0), ahead=NOON + 3700.0)
    assert (state.unknown, state.charge) == (100.0 + 20.0, 0.0)


def test_a_clock_that_was_set_back_over_a_restart_takes_no_unknown_time_away() -> None:
    before = count(EnergyMeter(UTC), reading(NOON, 360.0), reading(NOON + 100.0, 360.0), ahead=BOOT)
    state = count(EnergyMeter(UTC, before), reading(NOON - 5000.0, 360.0), ahead=BOOT - 6000.0)
    assert (state.unknown, state.charge) == (100.0, 0.0)


def test_a_clock_that_is_years_ahead_at_the_start_adds_no_unknown_time() -> None:
    before = count(EnergyMeter(UTC), reading(NOON, 360.0), reading(NOON + 10.0, 360.0), ahead=BOOT)
    wrong = NOON + 20.0 + 9 * YEAR
    meter = EnergyMeter(UTC, before)
    count(meter, reading(wrong, 360.0), reading(wrong + 10.0, 360.0), ahead=wrong - 30.0)
    # The clock is corrected, and the gateway is started again.
    count(meter, reading(NOON + 40.0, 360.0), ahead=NOON - 10.0)
    state = count(EnergyMeter(UTC, meter.state), reading(NOON + 50.0, 360.0), ahead=NOON - 10.0)
    assert (state.charge, state.unknown) == (near(3.0), 30.0 + 10.0)


def test_a_clock_that_was_years_behind_before_a_restart_adds_no_unknown_time() -> None:
    wrong = NOON - 9 * YEAR
    before = count(EnergyMeter(UTC), reading(wrong, 360.0), reading(wrong + 10.0, 360.0), ahead=wrong - 30.0)
    state = count(EnergyMeter(UTC, before), reading(NOON, 360.0), ahead=NOON - 45.0)
    assert (state.charge, state.unknown) == (near(1.0), 5.0)


def test_energy_of_another_machine_adds_no_more_unknown_time_than_the_wall_clock_shows() -> None:
    before = count(EnergyMeter(UTC), reading(NOON, 360.0), reading(NOON + 10.0, 360.0), ahead=BOOT)
    state = count(EnergyMeter(UTC, before), reading(NOON + 310.0, 360.0), ahead=NOON - YEAR)
    assert state.unknown == 300.0


@pytest.mark.parametrize("power", [nan, inf, -1.0, 1e308])
def test_an_impossible_power_is_no_reading(power: float) -> None:
    for charge, load in ((power, 10.0), (10.0, power)):
        state = count(
            EnergyMeter(UTC), reading(NOON, 360.0), reading(NOON + 10.0, charge, load), reading(NOON + 20.0, 360.0)
        )
        assert (state.charge, state.load) == (near(2.0), 0.0)


@pytest.mark.parametrize("wrong", [nan, inf, -inf, -1.0, 1e300])
def test_an_impossible_time_is_ignored(wrong: float) -> None:
    meter = EnergyMeter(BERLIN)
    count(meter, reading(NOON, 360.0))
    meter.record(reading(wrong, 360.0), NOON + 5.0, INTERVAL)
    meter.record(reading(NOON + 5.0, 360.0), nan, INTERVAL)
    assert count(meter, reading(NOON + 10.0, 360.0)).charge == near(1.0)


# Days


def test_a_pair_of_readings_across_midnight_is_divided_in_proportion() -> None:
    midnight = datetime(2026, 6, 2, tzinfo=BERLIN).timestamp()
    state = count(EnergyMeter(BERLIN), reading(midnight - 10.0, 360.0, 720.0), reading(midnight + 20.0, 360.0, 720.0))
    assert [tuple(entry) for entry in state.days] == [
        (date(2026, 6, 1), near(1.0), near(2.0)),
        (date(2026, 6, 2), near(2.0), near(4.0)),
    ]
    totals = state.totals()
    assert (totals.day, totals.charge_today, totals.load_today) == tuple(state.days[1])
    assert (totals.charge, totals.load) == (near(3.0), near(6.0))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 29), 23.0),
        ("Europe/Berlin", date(2026, 10, 25), 25.0),
        ("Europe/Berlin", date(2026, 6, 1), 24.0),
        ("America/New_York", date(2026, 3, 8), 23.0),
        ("America/New_York", date(2026, 11, 1), 25.0),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        # The clock changes at midnight: 00:00 does not exist on this day, and exists twice on the next one.
        ("America/Sao_Paulo", date(2018, 11, 4), 23.0),
        ("America/Sao_Paulo", date(2018, 2, 17), 25.0),
        # One minute after midnight, the clock goes back to the day before.
        ("America/St_Johns", date(2010, 11, 6), 25.0 - 1 / 60),
        ("America/St_Johns", date(2010, 11, 7), 24.0 + 1 / 60),
        # The 30th of December does not exist.
        ("Pacific/Apia", date(2011, 12, 29), 24.0),
        ("Pacific/Apia", date(2011, 12, 31), 24.0),
    ],
)
def test_a_local_day_has_the_energy_of_its_hours(zone: str, day: date, hours: float) -> None:
    meter = EnergyMeter(ZoneInfo(zone))
    start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() - 86_400.0 * 1.5
    # 7 s before a full minute: no reading falls on a midnight.
    for second in range(-7, 4 * 86_400, 30):
        meter.record(reading(start + second, 100.0), 5000.0 + second, INTERVAL)
    assert day_sums(meter.state)[day] == pytest.approx(100.0 * hours, abs=1e-5)
    assert date(2011, 12, 30) not in day_sums(meter.state)


@pytest.mark.parametrize(("zone", "day"), [("UTC", date(2026, 6, 1)), ("Asia/Tokyo", date(2026, 6, 2))])
def test_without_a_zone_days_are_those_of_the_machine(monkeypatch: pytest.MonkeyPatch, zone: str, day: date) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        state = count(EnergyMeter(None), reading(NOON + 4 * 3600.0, 360.0), reading(NOON + 4 * 3600.0 + 10.0, 360.0))
    time.tzset()
    assert day_sums(state) == {day: near(1.0)}


def test_a_clock_set_forward_and_back_gives_the_energy_to_the_day_that_it_shows() -> None:
    today, week = date(2026, 6, 1), 7 * 86_400.0
    meter = EnergyMeter(UTC)
    count(meter, reading(NOON, 360.0), reading(NOON + 10.0, 360.0))
    count(meter, reading(NOON + 20.0 + week, 360.0), reading(NOON + 30.0 + week, 360.0), ahead=week)
    assert meter.state.totals().day == today + timedelta(days=7)
    state = count(meter, reading(NOON + 40.0, 360.0), reading(NOON + 50.0, 360.0))
    assert day_sums(state) == {today: near(3.0), today + timedelta(days=7): near(2.0)}
    assert (state.charge, state.unknown) == (near(5.0), 0.0)
    totals = state.totals()
    assert (totals.day, totals.charge_today) == (today, near(3.0))


def test_today_is_kept_after_many_days_in_the_future() -> None:
    meter = EnergyMeter(UTC)
    count(meter, reading(NOON, 360.0), reading(NOON + 10.0, 360.0))
    for day in range(100, 100 + MAX_DAYS + 5):
        count(meter, reading(NOON + day * 86_400.0, 360.0))
    for tick in range(3):
        state = count(meter, reading(NOON + 86_400.0 + tick * 10.0, 360.0))
    assert len(state.days) == MAX_DAYS
    assert state.totals().day == date(2026, 6, 2)
    assert state.totals().charge_today == near(2.0)


# Any sequence of events, against an oracle


class Event(NamedTuple):
    """What happens next: after how many seconds, with which powers (None is an error), and to the wall clock."""

    after: float
    powers: tuple[float, float] | None
    clock_step: float = 0.0
    restart: Literal["gateway", "machine"] | None = None


class Moment(NamedTuple):
    """An event with its true time, the seconds since the machine started, its wall time and the run of the gateway."""

    true: float
    uptime: float
    wall: float
    run: int
    powers: tuple[float, float] | None


def seconds(shortest: float, longest: float) -> st.SearchStrategy[float]:
    """Multiples of 1/1024 s: their sums are exact, so a span is not rounded to more than three intervals."""
    return st.integers(int(shortest * 1024), int(longest * 1024)).map(lambda ticks: ticks / 1024)


STEPS = st.just(0.0) | st.sampled_from([3600.0, -3600.0, 86_400.0, -86_400.0]) | seconds(-3e5, 3e5)
EVENTS = st.builds(
    Event,
    after=seconds(0.0, 12.0) | seconds(0.0, 60.0) | st.sampled_from([10.0, 30.0, 5000.0]),
    powers=st.none() | st.tuples(st.floats(0.0, 1000.0), st.floats(0.0, 1000.0)),
    clock_step=st.just(0.0) | STEPS,
    restart=st.sampled_from([None] * 12 + ["gateway", "machine"]),
)
# Near clock changes and midnights.
STARTS = st.sampled_from(
    [
        (ZoneInfo(zone), datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).timestamp())
        for zone, start in (
            ("Europe/Berlin", "2026-03-29T01:59"),
            ("Europe/Berlin", "2026-10-24T23:59:30"),
            ("America/New_York", "2026-11-01T01:59"),
            ("Australia/Lord_Howe", "2026-04-05T01:59"),
            ("America/Sao_Paulo", "2018-11-03T23:59:30"),
            ("America/Sao_Paulo", "2018-02-17T22:59:30"),
            ("America/St_Johns", "2010-11-06T23:59:30"),
            ("Pacific/Apia", "2011-12-29T23:59:30"),
        )
    ]
)


def timeline(start: float, events: list[Event]) -> list[Moment]:
    true, ahead, run, boot = 0.0, start, 0, -1000.0
    moments = []
    for event in events:
        true += event.after
        # Never before 1970.
        ahead = max(ahead + event.clock_step, 1e6)
        run += event.restart is not None
        if event.restart == "machine":
            boot = true - min(event.after, 15.0)
        moments.append(Moment(true, true - boot, ahead + true, run, event.powers))
    return moments


def record_all(zone: ZoneInfo, moments: list[Moment]) -> Iterator[MeterState]:
    """Record the moments. Yield the state after each of them."""
    meter, run = EnergyMeter(zone), 0
    for moment in moments:
        if moment.run != run:
            meter, run = EnergyMeter(zone, meter.state), moment.run
        item = failure(moment.wall) if moment.powers is None else reading(moment.wall, *moment.powers)
        meter.record(item, moment.uptime, INTERVAL)
        yield meter.state


class Expected(NamedTuple):
    charge: Fraction
    load: Fraction
    unknown: tuple[Fraction, Fraction]
    """The least and the most."""
    days: dict[date, float]
    day_tolerance: float


def day_at(time: float, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(time, zone).date()


def expected(zone: ZoneInfo, moments: list[Moment]) -> Expected:
    """Integrate in exact fractions over the readings alone; days by sampling the pairs."""
    charge = load = unknown = off = Fraction(0)
    days: dict[date, float] = defaultdict(float)
    tolerance = 1e-6
    end_of_run: Moment | None = None  # until when the runs before are accounted for
    for run in sorted({moment.run for moment in moments}):
        part = [moment for moment in moments if moment.run == run]
        good = [moment for moment in part if moment.powers is not None]
        if end_of_run is not None:
            # The time that has passed, but no more than the wall clock shows. A machine that was off knows only a part.
            stopped = Fraction(part[0].true) - Fraction(end_of_run.true)
            stopped = max(min(stopped, Fraction(part[0].wall) - Fraction(end_of_run.wall)), Fraction(0))
            same_boot = part[0].true - part[0].uptime == end_of_run.true - end_of_run.uptime
            unknown += stopped
            off += Fraction(0) if same_boot else stopped
            # The time from the first event to the first reading, or to the last error.
            unknown += Fraction((good or part[-1:])[0].true) - Fraction(part[0].true)
            end_of_run = part[-1]
        for left, right in pairwise(good):
            assert left.powers is not None
            assert right.powers is not None
            span = Fraction(right.true) - Fraction(left.true)
            if right.true - left.true > 3 * INTERVAL:
                unknown += span
                continue
            pair = (Fraction(left.powers[0]) + Fraction(right.powers[0])) / 2 * span / 3600
            charge += pair
            load += (Fraction(left.powers[1]) + Fraction(right.powers[1])) / 2 * span / 3600
            # The middles of 50 slices, by the clock of the second reading.
            for slice_ in range(50):
                days[day_at(right.wall - float(span) * (slice_ + 0.5) / 50, zone)] += float(pair) / 50
            if day_at(right.wall - float(span), zone) != day_at(right.wall, zone):
                tolerance += float(pair) / 50
        if good:
            end_of_run = good[-1]
            late = [moment for moment in part if moment.true - end_of_run.true > 3 * INTERVAL]
            if late:
                unknown += Fraction(late[-1].true) - Fraction(end_of_run.true)
                end_of_run = late[-1]
    return Expected(charge, load, (unknown - off, unknown), days, tolerance)


@settings(deadline=None, max_examples=150)
@given(STARTS, st.lists(EVENTS, max_size=25))
def test_totals_and_days_are_those_of_an_independent_integration(
    where: tuple[ZoneInfo, float], events: list[Event]
) -> None:
    zone, start = where
    moments = timeline(start, events)
    *_, state = [MeterState(), *record_all(zone, moments)]
    right = expected(zone, moments)
    assert state.charge == pytest.approx(float(right.charge), rel=1e-6, abs=1e-5)
    assert state.load == pytest.approx(float(right.load), rel=1e-6, abs=1e-5)
    least, most = map(float, right.unknown)
    assert least - 1e-5 <= state.unknown <= most + 1e-5
    sums = day_sums(state)
    for day in {*sums, *right.days}:
        assert sums.get(day, 0.0) == pytest.approx(right.days.get(day, 0.0), rel=1e-6, abs=right.day_tolerance)


@settings(deadline=None, max_examples=150)
@given(STARTS, st.lists(EVENTS, max_size=25))
@example((BERLIN, NOON), [Event(10.0, (1.0, 1.0)), Event(10.0, (1.0, 1.0), -86_400.0), Event(10.0, (1.0, 1.0))])
def test_no_sum_ever_decreases_and_the_days_add_up_to_the_total(
    where: tuple[ZoneInfo, float], events: list[Event]
) -> None:
    zone, start = where
    before = MeterState()
    for state in record_all(zone, timeline(start, events)):
        for new, old in ((state.charge, before.charge), (state.load, before.load), (state.unknown, before.unknown)):
            assert isfinite(new)
            assert new >= old
        assert all(state.days[at].charge >= 0.0 for at in range(len(state.days)))
        old_days, new_days = day_sums(before), day_sums(state)
        assert all(new_days[day] >= old for day, old in old_days.items())
        assert sum(new_days.values()) == pytest.approx(state.charge, rel=1e-9, abs=1e-9)
        assert sum(entry.load for entry in state.days) == pytest.approx(state.load, rel=1e-9, abs=1e-9)
        before = state


class Step(NamedTuple):
    """What happens next on a machine whose clock may be wrong."""

    after: float
    """Seconds."""
    kind: Literal["reading", "error", "clock is set", "gateway killed", "machine off"]
    clock_error: float
    """Seconds by which the wall clock is wrong from now on, if it is set or the machine starts."""
    is_written: bool
    """Whether the totals are on the disk after this step."""


CLOCK_ERRORS = st.sampled_from([0.0, 0.0, -NOON, -9 * YEAR, 9 * YEAR, 500 * YEAR]) | seconds(-3e5, 3e5)
WORLD_STEPS = st.builds(
    Step,
    after=seconds(0.0, 12.0) | seconds(0.0, 5000.0),
    kind=st.sampled_from(["reading"] * 5 + ["error", "clock is set", "gateway killed", "machine off"]),
    clock_error=CLOCK_ERRORS,
    is_written=st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(CLOCK_ERRORS, st.lists(WORLD_STEPS, max_size=40))
def test_whatever_the_clock_shows_no_unknown_time_is_counted_that_has_not_passed(
    clock_error: float, steps: list[Step]
) -> None:
    """The power is 3,600 W, so charge in Wh is the covered time in seconds. Only what is on the disk survives."""
    now, boot, meter, stored = 0.0, -20.0, EnergyMeter(UTC), MeterState()
    first: float | None = None
    for step in steps:
        now += step.after
        if step.kind in ("clock is set", "machine off"):
            clock_error = step.clock_error
        if step.kind in ("gateway killed", "machine off"):
            boot = now if step.kind == "machine off" else boot
            meter = EnergyMeter(UTC, stored)
            continue
        wall = NOON + now + clock_error
        meter.record(failure(wall) if step.kind == "error" else reading(wall, 3600.0), now - boot, INTERVAL)
        if first is None and step.kind != "error":
            first = now
        if step.is_written:
            before, stored = stored, meter.state
            assert stored.charge >= before.charge
            assert stored.unknown >= before.unknown
            assert stored.charge + stored.unknown <= now - (now if first is None else first) + 1e-4


@settings(deadline=None, max_examples=150)
@given(st.lists(WORLD_STEPS.filter(lambda step: step.kind not in ("clock is set", "machine off")), max_size=40))
def test_with_a_right_clock_all_time_over_kills_of_the_gateway_is_covered_or_unknown(steps: list[Step]) -> None:
    now, meter = 0.0, EnergyMeter(UTC)
    meter.record(reading(NOON, 3600.0), 20.0, INTERVAL)
    stored = meter.state
    for step in steps:
        now += step.after
        if step.kind == "gateway killed":
            meter = EnergyMeter(UTC, stored)
            continue
        is_error = step.kind == "error"
        meter.record(failure(NOON + now) if is_error else reading(NOON + now, 3600.0), now + 20.0, INTERVAL)
        if not is_error:
            assert meter.state.charge + meter.state.unknown == pytest.approx(now, abs=1e-4)
        stored = meter.state if step.is_written else stored


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 60.0), st.floats(0.0, 1000.0)), min_size=2, max_size=20),
    st.data(),
)
def test_a_sequence_can_be_divided_at_any_reading(items: list[tuple[float, float]], data: st.DataObject) -> None:
    at, readings = NOON, []
    for after, power in items:
        at += after
        readings.append(reading(at, power, power / 2))
    cut = data.draw(st.integers(0, len(readings) - 1))
    whole = count(EnergyMeter(UTC), *readings)
    first = count(EnergyMeter(UTC), *readings[: cut + 1])
    second = count(EnergyMeter(UTC), *readings[cut:])
    assert first.charge + second.charge == near(whole.charge)
    assert first.load + second.load == near(whole.load)
    assert first.unknown + second.unknown == near(whole.unknown)


@settings(deadline=None)
@given(
    st.floats(0.0, 1000.0),
    st.floats(0.0, 1000.0),
    st.floats(0.1, 3 * INTERVAL),
    st.lists(st.floats(0.01, 0.99), unique=True, max_size=10),
)
def test_more_readings_on_a_straight_line_change_no_total(
    left: float, right: float, span: float, cuts: list[float]
) -> None:
    between = [reading(NOON + span * cut, left + (right - left) * cut) for cut in sorted(cuts)]
    ends = reading(NOON, left), reading(NOON + span, right)
    assert count(EnergyMeter(UTC), ends[0], *between, ends[1]).charge == pytest.approx(
        count(EnergyMeter(UTC), *ends).charge, rel=1e-5
    )
