"""What holds for a client over every kind of link."""

from __future__ import annotations

import asyncio
import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.links import Link
from tracer_async import (
    BatteryType,
    Command,
    ConnectionState,
    ControlSettings,
    LinkClosedError,
    LoadMode,
    LoadRefusedError,
    LoadState,
    ManualControl,
    ReadRealtime,
    RealtimeData,
    TracerClient,
)

SETTINGS = ControlSettings(
    battery_type=BatteryType.SEALED,
    battery_capacity=100,
    temperature_compensation=3,
    load_mode_1=LoadMode.MANUAL,
    load_mode_2=LoadMode.OFF,
)


async def test_a_reading_is_what_the_controller_measures(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        data = await tracer.read_realtime()
    assert isinstance(data, RealtimeData)
    assert data.over_discharge_voltage == link.tracer.realtime().over_discharge_voltage
    assert data.charging


async def test_the_load_is_switched(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        for on in (False, True, False):
            assert await tracer.set_load(on) is LoadState(on)
            assert link.tracer.load_on is on
            assert (await tracer.read_realtime()).load_on is on


async def test_a_refused_switch_says_so_with_the_real_state(link: Link) -> None:
    link.tracer.short_circuit = True
    async with TracerClient(link.url) as tracer:
        with pytest.raises(LoadRefusedError, match="short-circuited") as caught:
            await tracer.set_load(True)
        assert caught.value.reading.load_short_circuit
        assert not caught.value.reading.load_on
        await tracer.read_realtime()


async def test_settings_are_written(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        await tracer.write_settings(SETTINGS)
    assert link.tracer.settings == SETTINGS


async def test_execute_gives_each_commands_own_answer(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        state: LoadState = await tracer.execute(ManualControl(LoadState.OFF))
        data: RealtimeData = await tracer.execute(ReadRealtime())
    assert state is LoadState.OFF
    assert not data.load_on


async def test_many_callers_at_once_all_get_their_own_answer(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        commands: list[Command[Any]] = [ReadRealtime(), ManualControl(LoadState.ON), ManualControl(LoadState.OFF)]
        answers = await asyncio.gather(*(tracer.execute(commands[at % 3]) for at in range(12)))
    for at, answer in enumerate(answers):
        assert isinstance(answer, RealtimeData) if at % 3 == 0 else answer is LoadState(at % 3 == 1)


async def test_frames_shows_every_frame_and_ends_with_the_client(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        frames = tracer.frames()
        await tracer.read_realtime()
        await tracer.set_load(False)
    seen = [frame.command async for frame in frames]
    assert seen == [0xA0, 0xAA]
    assert [frame async for frame in frames] == []


async def test_a_closed_client_answers_nothing_and_leaves_nothing(link: Link) -> None:
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
    await served(descriptors)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tracer_async ")]


async def test_a_client_that_is_closed_in_mid_request_fails_it(link: Link) -> None:
    async with TracerClient(link.url) as tracer:
        waiting = asyncio.gather(tracer.set_load(True), tracer.write_settings(SETTINGS), return_exceptions=True)
        await asyncio.sleep(0)
        await tracer.aclose()
        assert [type(outcome) for outcome in await waiting] == [LinkClosedError] * 2


async def test_the_link_can_be_opened_again_by_the_next_client(link: Link) -> None:
    for _ in range(3):
        async with TracerClient(link.url) as tracer:
            await tracer.read_realtime()


async def test_a_poll_goes_on_and_ends_with_the_client(link: Link) -> None:
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


def open_files() -> set[str]:
    """The descriptors of this process, each with what it is open on. libuv keeps one of /dev/null for itself."""
    files = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            files.add(f"{entry.name} {os.readlink(entry)}")  # noqa: PTH115  # sockets have no path
    return {file for file in files if not file.endswith("/dev/null")}


async def served(descriptors: set[str]) -> None:
    """Wait until the server has noticed that its client is gone; fail if a descriptor stays open."""
    for _ in range(1000):
        if open_files() <= descriptors:
            return
        await asyncio.sleep(0.001)
    assert open_files() <= descriptors
