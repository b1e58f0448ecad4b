"""What a type checker infers from the public names. mypy and pyright read this file; the tests also run it.

`assert_type` does nothing at run time, so each test checks the value as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, assert_type

import pytest

from tests.peer import READING, SETTINGS
from tracer_async import (
    BatteryType,
    ClientOptions,
    Command,
    ConnectionState,
    CorruptFrame,
    Fleet,
    FleetReading,
    Frame,
    FrameDecoder,
    LinkError,
    LoadMode,
    LoadRefusedError,
    LoadState,
    ManualControl,
    Noise,
    Reading,
    ReadRealtime,
    RealtimeData,
    ResponseTimeoutError,
    SessionStats,
    Subscription,
    TracerClient,
    TracerError,
    WriteSettings,
    poll,
)


class Firmware(Command[tuple[int, int]]):
    """A command of a user, with an answer of its own type."""

    code = 0xB0

    def to_bytes(self) -> bytes:
        return b""

    def decode_reply(self, data: bytes) -> tuple[int, int]:
        return data[0], data[1]


async def test_each_call_has_the_type_of_its_answer() -> None:
    async with TracerClient("sim:") as tracer:
        assert_type(tracer, TracerClient)
        data = assert_type(await tracer.read_realtime(max_age=1.0), RealtimeData)
        assert isinstance(data, RealtimeData)
        assert isinstance(assert_type(await tracer.read(), Reading), Reading)
        assert assert_type(await tracer.set_load(True), LoadState) is LoadState.ON
        await tracer.write_settings(SETTINGS)
        assert assert_type(tracer.state, ConnectionState) is ConnectionState.UP
        assert assert_type(tracer.stats, SessionStats).answers > 0
        assert assert_type(tracer.url, str) == "sim:"


async def test_execute_returns_the_type_of_the_command() -> None:
    async with TracerClient("sim:") as tracer:
        data = await tracer.execute(ReadRealtime())
        assert assert_type(data, RealtimeData).charging
        load = await tracer.execute(ManualControl(LoadState.ON))
        assert assert_type(load, LoadState) is LoadState.ON
        write: Command[None] = WriteSettings(SETTINGS)
        await tracer.execute(write)
    assert assert_type(Firmware().decode_reply(b"\x01\x02"), tuple[int, int]) == (1, 2)


async def execute_a_command_of_a_user(tracer: TracerClient) -> tuple[int, int]:
    """For the type checkers alone: the simulator does not know the command."""
    return assert_type(await tracer.execute(Firmware()), tuple[int, int])


async def test_iterations_have_the_type_of_their_items() -> None:
    async with TracerClient("sim:") as tracer:
        frames = assert_type(tracer.frames(), Subscription[Frame])
        changes = assert_type(tracer.state_changes(), Subscription[ConnectionState])
        readings = assert_type(tracer.poll(0.01), AsyncGenerator[Reading, None])
        assert_type(poll(tracer, 0.01), AsyncGenerator[Reading, None])
        async for reading in readings:
            assert_type(reading, Reading)
            assert reading.ok
            break
        async for frame in frames:
            assert isinstance(assert_type(frame, Frame), Frame)
            break
        assert assert_type(changes.dropped, int) == 0


async def test_a_fleet_gives_names_and_readings() -> None:
    options: ClientOptions = {"timeout": 0.5, "retries": 1}
    async with Fleet() as fleet:
        assert_type(fleet.add("sim:", interval=0.01, name="shed", **options), TracerClient)
        assert_type(fleet["shed"], TracerClient)
        item = assert_type(await anext(fleet), FleetReading)
        name, reading = item
        assert assert_type(name, str) == "shed"
        assert assert_type(reading, Reading).ok


def test_the_fields_of_a_reading_have_types() -> None:
    reading = Reading(0.0, READING)
    assert_type(reading.time, float)
    assert_type(reading.data, RealtimeData | None)
    assert_type(reading.error, TracerError | None)
    assert_type(reading.age, float)
    assert_type(reading.skipped, int)
    assert reading.data is not None
    assert_type(reading.data.battery_voltage, float)
    assert_type(reading.data.charge_power, float)
    assert_type(reading.data.load_on, bool)
    assert_type(reading.data.battery_temperature, int)
    assert assert_type(reading.data.reserved, bytes) == b"\x00\x00\x29\x00"
    assert_type(SETTINGS.battery_type, BatteryType)
    assert assert_type(SETTINGS.load_mode_1, LoadMode) is LoadMode.MANUAL


def test_events_of_the_decoder_can_be_matched() -> None:
    seen: list[str] = []
    for event in FrameDecoder().feed(Frame(0, 0xA0, READING.to_bytes()).encode()):
        assert_type(event, Frame | CorruptFrame | Noise)
        match event:
            case Frame(data=data):
                seen.append(assert_type(data, bytes).hex())
            case CorruptFrame(raw=raw) | Noise(raw=raw):
                assert_type(raw, bytes)
    assert seen == [READING.to_bytes().hex()]


def test_errors_have_typed_evidence() -> None:
    def evidence(error: TracerError) -> object:
        if isinstance(error, LoadRefusedError):
            return assert_type(error.reading, RealtimeData)
        if isinstance(error, ResponseTimeoutError):
            timeout: TimeoutError = error
            return timeout
        if isinstance(error, LinkError):
            lost: ConnectionError = error
            return lost
        return None

    assert evidence(TracerError("x")) is None


async def test_a_transport_factory_is_accepted_in_place_of_a_url() -> None:
    async def factory(protocol_factory: Any) -> tuple[Any, Any]:
        raise ConnectionRefusedError

    assert assert_type(TracerClient(factory), TracerClient).state is ConnectionState.CLOSED
    with pytest.raises(LinkError):
        await asyncio.wait_for(TracerClient(factory).open(), 10.0)
