"""The calls of a client, over every kind of transport."""

from __future__ import annotations

import asyncio
import gc
import math
from typing import Any

import pytest

from tests.descriptors import open_files, wait_until_closed
from tests.links import Link
from tests.peer import SETTINGS
from tracer_async import (
    Command,
    ConnectionState,
    LinkClosedError,
    LoadRefusedError,
    LoadState,
    ManualControl,
    ReadRealtime,
    RealtimeData,
    TracerClient,
)


async def test_a_reading_has_the_values_of_the_controller(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        data = await tracer.read_realtime()
    assert isinstance(data, RealtimeData)
    assert data.over_discharge_voltage == link.tracer.realtime().over_discharge_voltage
    assert data.charging


async def test_set_load_switches_the_load(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        for on in (False, True, False):
            assert await tracer.set_load(on) is LoadState(on)
            assert link.tracer.load_on is on
            assert (await tracer.read_realtime()).load_on is on


async def test_a_refused_switch_raises_load_refused_error_with_the_real_state(link: Link) -> None:
    link.tracer.short_circuit = True
    async with TracerClient(link.url) as tracer:
        with pytest.raises(LoadRefusedError, match="short-circuited") as caught:
            await tracer.set_load(True)
        assert caught.value.reading.load_short_circuit
        assert not caught.value.reading.load_on
        await tracer.read_realtime()


async def test_write_settings_changes_the_settings_of_the_controller(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        await tracer.write_settings(SETTINGS)
    assert link.tracer.settings == SETTINGS


async def test_execute_returns_the_answer_type_of_the_command(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        state: LoadState = await tracer.execute(ManualControl(LoadState.OFF))
        data: RealtimeData = await tracer.execute(ReadRealtime())
    assert state is LoadState.OFF
    assert not data.load_on


async def test_concurrent_callers_each_get_the_answer_to_their_own_command(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        commands: list[Command[Any]] = [ReadRealtime(), ManualControl(LoadState.ON), ManualControl(LoadState.OFF)]
        answers = await asyncio.gather(*(tracer.execute(commands[at % 3]) for at in range(6)))
    for at, answer in enumerate(answers):
        assert isinstance(answer, RealtimeData) if at % 3 == 0 else answer is LoadState(at % 3 == 1)


async def test_frames_yields_every_frame_and_ends_when_the_client_closes(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        frames = tracer.frames()
        await tracer.read_realtime()
        await tracer.set_load(False)
    seen = [frame.command async for frame in frames]
    assert seen == [0xA0, 0xAA]
    assert [frame async for frame in frames] == []


async def test_a_closed_client_refuses_calls_and_leaves_no_descriptor_and_no_task(link: Link) -> None:
    descriptors = open_files()
    tracer = TracerClient(link.url)
    await tracer.open()
    await tracer.read_realtime()
    await tracer.aclose()
    await tracer.aclose()
    assert tracer.state is ConnectionState.CLOSED
    for refused in (tracer.read_realtime(), tracer.set_load(True), tracer.write_settings(SETTINGS), tracer.open()):
        with pytest.raises(LinkClosedError):
            await refused
    del tracer, refused
    gc.collect()
    await wait_until_closed(descriptors)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tracer_async ")]


async def test_closing_the_client_fails_requests_in_flight(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        waiting = asyncio.gather(tracer.set_load(True), tracer.write_settings(SETTINGS), return_exceptions=True)
        await asyncio.sleep(0)
        await tracer.aclose()
        assert [type(outcome) for outcome in await waiting] == [LinkClosedError] * 2


async def test_a_transport_can_be_opened_again_after_the_client_closed(link: Link) -> None:
    for _ in range(3):
        async with TracerClient(link.url) as tracer:
            await tracer.read_realtime()


async def test_a_poll_ends_when_the_client_closes(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        count = 0
        async for reading in tracer.poll(0.01):
            assert reading.ok
            assert reading.data is not None
            assert 0 <= reading.age < 10
            count += 1
            if count == 3:
                await tracer.aclose()
    assert count == 3


async def test_waiting_for_the_close_ends_at_the_given_time_or_when_the_client_closes(link: Link) -> None:
    loop = asyncio.get_running_loop()
    async with TracerClient(link.url) as tracer:
        assert not await tracer.wait_closed(until=loop.time() - 1)
        assert not await tracer.wait_closed(until=loop.time() + 0.001)
        cancelled = asyncio.create_task(tracer.wait_closed())
        waiting = [asyncio.create_task(tracer.wait_closed(until=until)) for until in (loop.time() + 3600, math.inf)]
        await asyncio.sleep(0)
        cancelled.cancel()
    assert await asyncio.gather(*waiting) == [True, True]
    assert cancelled.cancelled()
    assert await tracer.wait_closed()
