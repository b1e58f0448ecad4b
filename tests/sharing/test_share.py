"""Programs that share a controller: which replies they get, and what is sent to the controller. In virtual time."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.promise.stamping_controller import (
    LOAD,
    READ,
    SETTINGS,
    SYNC,
    Replies,
    Request,
    StampingController,
    checksum,
    frame,
)
from tests.promise.virtual_time import VirtualTimeLoop, virtual_time
from tests.sharing.programs import UNKNOWN, Program, number_of, shared, timer_line
from tracer_async import LinkClosedError, TracerClient
from tracer_async.sharing import share

# Seconds that a controller at 9600 baud needs for a reading.
SLOW = 0.06


def slowly(controller: StampingController, request: Request) -> Replies:
    return [(SLOW, controller.execute(request))]


def silently(controller: StampingController, request: Request) -> Replies:
    controller.executed.append(request)
    return []


def with_readings_after(seconds: float) -> object:
    def script(controller: StampingController, request: Request) -> Replies:
        return [(seconds if request.command == READ else SLOW, controller.execute(request))]

    return script


@virtual_time
async def test_requests_at_the_same_time_share_an_exchange() -> None:
    async with shared(slowly) as line:
        programs = [await line.program() for _ in range(10)]
        replies = await asyncio.gather(*(program.ask(READ) for program in programs))
        assert None not in replies
        # The first request may be sent before the others have arrived.
        assert line.controller.count(READ) <= 2
        assert line.sharing.stats.requests == line.sharing.stats.replies == 10
        assert line.sharing.stats.programs == 10


@virtual_time
async def test_a_request_gets_no_reading_that_was_requested_before_it_arrived() -> None:
    async with shared(slowly) as line:
        one, other = await line.program(), await line.program()
        one.send(READ)
        await asyncio.sleep(SLOW / 2)
        assert line.controller.count(READ) == 1
        other.send(READ)
        assert number_of(await one.reply()) == 0
        assert number_of(await other.reply()) == 1


@virtual_time
async def test_many_programs_that_never_pause_need_few_exchanges() -> None:
    async with shared(slowly) as line:
        programs = [await line.program() for _ in range(10)]

        async def ask(program: Program) -> None:
            for _ in range(20):
                before = len(line.controller.measured)
                assert number_of(await program.ask(READ)) >= before

        await asyncio.gather(*map(ask, programs))
        assert line.controller.count(READ) <= 2 * 20 + 2


@virtual_time
async def test_a_reply_has_the_bytes_that_the_controller_sent() -> None:
    # With the ID of the document's example, and values in all reserved bytes.
    body = bytes.fromhex("16A018 CE04A4061234E8035604A005010000470000000137E8035A")
    sent = SYNC + body + checksum(body).to_bytes(2, "big") + b"\x7f"

    async with shared(lambda _, __: [(SLOW, b"\xaa\x55noise" + sent)]) as line:
        program = await line.program()
        assert await program.ask(READ) == sent


@pytest.mark.parametrize(
    ("command", "data"),
    [(READ, bytes(12) + b"\x02" + bytes(11)), (READ, bytes(23)), (READ, bytes(25)), (LOAD, b"\x02")],
    ids=["flag of 2", "short reading", "long reading", "load of 2"],
)
@virtual_time
async def test_a_program_gets_silence_in_place_of_a_malformed_reply(command: int, data: bytes) -> None:
    def script(controller: StampingController, request: Request) -> Replies:
        reply = controller.execute(request)
        return [(SLOW, frame(command, data) if request.command == command else reply)]

    async with shared(script) as line:
        program = await line.program()
        assert await program.ask(command, b"\x01" if command == LOAD else b"") is None
        assert line.controller.count(command)


@virtual_time
async def test_the_start_up_bytes_and_the_data_of_the_meter_are_accepted() -> None:
    async with shared(slowly) as line:
        program = await line.program()
        program.writer.write(b"\xaa\x55" * 3 + bytes.fromhex("EB90EB90EB9001A00103BDBB7F"))
        assert number_of(await program.reply()) == 0


@virtual_time
async def test_commands_go_before_readings_and_are_never_merged() -> None:
    async with shared(slowly) as line:
        busy, reader, *switches = [await line.program() for _ in range(4)]
        await busy.ask(LOAD, b"\x00")  # the first command on a connection takes a reading
        busy.send(READ)
        await asyncio.sleep(SLOW / 2)
        reader.send(READ)
        await asyncio.sleep(0)
        for program in switches:
            program.send(LOAD, b"\x01")
        replies = await asyncio.gather(*(program.reply() for program in switches))
        assert replies == [frame(LOAD, b"\x01")] * 2
        assert line.controller.executed.count(Request(LOAD, b"\x01")) == 2
        await reader.reply()
        commands = [request.command for request in line.controller.requests]
        assert commands.index(LOAD, commands.index(LOAD) + 1) < len(commands) - 1


@virtual_time
@pytest.mark.parametrize("command", [SETTINGS, UNKNOWN], ids=["settings", "unknown"])
async def test_any_command_is_passed_on_once_with_its_data(command: int) -> None:
    async with shared(slowly) as line:
        one, other = await line.program(), await line.program()
        data = bytes(range(7))
        one.send(command, data)
        other.send(command, data)
        assert await one.reply() == frame(command)
        assert await other.reply() == frame(command)
        assert [request for request in line.controller.requests if request.command == command] == [
            Request(command, data)
        ] * 2


@virtual_time
async def test_a_command_without_an_answer_is_not_repeated() -> None:
    def script(controller: StampingController, request: Request) -> Replies:
        return silently(controller, request) if request.command == LOAD else slowly(controller, request)

    async with shared(script) as line:
        program = await line.program()
        assert await program.ask(LOAD, b"\x01") is None
        assert await program.ask(READ) is not None
        assert line.controller.count(LOAD) == 1


@virtual_time
async def test_a_reading_is_shared_later_only_within_max_age_and_not_after_a_command() -> None:
    async with shared(slowly, max_age=5.0) as line:
        one, other = await line.program(), await line.program()
        first = await one.ask(READ)
        await asyncio.sleep(4)
        assert await other.ask(READ) == first
        assert line.sharing.stats.cached == 1
        await asyncio.sleep(2)
        assert await other.ask(READ) != first
        before = line.controller.count(READ)
        await one.ask(LOAD, b"\x01")
        reading = await other.ask(READ)
        assert reading is not None
        assert reading[21] == 1  # the load is on
        assert line.controller.count(READ) > before
        await line.client.set_load(on=False)  # a command of the application itself
        reading = await other.ask(READ)
        assert reading is not None
        assert reading[21] == 0


@virtual_time
async def test_without_max_age_no_reading_is_given_twice() -> None:
    async with shared(slowly) as line:
        program = await line.program()
        assert [number_of(await program.ask(READ)) for _ in range(5)] == list(range(5))


@virtual_time
async def test_when_the_controller_is_silent_its_programs_receive_nothing() -> None:
    async with shared(silently) as line:
        programs = [await line.program() for _ in range(3)]
        assert await asyncio.gather(*(program.ask(READ) for program in programs)) == [None] * 3
        assert await programs[0].ask(LOAD, b"\x01") is None


@virtual_time
@pytest.mark.parametrize(("delay", "answered"), [(0.7, True), (0.9, False)], ids=["within", "later"])
async def test_a_request_is_answered_within_its_time_or_never(delay: float, answered: bool) -> None:
    async with shared(with_readings_after(delay), client={"timeout": 3.0}) as line:  # type: ignore[arg-type]
        program = await line.program()
        program.send(READ)
        assert (await program.reply(5.0) is not None) is answered


@virtual_time
async def test_reply_within_can_be_longer() -> None:
    async with shared(with_readings_after(2.0), client={"timeout": 3.0}, reply_within=2.5) as line:  # type: ignore[arg-type]
        program = await line.program()
        program.send(READ)
        assert await program.reply(5.0) is not None


@virtual_time
async def test_a_command_that_could_not_be_sent_in_time_is_never_sent() -> None:
    async with shared(with_readings_after(0.9), client={"timeout": 3.0}) as line:  # type: ignore[arg-type]
        one, other = await line.program(), await line.program()
        one.send(READ)
        await asyncio.sleep(0.05)
        other.send(LOAD, b"\x01")
        assert await other.reply(5.0) is None
        assert line.controller.count(READ) >= 1
        assert line.controller.count(LOAD) == 0


@virtual_time
async def test_a_command_that_waits_for_a_connection_is_not_sent_later() -> None:
    plugged_in = False

    async def connect(protocol: Any) -> Any:
        if not plugged_in:
            raise ConnectionRefusedError
        return await url(protocol)

    options: dict[str, Any] = {"start_offline": True, "backoff": (0.01, 0.05)}
    with timer_line(slowly) as (controller, url), TemporaryDirectory() as folder:
        async with TracerClient(connect, **options) as client, share(client, f"unix:{folder}/socket") as sharing:
            program = await Program.connect(sharing.urls[0])
            assert await program.ask(LOAD, b"\x01") is None
            assert await program.ask(READ) is None
            plugged_in = True
            assert await program.ask(READ) is not None
            assert controller.count(LOAD) == 0
            assert await program.ask(LOAD, b"\x01") == frame(LOAD, b"\x01")
            program.leave()
            await asyncio.sleep(0.001)


@virtual_time
async def test_after_the_client_is_closed_programs_receive_nothing() -> None:
    async with shared(slowly) as line:
        program = await line.program()
        assert await program.ask(READ) is not None
        await line.client.aclose()
        assert await program.ask(READ) is None
        assert await program.ask(LOAD, b"\x01") is None


@virtual_time
async def test_a_newer_request_replaces_the_older_one() -> None:
    async with shared(slowly) as line:
        one, other = await line.program(), await line.program()
        one.send(READ)
        await asyncio.sleep(SLOW / 2)
        other.send(LOAD, b"\x01")
        await asyncio.sleep(0.01)
        other.send(READ)
        reply = await other.reply()
        assert reply is not None
        assert reply[7] == READ
        assert await other.reply() is None
        assert line.controller.count(LOAD) == 0


@virtual_time
async def test_of_requests_in_one_burst_only_the_last_is_answered() -> None:
    async with shared(slowly) as line:
        program = await line.program()
        program.writer.write(frame(LOAD, b"\x01") + frame(READ))
        assert number_of(await program.reply()) == 0
        assert await program.reply() is None
        assert line.controller.count(LOAD) == 0


@virtual_time
async def test_a_program_that_leaves_takes_its_request_along() -> None:
    async with shared(slowly) as line:
        one, other = await line.program(), await line.program()
        one.send(READ)
        await asyncio.sleep(SLOW / 2)
        other.send(LOAD, b"\x01")
        await asyncio.sleep(0.001)
        other.leave()
        assert await one.reply() is not None
        assert await one.ask(READ) is not None
        assert line.controller.count(LOAD) == 0
        assert line.sharing.stats.programs == 1


@virtual_time
async def test_a_program_that_leaves_does_not_delay_others() -> None:
    """Its reading is in flight. To abandon it would cost the others the fence."""
    async with shared(slowly, client={"fence": 10.0}) as line:
        one, other = await line.program(), await line.program()
        one.send(READ)
        await asyncio.sleep(SLOW / 2)
        one.leave()
        assert await other.ask(READ) is not None


@virtual_time
async def test_a_request_that_waited_unread_counts_from_the_time_it_was_sent() -> None:
    async with shared(slowly) as line:
        program = await line.program()
        await program.ask(LOAD, b"\x00")
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        program.send(LOAD, b"\x01")
        loop._virtual.now += 1.5  # the process is stopped, and the request waits in its socket
        assert await program.reply(3.0) is None
        assert line.controller.executed.count(Request(LOAD, b"\x01")) == 0
        assert await program.ask(LOAD, b"\x01") == frame(LOAD, b"\x01")


@virtual_time
async def test_the_request_of_a_program_that_connected_unnoticed_counts_from_the_time_it_was_sent() -> None:
    async with shared(slowly) as line:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        await asyncio.sleep(1.0)
        with socket.socket(socket.AF_UNIX) as program:
            program.connect(line.url.removeprefix("unix:"))
            program.sendall(frame(LOAD, b"\x01"))
            loop._virtual.now += 1.5  # the process is stopped
            await asyncio.sleep(5.0)
        assert line.sharing.stats.requests == 1
        assert line.controller.count(LOAD) == 0


@virtual_time
async def test_a_queued_command_is_not_sent_late_after_the_process_was_stopped() -> None:
    async with shared(slowly, client={"timeout": 3.0}) as line:
        one, other = await line.program(), await line.program()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        one.send(READ)
        await asyncio.sleep(SLOW / 2)
        other.send(LOAD, b"\x01")
        await asyncio.sleep(0.01)
        loop._virtual.now += 1.5
        assert await other.reply(3.0) is None
        assert line.controller.count(LOAD) == 0


@virtual_time
async def test_the_copy_of_an_earlier_reply_answers_nobody() -> None:
    def script(controller: StampingController, request: Request) -> Replies:
        reply = controller.execute(request)
        return [(0.01, reply), (0.2, reply)]

    async with shared(script) as line:
        program = await line.program()
        for _ in range(20):
            before = len(line.controller.measured)
            assert number_of(await program.ask(READ)) >= before


@virtual_time
async def test_an_invalid_reply_is_not_passed_on() -> None:
    def script(controller: StampingController, request: Request) -> Replies:
        data = {READ: b"short", LOAD: b"\x07"}[request.command]
        return [(SLOW, frame(request.command, data))]

    async with shared(script) as line:
        program = await line.program()
        assert await program.ask(READ) is None
        assert await program.ask(LOAD, b"\x01") is None


@virtual_time
@pytest.mark.parametrize("command", [LOAD, SETTINGS, UNKNOWN], ids=["load", "settings", "unknown"])
async def test_read_only_answers_readings_and_nothing_else(command: int) -> None:
    async with shared(slowly, read_only=True) as line:
        program = await line.program()
        assert await program.ask(command, b"\x01") is None
        assert await program.ask(READ) is not None
        assert {request.command for request in line.controller.requests} == {READ}


@virtual_time
async def test_the_application_uses_its_client_at_the_same_time() -> None:
    async with shared(slowly) as line:
        programs = [await line.program() for _ in range(3)]
        asked = [program.ask(READ) for program in programs]
        switch = line.client.set_load(on=True)
        reading = line.client.read_realtime()
        *replies, _, _ = await asyncio.gather(*asked, switch, reading)
        assert None not in replies
        assert line.controller.load_on


@virtual_time
async def test_clients_of_the_library_share_a_controller() -> None:
    async with shared(slowly) as line, TracerClient(line.url) as one, TracerClient(line.url) as other:
        await asyncio.gather(one.read_realtime(), other.read_realtime())
        await one.set_load(on=True)
        assert (await other.read_realtime()).load_on
        await other.set_load(on=False)
        assert not (await one.read_realtime()).load_on


async def test_the_client_must_be_open() -> None:
    with pytest.raises(LinkClosedError):
        async with share(TracerClient("sim:"), "127.0.0.1:0"):
            pass


@virtual_time
async def test_at_the_end_programs_are_disconnected_and_nothing_listens() -> None:
    with timer_line(slowly) as (_, url), TemporaryDirectory() as folder:
        path = Path(folder, "socket")
        async with TracerClient(url) as client:
            async with share(client, f"unix:{path}") as sharing:
                program = await Program.connect(sharing.urls[0])
                assert await program.ask(READ) is not None
            assert await program.is_disconnected()
            assert os.listdir(folder) == []  # noqa: PTH208
        program.leave()
        await asyncio.sleep(0.001)
