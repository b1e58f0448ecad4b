"""A write succeeds only if the controller did it, even if replies are late, duplicated, or for another client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from tests.drivers import both_drivers, client_of
from tests.promise.logging_controller import LOST, READ, SWITCH, UNANSWERED, WRITE, LoggingController, Plan
from tests.promise.settings import SETTINGS
from tests.promise.virtual_time import run_virtual, virtual_time
from tracer_async import (
    LinkLostError,
    LoadRefusedError,
    LoadState,
    LoadUnknownError,
    ManualControl,
    ResponseTimeoutError,
    WriteSettings,
)

FIRST = SETTINGS
SECOND = replace(FIRST, battery_capacity=200)

DUPLICATE_WINDOW = 0.25

# The first reply comes late (the timeout is 1 s), or twice.
LATE: list[tuple[float, ...]] = [(tenths / 10,) for tenths in range(11, 60)]
DOUBLED: list[tuple[float, ...]] = [(0.04, 0.04 + hundredths / 100) for hundredths in range(25)]
LATE_AND_DOUBLED: list[tuple[float, ...]] = [(first, first + 0.2) for (first,) in LATE]
DELAYS = LATE + DOUBLED + LATE_AND_DOUBLED


async def gather(*calls: Awaitable[Any]) -> list[Any]:
    """The results and the errors of concurrent calls."""
    return await asyncio.gather(*calls, return_exceptions=True)


def failed(result: object) -> bool:
    return isinstance(result, Exception)


# Success.


@both_drivers
def test_a_settings_write_queued_after_another_never_gets_the_reply_to_the_first() -> None:
    async def main(delays: tuple[float, ...]) -> None:
        controller = LoggingController()
        controller.plan(WRITE, Plan(delays), LOST)
        async with client_of(controller.connect) as tracer:
            _, second = await gather(tracer.write_settings(FIRST), tracer.write_settings(SECOND))
            assert failed(second)
        assert [request.executed for request in controller.sent(WRITE)] in ([True], [True, False])
        assert controller.settings == FIRST.to_bytes()

    for delays in DELAYS:
        run_virtual(lambda delays=delays: main(delays))  # type: ignore[misc]


@both_drivers
@pytest.mark.parametrize("commands", [[WriteSettings(FIRST)] * 2, [ManualControl(LoadState.ON)] * 2], ids=["AD", "AA"])
def test_the_second_of_two_equal_concurrent_commands_never_gets_the_reply_to_the_first(
    commands: list[Any],
) -> None:
    async def main(delays: tuple[float, ...]) -> None:
        controller = LoggingController()
        controller.plan(commands[0].code, Plan(delays), LOST)
        async with client_of(controller.connect, retries=0) as tracer:
            _, second = await gather(*(tracer.execute(command) for command in commands))
            assert failed(second)

    for delays in DELAYS:
        run_virtual(lambda delays=delays: main(delays))  # type: ignore[misc]


@both_drivers
@pytest.mark.parametrize("delays", DOUBLED[::8] + LATE[::8])
@virtual_time
async def test_a_write_queued_after_another_succeeds_if_the_controller_executes_it(delays: tuple[float, ...]) -> None:
    controller = LoggingController()
    controller.plan(WRITE, Plan(delays))
    async with client_of(controller.connect, retries=9, max_timeouts=99) as tracer:
        _, second = await gather(tracer.write_settings(FIRST), tracer.write_settings(SECOND))
        assert second is None
    assert controller.settings == SECOND.to_bytes()


# What is sent before a write.


@both_drivers
@virtual_time
async def test_the_second_settings_write_is_sent_after_an_answered_reading_and_the_duplicate_window() -> None:
    controller = LoggingController()
    controller.plan(WRITE, *[Plan((0.04,))] * 3)
    controller.plan(READ, *[Plan((0.04,))] * 9)
    async with client_of(controller.connect) as tracer:
        await gather(*(tracer.write_settings(settings) for settings in (FIRST, SECOND, FIRST)))
    assert controller.commands == [READ, WRITE] * 3
    for reading, write in zip(controller.sent(READ), controller.sent(WRITE), strict=True):
        assert write.at >= reading.at + 0.04 + DUPLICATE_WINDOW


@both_drivers
@virtual_time
async def test_without_an_answered_reading_the_second_settings_write_is_not_sent() -> None:
    controller = LoggingController()
    async with client_of(controller.connect) as tracer:
        await tracer.write_settings(FIRST)
        controller.plan(READ, *[LOST] * 99)
        with pytest.raises(ResponseTimeoutError) as caught:
            await tracer.write_settings(SECOND)
    assert caught.value.unsent == WRITE
    assert len(controller.sent(WRITE)) == 1


CALLS = [
    pytest.param(lambda tracer: tracer.set_load(True), SWITCH, id="set_load"),
    pytest.param(lambda tracer: tracer.write_settings(FIRST), WRITE, id="write_settings"),
    pytest.param(lambda tracer: tracer.execute(ManualControl(LoadState.ON)), SWITCH, id="execute"),
]


@both_drivers
@pytest.mark.parametrize(("call", "code"), CALLS)
@virtual_time
async def test_the_first_command_on_each_link_is_sent_after_a_reading_and_the_duplicate_window(
    call: Any, code: int
) -> None:
    controller = LoggingController()
    async with client_of(controller.connect, backoff=(0.1, 0.1)) as tracer:
        for _ in range(3):
            controller.requests.clear()
            controller.plan(READ, Plan((0.04,)))
            await call(tracer)
            assert controller.commands == [READ, code]
            reading, command = controller.requests
            assert command.at >= reading.at + 0.04 + DUPLICATE_WINDOW
            controller.hang_up()
            await asyncio.sleep(1)


@both_drivers
@pytest.mark.parametrize(("call", "code"), CALLS)
@pytest.mark.parametrize("kind", ["late", "late and doubled"])
def test_the_first_write_of_a_second_client_never_gets_the_reply_to_the_first_client(
    call: Any, code: int, kind: str
) -> None:
    async def main(delays: tuple[float, ...]) -> None:
        bridge = LoggingController(keeps_bytes=True)
        bridge.plan(code, Plan(delays))
        async with client_of(bridge.connect, timeout=0.2, retries=0) as tracer:
            await gather(call(tracer))
        assert bridge.sent(code)[0].executed
        bridge.load_on = False
        bridge.plan(code, *[LOST] * 9)
        async with client_of(bridge.connect, retries=0) as tracer:
            (result,) = await gather(call(tracer))
        assert failed(result)

    for twentieths in range(1, 99):
        delay = twentieths / 20
        run_virtual(lambda delay=delay: main((delay, delay + 0.2) if kind != "late" else (delay,)))  # type: ignore[misc]


@both_drivers
@pytest.mark.parametrize("delay", [0.3, 0.5, 0.8, 1.2, 2.0, 3.0])
@virtual_time
async def test_a_late_reply_on_the_next_link_does_not_confirm_another_write(delay: float) -> None:
    bridge = LoggingController(keeps_bytes=True)
    bridge.plan(WRITE, Plan((delay,)), LOST)
    async with client_of(bridge.connect, backoff=(0.1, 0.1)) as tracer:
        first = asyncio.create_task(tracer.write_settings(FIRST))
        while not bridge.sent(WRITE):
            await asyncio.sleep(0.01)
        bridge.hang_up()
        with pytest.raises(LinkLostError):
            await first
        with pytest.raises(ResponseTimeoutError):
            await tracer.write_settings(SECOND)


@both_drivers
@pytest.mark.parametrize("gap", [0.1, 0.3, 0.6, 1.0])
def test_a_late_reading_on_the_next_link_does_not_permit_a_write(gap: float) -> None:
    async def main(delay: float) -> None:
        bridge = LoggingController(keeps_bytes=True)
        bridge.plan(READ, Plan(), Plan((delay,)))
        bridge.plan(WRITE, Plan((delay + gap - 0.2,)), LOST)
        options: dict[str, Any] = {"timeout": 0.2, "fence": 0.0, "retries": 0, "backoff": (0.1, 0.1)}
        async with client_of(bridge.connect, max_timeouts=99, **options) as tracer:
            await tracer.read()
            await asyncio.sleep(2 * DUPLICATE_WINDOW)
            await gather(tracer.read())  # times out after 0.2 s
            await gather(tracer.write_settings(FIRST))
            bridge.hang_up()
            for _ in range(9):
                (second,) = await gather(tracer.write_settings(SECOND))
                assert failed(second) or bridge.settings == SECOND.to_bytes()

    for twentieths in range(5, 60):
        run_virtual(lambda delay=twentieths / 20: main(delay))  # type: ignore[misc]


# One transaction.


@both_drivers
@virtual_time
async def test_other_switches_and_writes_wait_for_the_end_of_a_set_load() -> None:
    controller = LoggingController()
    controller.plan(SWITCH, LOST, UNANSWERED)
    loop = asyncio.get_running_loop()
    async with client_of(controller.connect) as tracer:
        switching = asyncio.create_task(tracer.set_load(True))
        while not controller.sent(SWITCH):
            await asyncio.sleep(0.01)
        others = asyncio.gather(
            tracer.set_load(False),
            tracer.write_settings(FIRST),
            tracer.execute(ManualControl(LoadState.OFF)),
        )
        assert await switching is LoadState.ON
        ended = loop.time()
        await others
    begun = controller.sent(SWITCH)[0].at
    between = [request for request in controller.requests if begun < request.at < ended]
    assert [(request.command, request.data) for request in between if request.command != READ] == [(SWITCH, b"\x01")]
    assert between[-1].load_on
    assert not controller.load_on
    assert controller.settings == FIRST.to_bytes()


@both_drivers
@virtual_time
async def test_concurrent_opposite_switches_both_succeed_one_after_the_other() -> None:
    controller = LoggingController()
    controller.plan(SWITCH, *[UNANSWERED] * 4)
    async with client_of(controller.connect) as tracer:
        assert await gather(*(tracer.set_load(on) for on in (True, False, True, False))) == [1, 0, 1, 0]
    assert [request.data[0] for request in controller.sent(SWITCH)] == [1, 0, 1, 0]


@virtual_time
async def test_readings_are_sent_during_a_set_load() -> None:
    controller = LoggingController()
    controller.plan(SWITCH, UNANSWERED)
    async with client_of(controller.connect) as tracer:
        switching = asyncio.create_task(tracer.set_load(True))
        await asyncio.sleep(0)
        # The reading that has to come before the command answers this caller, too.
        assert not (await tracer.read_realtime()).load_on
        assert not switching.done()
        assert not controller.sent(SWITCH)
        while not controller.sent(SWITCH):
            await asyncio.sleep(0.01)
        assert (await tracer.read_realtime()).load_on
        assert await switching is LoadState.ON


# Refusals.


@both_drivers
def test_a_duplicate_of_an_earlier_reply_is_not_a_refusal() -> None:
    async def main(delays: tuple[float, ...]) -> None:
        controller = LoggingController()
        controller.plan(SWITCH, Plan(delays), Plan((0.04,)))
        async with client_of(controller.connect) as tracer:
            await tracer.set_load(False)
            assert await tracer.set_load(True) is LoadState.ON
            assert controller.load_on

    for delays in DOUBLED:
        run_virtual(lambda delays=delays: main(delays))  # type: ignore[misc]


@both_drivers
@virtual_time
async def test_a_switch_whose_answer_may_be_a_copy_is_repeated() -> None:
    controller = LoggingController()
    controller.plan(SWITCH, Plan((0.04, 0.1)), LOST)
    async with client_of(controller.connect, retries=1) as tracer:
        await tracer.set_load(False)
        assert await tracer.set_load(True) is LoadState.ON
    assert controller.load_on
    assert [request.data for request in controller.sent(SWITCH)] == [b"\x00", b"\x01", b"\x01"]


@both_drivers
@pytest.mark.parametrize("retries", [0, 1, 2, 5])
@virtual_time
async def test_the_switch_is_repeated_while_retries_are_left(retries: int) -> None:
    controller = LoggingController()
    async with client_of(controller.connect, retries=retries) as tracer:
        controller.plan(SWITCH, *[LOST] * retries)
        assert await tracer.set_load(True) is LoadState.ON
        assert controller.load_on
        controller.plan(SWITCH, *[LOST] * (retries + 1))
        with pytest.raises(LoadUnknownError):
            await tracer.set_load(False)
        assert controller.load_on
    assert len(controller.sent(SWITCH)) == 2 * (retries + 1)


@both_drivers
@virtual_time
async def test_a_refusal_needs_an_unambiguous_answer() -> None:
    controller = LoggingController(manual=False)
    async with client_of(controller.connect) as tracer:
        with pytest.raises(LoadRefusedError) as caught:
            await tracer.set_load(True)
    assert not caught.value.reading.load_on
    assert len(controller.sent(SWITCH)) == 1


@both_drivers
@virtual_time
async def test_without_an_answer_the_load_is_unknown_and_the_error_has_the_reading() -> None:
    controller = LoggingController(manual=False)
    controller.plan(SWITCH, *[UNANSWERED] * 9)
    async with client_of(controller.connect) as tracer:
        with pytest.raises(LoadUnknownError) as caught:
            await tracer.set_load(True)
    assert caught.value.sent
    assert caught.value.reading is not None
    assert caught.value.reading.battery_voltage == 12.30
    assert not caught.value.reading.load_on


# Settings are never sent twice.


@both_drivers
@pytest.mark.parametrize("plan", [LOST, UNANSWERED, Plan((1.5,)), Plan((0.0, 0.1))])
@virtual_time
async def test_settings_are_never_sent_twice(plan: Plan) -> None:
    controller = LoggingController()
    controller.plan(WRITE, plan)
    async with client_of(controller.connect) as tracer:
        await gather(tracer.write_settings(FIRST), tracer.read(), tracer.set_load(True))
        await asyncio.sleep(30)
    assert len(controller.sent(WRITE)) == 1


@both_drivers
@virtual_time
async def test_settings_are_not_sent_again_on_the_next_link() -> None:
    controller = LoggingController()
    controller.plan(WRITE, UNANSWERED)
    async with client_of(controller.connect, backoff=(0.1, 0.1)) as tracer:
        writing = asyncio.create_task(tracer.write_settings(FIRST))
        while not controller.sent(WRITE):
            await asyncio.sleep(0.01)
        controller.hang_up()
        with pytest.raises(LinkLostError):
            await writing
        await tracer.read()
        assert tracer.stats.links == 2
        await asyncio.sleep(30)
    assert len(controller.sent(WRITE)) == 1
