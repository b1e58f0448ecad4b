"""The timer wheel: callbacks grouped into time slots."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.promise.virtual_time import virtual_time
from tracer_async.client._timer_wheel import TimerWheel, WheelTimer


@given(st.lists(st.tuples(st.floats(0.0, 0.03), st.booleans()), max_size=20))
@virtual_time
async def test_each_callback_runs_once_never_early_and_not_if_cancelled(wanted: list[tuple[float, bool]]) -> None:
    loop = asyncio.get_running_loop()
    wheel = TimerWheel()
    called: list[tuple[int, float]] = []
    begun = loop.time()
    timers: list[WheelTimer] = []
    for number, (delay, _) in enumerate(wanted):
        timers.append(wheel.call_at(begun + delay, lambda number=number: called.append((number, loop.time()))))  # type: ignore[misc]
    kept = {number for number, (_, cancelled) in enumerate(wanted) if not cancelled}
    for number in set(range(len(wanted))) - kept:
        timers[number].cancel()
    last = loop.create_future()
    wheel.call_at(begun + 0.031, lambda: last.set_result(None))
    await last
    assert sorted(number for number, _ in called) == sorted(kept)
    for number, at in called:
        assert at >= begun + wanted[number][0] - 1e-6


async def test_an_earlier_timer_does_not_wait_for_a_later_one() -> None:
    loop = asyncio.get_running_loop()
    wheel = TimerWheel()
    wheel.call_at(loop.time() + 1000, lambda: None)
    soon = loop.create_future()
    wheel.call_at(loop.time(), lambda: soon.set_result(None))
    await asyncio.wait_for(soon, 10)
    wheel.close()


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_failing_callback_is_reported_and_the_others_still_run(error: type[BaseException]) -> None:
    loop = asyncio.get_running_loop()
    reports: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    wheel = TimerWheel()
    done = loop.create_future()
    now = loop.time()

    def fail() -> None:
        raise error

    wheel.call_at(now, fail)
    wheel.call_at(now, lambda: done.set_result(None))
    await asyncio.wait_for(done, 10)
    assert [type(report["exception"]) for report in reports] == [error]


async def test_a_timer_set_for_the_past_by_a_callback_runs_in_a_later_loop_iteration() -> None:
    """Therefore a callback that schedules itself again cannot block the event loop."""
    wheel = TimerWheel()
    turns = 0

    def again() -> None:
        nonlocal turns
        turns += 1
        wheel.call_at(0.0, again)

    again()
    for _ in range(10):
        await asyncio.sleep(0)
    assert 5 <= turns <= 11
    wheel.close()
    before = turns
    for _ in range(10):
        await asyncio.sleep(0)
    assert turns == before


async def test_after_a_stall_the_event_loop_runs_between_overdue_slots() -> None:
    """Therefore received data is read before all overdue callbacks have run."""
    loop = asyncio.get_running_loop()
    wheel = TimerWheel()
    order: list[str] = []
    done = loop.create_future()
    past = loop.time() - 1.0

    def first() -> None:
        loop.call_soon(order.append, "between")

    def second() -> None:
        order.append("second")
        done.set_result(None)

    wheel.call_at(past, first)
    wheel.call_at(past + 0.5, second)
    await asyncio.wait_for(done, 10)
    assert order == ["between", "second"]
