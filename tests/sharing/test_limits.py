"""Limits on the programs that share a controller, and programs that misbehave."""

from __future__ import annotations

import asyncio
import logging
import socket
import tracemalloc
from pathlib import Path

import pytest

from tests.promise.stamping_controller import LOAD, READ, SYNC, Replies, Request, StampingController, frame
from tests.promise.virtual_time import virtual_time
from tests.sharing.programs import Program, number_of, shared
from tracer_async import AddressError, LinkError, TracerClient
from tracer_async.sharing import share


def slowly(controller: StampingController, request: Request) -> Replies:
    return [(0.06, controller.execute(request))]


@virtual_time
async def test_one_program_too_many_is_disconnected_and_the_others_are_answered() -> None:
    async with shared(slowly, max_clients=3) as line:
        programs = [await line.program() for _ in range(3)]
        for program in programs:
            assert await program.ask(READ) is not None
        assert await (await line.program()).is_disconnected()
        assert line.sharing.stats.refused == 1
        for program in programs:
            assert await program.ask(READ) is not None
        programs[0].leave()
        await asyncio.sleep(0.1)
        assert await (await line.program()).ask(READ) is not None


@virtual_time
async def test_refused_programs_are_at_most_one_warning_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    async with shared(slowly, max_clients=1) as line:
        user = await line.program()
        for _ in range(30):  # two and a half minutes
            assert await user.ask(READ) is not None
            assert await (await line.program()).is_disconnected()
            await asyncio.sleep(5)
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 3
        assert all("refused: there are too many programs" in warning for warning in warnings)
        counted = [int(word) for warning in warnings for word in warning.split() if word.isdigit()]
        assert len(counted) == 2
        assert sum(counted) + len(warnings) <= line.sharing.stats.refused == 30


@virtual_time
async def test_connections_without_requests_do_not_lock_a_program_out() -> None:
    async with shared(slowly, max_clients=3) as line:
        user = await line.program()
        idle = [await line.program() for _ in range(2)]
        for _ in range(6):
            await asyncio.sleep(2)
            assert await user.ask(READ) is not None
        assert await (await line.program()).ask(READ) is not None
        assert [await program.is_disconnected() for program in idle].count(True) == 1
        assert await user.ask(READ) is not None


@virtual_time
async def test_a_program_without_a_request_is_disconnected_in_the_end() -> None:
    async with shared(slowly, idle_timeout=60.0) as line:
        user, idle = await line.program(), await line.program()
        for _ in range(7):
            await asyncio.sleep(10)
            assert await user.ask(READ) is not None
        assert await idle.is_disconnected()
        assert line.sharing.stats.programs == 1


@virtual_time
async def test_half_a_frame_hides_the_next_request_for_a_moment_only() -> None:
    async with shared(slowly) as line:
        program = await line.program()
        program.writer.write(SYNC + b"\x16\xa0\xc8half")
        await asyncio.sleep(0.05)
        program.send(READ)
        assert number_of(await program.reply()) == 0
        program.writer.write(frame(READ)[:-1])
        await asyncio.sleep(1)
        assert await program.ask(READ) is not None


@virtual_time
async def test_garbage_at_full_speed_delays_no_other_program() -> None:
    async with shared(slowly) as line:
        user, *senders = [await line.program() for _ in range(4)]
        garbage = [b"\x00" * 100_000, SYNC * 20_000, (SYNC + b"\x16\xa0\xc8") * 10_000]
        for sender, data in zip(senders, garbage, strict=True):
            sender.writer.write(data)
        for _ in range(20):
            assert await user.ask(READ) is not None


@virtual_time
async def test_a_flood_of_requests_needs_no_more_exchanges_than_one_program() -> None:
    async with shared(slowly) as line:
        user, flooding = await line.program(), await line.program()
        flooding.writer.write(frame(READ) * 5000)
        for _ in range(20):
            assert await user.ask(READ) is not None
        assert line.controller.count(READ) <= 45


@virtual_time
async def test_a_flood_of_load_commands_does_not_starve_readings() -> None:
    async with shared(slowly) as line:
        user, *floods = [await line.program() for _ in range(4)]

        async def flood(program: Program) -> None:
            while True:
                await program.ask(LOAD, b"\x01")

        tasks = [asyncio.create_task(flood(program)) for program in floods]
        for _ in range(20):
            assert await user.ask(READ) is not None
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@virtual_time
async def test_a_program_that_never_reads_is_disconnected_and_holds_no_memory() -> None:
    async with shared(slowly, max_age=1000.0) as line:  # answered at once, from the cache
        user, deaf = await line.program(), await line.program()
        await user.ask(READ)
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        tracemalloc.start()
        try:
            while line.sharing.stats.programs == 2:
                deaf.send(READ)
                await asyncio.sleep(0.01)
            assert tracemalloc.get_traced_memory()[0] < 2_000_000
        finally:
            tracemalloc.stop()
        assert await user.ask(READ) is not None


async def test_a_program_on_another_network_than_the_allowed_ones_is_refused() -> None:
    async with TracerClient("sim:") as client:
        async with share(client, "127.0.0.1:0", allow=["192.0.2.0/24", "2001:db8::/32"]) as sharing:
            program = await Program.connect(sharing.urls[0])
            assert await program.is_disconnected()
            assert sharing.stats.refused == 1
            program.leave()
        async with share(client, "127.0.0.1:0", allow=["192.0.2.0/24", "127.0.0.0/8"]) as sharing:
            program = await Program.connect(sharing.urls[0])
            assert await program.ask(READ) is not None
            program.leave()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_an_ipv4_program_on_an_ipv6_socket_is_judged_by_its_ipv4_address() -> None:
    async with TracerClient("sim:") as client:
        try:
            async with share(client, "[::]:0", allow=["127.0.0.0/8"]) as sharing:
                port = sharing.urls[0].rpartition(":")[2]
                try:
                    program = await Program.connect(f"tcp://127.0.0.1:{port}")
                except ConnectionRefusedError:
                    pytest.skip("IPv6 sockets of this machine do not accept IPv4")
                assert await program.ask(READ) is not None
                program.leave()
        except LinkError as error:
            pytest.skip(str(error))


async def test_off_this_machine_it_says_what_that_means(caplog: pytest.LogCaptureFixture) -> None:
    async with TracerClient("sim:") as client:
        with caplog.at_level(logging.WARNING):
            async with share(client, "127.0.0.1:0", "localhost:0") as sharing:
                assert not sharing.warnings
            async with share(client, "0.0.0.0:0", allow=["192.0.2.0/24"]) as sharing:
                assert not sharing.warnings
            assert not caplog.records
            async with share(client, "0.0.0.0:0") as sharing:
                (warning,) = sharing.warnings
            async with share(client, "0.0.0.0:0", read_only=True) as sharing:
                (weaker,) = sharing.warnings
    assert caplog.messages == [warning, weaker]
    assert "switch" in warning
    assert "settings" in warning
    assert "--allow" in warning
    assert "switch" not in weaker


@pytest.mark.parametrize(
    "address",
    [
        "",
        "8088",
        "host:",
        ":8088",
        "host:99999",
        "host:-1",
        "unix:",
        "pty:",
        "pty:/",
        "pty:.",
        "pty:..",
        "serial:/dev/ttyUSB0",
        "unix:\0",
    ],
)
async def test_an_invalid_address_is_refused(address: str) -> None:
    async with TracerClient("sim:") as client:
        with pytest.raises(AddressError):
            async with share(client, address):
                pass


@pytest.mark.parametrize("options", [{"allow": ["192.168.1.1/24"]}, {"allow": ["home"]}], ids=["host bits", "name"])
async def test_an_invalid_network_is_refused(options: dict[str, list[str]]) -> None:
    async with TracerClient("sim:") as client:
        with pytest.raises(ValueError, match=r"192\.168\.1\.1/24|home"):
            async with share(client, "127.0.0.1:0", allow=options["allow"]):
                pass


async def test_nowhere_to_listen_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one address"):
        async with share("sim:"):
            pass


async def test_an_address_in_use_is_a_link_error_and_ends_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with TracerClient("sim:") as client:
            with pytest.raises(LinkError, match=f"127.0.0.1:{port}: cannot listen there"):
                async with share(client, "127.0.0.1:0", f"127.0.0.1:{port}"):
                    pass


async def test_a_unix_socket_of_another_server_is_not_replaced(tmp_path: object) -> None:
    path = f"{tmp_path}/socket"
    async with share("sim:", f"unix:{path}"):
        with pytest.raises(LinkError, match="another program listens there"):
            async with share("sim:", f"unix:{path}"):
                pass
        program = await Program.connect(f"unix:{path}")
        assert await program.ask(READ) is not None
        program.leave()


async def test_a_unix_socket_that_another_server_has_made_meanwhile_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        async with share("sim:", f"unix:{path}"):
            path.unlink()
            other.bind(str(path))
            other.listen()
        client.connect(str(path))


async def test_a_unix_socket_that_a_killed_server_left_is_replaced_but_no_file(tmp_path: object) -> None:
    path = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    async with share("sim:", f"unix:{path}") as sharing:
        program = await Program.connect(sharing.urls[0])
        assert await program.ask(READ) is not None
        program.leave()
    file = f"{tmp_path}/file"
    with open(file, "w", encoding="ascii") as written:  # noqa: ASYNC230, PTH123
        written.write("precious")
    with pytest.raises(LinkError, match="a file with this name exists"):
        async with share("sim:", f"unix:{file}"):
            pass
