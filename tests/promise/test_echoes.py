"""Adapters that echo what is sent, and TX wired to RX: an echo never counts as an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tests.drivers import both_drivers, client_of
from tests.promise.logging_controller import LOST, READ, SWITCH, UNANSWERED, WRITE, LoggingController, Plan
from tests.promise.settings import SETTINGS
from tests.promise.virtual_time import run_virtual, virtual_time
from tracer_async import (
    EchoError,
    LoadError,
    LoadUnknownError,
    TracerClient,
)

DUPLICATE_WINDOW = 0.25

Call = Callable[[TracerClient], Awaitable[object]]

CALLS = [
    pytest.param(lambda tracer: tracer.read_realtime(), id="read_realtime"),
    pytest.param(lambda tracer: tracer.read(), id="read"),
    pytest.param(lambda tracer: tracer.write_settings(SETTINGS), id="write_settings"),
]
SWITCHES = [
    pytest.param(lambda tracer: tracer.set_load(True), id="set_load(True)"),
    pytest.param(lambda tracer: tracer.set_load(False), id="set_load(False)"),
]


@both_drivers
@pytest.mark.parametrize("call", CALLS + SWITCHES)
@pytest.mark.parametrize("delays", [(0.001,), (0.04, 0.06), (0.9,)], ids=["once", "twice", "late"])
@virtual_time
async def test_no_call_succeeds_if_only_echoes_come(call: Call, delays: tuple[float, ...]) -> None:
    nothing = LoggingController(present=False, echo_delays=delays)
    async with client_of(nothing.connect) as tracer:
        for _ in range(3):
            with pytest.raises((EchoError, LoadError)):
                await call(tracer)
    assert not any(request.executed for request in nothing.requests)


@both_drivers
@pytest.mark.parametrize("call", CALLS)
@virtual_time
async def test_the_error_names_the_echo_as_the_cause(call: Call) -> None:
    nothing = LoggingController(present=False, echo_delays=(0.001,))
    async with client_of(nothing.connect) as tracer:
        with pytest.raises(EchoError, match="an echo of the request"):
            await call(tracer)


@both_drivers
@pytest.mark.parametrize("call", SWITCHES)
@virtual_time
async def test_the_error_of_a_switch_names_the_echo_as_the_cause(call: Call) -> None:
    nothing = LoggingController(present=False, echo_delays=(0.001,))
    async with client_of(nothing.connect) as tracer:
        with pytest.raises(LoadUnknownError, match="an echo of the request") as caught:
            await call(tracer)
    assert isinstance(caught.value.__cause__, EchoError)


@both_drivers
@virtual_time
async def test_echoes_do_not_confirm_a_switch_after_the_controller_has_stopped_answering() -> None:
    controller = LoggingController(echo_delays=(0.001,))
    async with client_of(controller.connect) as tracer:
        await tracer.set_load(True)
        controller.present = False
        with pytest.raises(LoadUnknownError):
            await tracer.set_load(False)
        with pytest.raises(EchoError):
            await tracer.read()
    assert controller.load_on


@pytest.mark.parametrize("present", [True, False], ids=["controller", "no controller"])
@virtual_time
async def test_echoes_are_counted(present: bool) -> None:
    controller = LoggingController(present=present, echo_delays=(0.001,))
    async with client_of(controller.connect) as tracer:
        await asyncio.gather(
            tracer.set_load(True), tracer.write_settings(SETTINGS), tracer.read(), return_exceptions=True
        )
        await asyncio.sleep(1)
        assert tracer.stats.echoes == len(controller.requests) > 0


# Every request of these tests was sent within the late-reply window of 10 s.
ECHO_DELAYS = [0.001, 0.1, 0.2, 0.24, 0.26, 0.3, 0.5, 0.8, 1.1, 1.3, 1.6, 1.9, 2.1, 2.4, 2.8, 3.3, 4.1, 5.7, 7.9, 9.4]


@both_drivers
@pytest.mark.parametrize("copies", [1, 2])
def test_an_echo_of_any_request_within_the_late_reply_window_is_not_an_answer(copies: int) -> None:
    async def main(delay: float) -> None:
        delays = (delay, delay + 0.05)[:copies]
        controller = LoggingController(echo_delays=delays)
        controller.plan(SWITCH, *[LOST] * 100)
        async with client_of(controller.connect) as tracer:
            for _ in range(2):
                with pytest.raises(LoadError):
                    await tracer.set_load(True)
        assert not controller.load_on
        assert len(controller.sent(SWITCH)) > 1

    for delay in ECHO_DELAYS:
        run_virtual(lambda delay=delay: main(delay))  # type: ignore[misc]


@both_drivers
def test_an_echo_of_an_earlier_switch_is_not_a_refusal_of_the_next_one() -> None:
    async def main(delay: float) -> None:
        controller = LoggingController(echo_delays=(delay,))
        controller.plan(SWITCH, *[UNANSWERED] * 100)
        async with client_of(controller.connect) as tracer:
            for on in [True, False, True, False]:
                await tracer.set_load(on)
                assert controller.load_on == on

    for delay in ECHO_DELAYS:
        run_virtual(lambda delay=delay: main(delay))  # type: ignore[misc]


@both_drivers
@pytest.mark.parametrize("fence", [0.0, 1.0])
@pytest.mark.parametrize("second_echo", [0.3, 1.1, 1.6, 2.3, 3.4])
def test_a_late_reply_after_a_second_echo_does_not_confirm_the_next_switch(fence: float, second_echo: float) -> None:
    async def main(reply_delay: float) -> None:
        controller = LoggingController(echo_delays=(0.001, second_echo))
        controller.plan(SWITCH, Plan((reply_delay,)), *[LOST] * 100)
        async with client_of(controller.connect, fence=fence, retries=0) as tracer:
            with suppress(LoadUnknownError):
                await tracer.set_load(True)
            controller.load_on = False
            with pytest.raises(LoadUnknownError):
                await tracer.set_load(True)

    for tenths in range(1, 70):
        run_virtual(lambda delay=tenths / 10: main(delay))  # type: ignore[misc]


@both_drivers
@pytest.mark.parametrize("on", [True, False])
@virtual_time
async def test_the_state_is_read_back_if_a_reply_may_equal_its_request(on: bool) -> None:
    controller = LoggingController(copies_id=True, echo_delays=(0.001,))
    controller.load_on = not on
    controller.plan(READ, *[Plan((0.04,))] * 9)
    controller.plan(SWITCH, Plan((0.04,)))
    async with client_of(controller.connect) as tracer:
        await tracer.set_load(on)
    assert controller.load_on == on
    assert controller.commands == [READ, SWITCH, READ]
    switch, reading = controller.requests[1:]
    assert reading.at >= switch.at + 0.04 + DUPLICATE_WINDOW


@both_drivers
@virtual_time
async def test_a_second_echo_that_may_be_the_reply_does_not_confirm_a_switch() -> None:
    controller = LoggingController(copies_id=True, echo_delays=(0.001, 0.04))
    controller.plan(SWITCH, *[LOST] * 9)
    async with client_of(controller.connect) as tracer:
        with pytest.raises(LoadUnknownError) as caught:
            await tracer.set_load(True)
    assert caught.value.reading is not None
    assert not caught.value.reading.load_on
    assert not controller.load_on


@both_drivers
@virtual_time
async def test_a_link_whose_first_reading_came_without_an_echo_needs_no_extra_requests() -> None:
    controller = LoggingController(copies_id=True)
    async with client_of(controller.connect) as tracer:
        await tracer.read()
        for on in [True, False, False, True]:
            await asyncio.sleep(2 * DUPLICATE_WINDOW)
            await tracer.set_load(on)
            assert controller.load_on == on
        assert tracer.stats.echoes == 0
    assert controller.commands == [READ] + [SWITCH] * 4


@both_drivers
@virtual_time
async def test_each_new_link_is_tested_for_echoes_again() -> None:
    controller = LoggingController(copies_id=True)
    async with client_of(controller.connect, backoff=(0.1, 0.1)) as tracer:
        await tracer.set_load(True)
        assert controller.commands == [READ, SWITCH]
        controller.hang_up()
        controller.requests.clear()
        controller.echo_delays = (0.001,)
        controller.plan(READ, *[Plan((0.04,))] * 9)
        controller.plan(SWITCH, *[LOST] * 9)
        with pytest.raises(LoadError):
            await tracer.set_load(False)
    assert controller.load_on


@both_drivers
@pytest.mark.parametrize("on", [True, False])
@virtual_time
async def test_a_line_that_begins_to_echo_confirms_no_switch_if_the_controller_uses_another_id(
    on: bool,
) -> None:
    """The first reading came without an echo. After that the controller receives nothing."""
    controller = LoggingController()
    async with client_of(controller.connect) as tracer:
        await tracer.set_load(not on)
        await asyncio.sleep(2 * DUPLICATE_WINDOW)
        controller.present = False
        controller.echo_delays = (0.001,)
        with pytest.raises(LoadUnknownError):
            await tracer.set_load(on)
    assert controller.load_on is not on


@both_drivers
@virtual_time
async def test_a_line_whose_first_echo_is_lost_confirms_no_switch_if_the_controller_uses_another_id() -> None:
    controller = LoggingController()
    controller.plan(READ, *[Plan((0.03,))] * 100)
    controller.plan(SWITCH, *[LOST] * 100)
    async with client_of(controller.connect) as tracer:
        await tracer.read()
        controller.echo_delays = (0.001,)
        with pytest.raises(LoadError):
            await tracer.set_load(True)
        assert tracer.stats.echoes == len(controller.requests) - 1
    assert controller.sent(SWITCH)
    assert not controller.load_on


@both_drivers
@pytest.mark.parametrize("copies_id", [False, True], ids=["ID 0", "ID copied"])
@pytest.mark.parametrize("reply_delay", [0.002, 0.04, 0.9])
@virtual_time
async def test_the_reply_after_an_echo_is_the_answer(copies_id: bool, reply_delay: float) -> None:
    controller = LoggingController(copies_id=copies_id, echo_delays=(0.001,))
    for command in (READ, SWITCH, WRITE):
        controller.plan(command, *[Plan((reply_delay,))] * 9)
    async with client_of(controller.connect, retries=0) as tracer:
        assert not (await tracer.read_realtime()).load_on
        await tracer.set_load(True)
        assert (await tracer.read_realtime()).load_on
        await tracer.write_settings(SETTINGS)
        await tracer.set_load(False)
        assert not (await tracer.read_realtime()).load_on
        assert tracer.stats.timeouts == 0
    assert controller.settings == SETTINGS.to_bytes()
    assert not controller.load_on
