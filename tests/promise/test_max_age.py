"""`read_realtime(max_age=)` returns no reading from before a command or a suspend; `Reading.age` is an upper bound."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest

from tests.promise.logging_controller import LOST, READ, SWITCH, UNANSWERED, WRITE, LoggingController, Plan
from tests.promise.settings import SETTINGS
from tests.promise.virtual_time import virtual_time
from tracer_async import (
    Command,
    LoadUnknownError,
    RealtimeData,
    ResponseTimeoutError,
    TracerClient,
)
from tracer_async.client import _suspend


class BatteryVoltage(Command[float]):
    """A custom command with the code of a reading."""

    code: ClassVar[int] = READ

    def to_bytes(self) -> bytes:
        return b"\x03"

    def decode_reply(self, data: bytes) -> float:
        voltage: int = struct.unpack_from("<H", data)[0]
        return voltage / 100


@virtual_time
async def test_after_a_switch_that_was_read_back_max_age_returns_a_reading() -> None:
    controller = LoggingController()
    controller.plan(SWITCH, UNANSWERED)
    async with TracerClient(controller.connect) as tracer:
        await tracer.set_load(True)
        data = await tracer.read_realtime(max_age=60.0)
    assert isinstance(data, RealtimeData)
    assert data.load_on


@virtual_time
async def test_the_answer_to_a_custom_command_with_the_code_of_a_reading_is_not_a_reading() -> None:
    async with TracerClient(LoggingController().connect) as tracer:
        for _ in range(2):
            assert await tracer.execute(BatteryVoltage()) == 12.3
            data = await tracer.read_realtime(max_age=60.0)
            assert isinstance(data, RealtimeData)
            assert data.battery_voltage == 12.3


async def cancelled(tracer: TracerClient) -> None:
    async with asyncio.timeout(0.6):
        await tracer.set_load(True)


async def written(tracer: TracerClient) -> None:
    await tracer.write_settings(SETTINGS)


async def failed(tracer: TracerClient) -> None:
    await tracer.set_load(True)


@pytest.mark.parametrize("call", [cancelled, failed, written])
@virtual_time
async def test_max_age_returns_no_reading_from_before_a_command_whose_outcome_is_unknown(
    call: Callable[[TracerClient], Awaitable[None]],
) -> None:
    """The load is switched by something else meanwhile, so that only a new reading can tell its state."""
    controller = LoggingController()
    for command in (SWITCH, WRITE):
        controller.plan(command, UNANSWERED)
    async with TracerClient(controller.connect, retries=0, max_timeouts=100) as tracer:
        assert not (await tracer.read_realtime(max_age=60.0)).load_on
        await asyncio.sleep(1.0)
        controller.plan(READ, *[LOST] * (call is failed))
        with suppress(TimeoutError, ResponseTimeoutError, LoadUnknownError):
            await call(tracer)
            pytest.fail("nothing was answered")
        controller.load_on = True
        assert (await tracer.read_realtime(max_age=60.0)).load_on
    assert controller.sent(SWITCH) or controller.sent(WRITE)


@virtual_time
async def test_max_age_returns_no_reading_from_before_a_suspension_of_the_machine() -> None:
    suspended = 0.0
    controller = LoggingController()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(_suspend, "suspended_seconds", lambda: suspended)
        async with TracerClient(controller.connect) as tracer:
            first = await tracer.read_realtime(max_age=60.0)
            assert await tracer.read_realtime(max_age=60.0) == first
            assert len(controller.sent(READ)) == 1
            await asyncio.sleep(0.01)
            suspended = 8 * 3600.0
            controller.load_on = True
            assert (await tracer.read_realtime(max_age=60.0)).load_on
            # This reading is from after the suspend.
            await tracer.read_realtime(max_age=60.0)
            assert len(controller.sent(READ)) == 2


@pytest.mark.parametrize("reply_after", [1.0, 8.0])
@virtual_time
async def test_the_age_covers_the_first_of_more_than_64_unanswered_requests(reply_after: float) -> None:
    controller = LoggingController()
    controller.plan(READ, Plan((reply_after,)), *[LOST] * 200)
    options: dict[str, Any] = {"timeout": 0.09, "fence": 0.0, "retries": 100, "max_timeouts": 10000}
    async with TracerClient(controller.connect, **options) as tracer:
        reading = await tracer.read()
        measured_before = asyncio.get_running_loop().time() - controller.requests[0].at
    assert reading.age >= measured_before - 1e-6
    assert measured_before == pytest.approx(reply_after)
    assert (len(controller.requests) > 64) == (reply_after == 8.0)
