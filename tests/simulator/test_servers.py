"""The servers answer clients that connect and disconnect at any time, and release all their resources."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.simulator.wires import Terminal, close, connect, needs_posix
from tracer_async.capture import Recording
from tracer_async.protocol import Frame, FrameDecoder, RealtimeData
from tracer_async.simulator import Faults, Replay, SimulatedTracer, serve_pty, serve_tcp, serve_unix, servers

READ = Frame(0x16, 0xA0, b"").encode()
OFF = Frame(0x16, 0xAA, b"\x00").encode()
REPLY_SIZE = 36

pytestmark = needs_posix


def check(reply: bytes) -> RealtimeData:
    (frame,) = FrameDecoder().feed(reply)
    assert isinstance(frame, Frame)
    return RealtimeData.from_bytes(frame.data)


def open_files() -> set[str]:
    return {str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir()} if sys.platform == "linux" else set()


# Sockets


async def test_a_tcp_client_is_answered() -> None:
    async with serve_tcp() as url:
        assert url.startswith("tcp://127.0.0.1:")
        reader, writer = await connect(url)
        for chunk in (READ, READ[:10], READ[10:]):
            writer.write(chunk)
        for _ in range(2):
            assert check(await reader.readexactly(REPLY_SIZE)).charging
        await close(writer)


async def test_the_url_of_an_ipv6_server_has_brackets() -> None:
    try:
        async with serve_tcp(host="::1") as url:
            assert url.startswith("tcp://[::1]:")
            reader, writer = await connect(url)
            writer.write(READ)
            check(await reader.readexactly(REPLY_SIZE))
            await close(writer)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            pytest.skip("no IPv6 here")
        raise


async def test_serving_on_a_port_in_use_raises_os_error() -> None:
    async with serve_tcp() as url:
        with pytest.raises(OSError, match="in use"):
            async with serve_tcp(port=urlsplit(url).port or 0):
                pass


async def test_clients_share_the_controller_but_not_partial_requests() -> None:
    async with serve_tcp(SimulatedTracer()) as url:
        reader_1, writer_1 = await connect(url)
        reader_2, writer_2 = await connect(url)
        writer_1.write(READ[:12])
        writer_2.write(OFF)
        assert (await reader_2.readexactly(13))[9:10] == b"\x00"
        writer_1.write(READ[12:])
        assert not check(await reader_1.readexactly(REPLY_SIZE)).load_on
        await close(writer_1)
        await close(writer_2)


async def test_a_reset_connection_does_not_affect_other_clients() -> None:
    async with serve_tcp() as url:
        reader, writer = await connect(url)
        for unfinished in (b"", READ[:9], READ * 500):
            _, client = await connect(url)
            client.write(unfinished)
            # With a linger time of 0, abort() resets the connection (RST) instead of closing it (FIN).
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
        writer.write(READ)
        check(await reader.readexactly(REPLY_SIZE))
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)


async def test_the_request_after_an_incomplete_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "PARTIAL_REQUEST_TIMEOUT", 0.0)
    async with serve_tcp() as url:
        reader, writer = await connect(url)
        writer.write(b"\xeb\x90\xeb\x90\xeb\x90\x16\xa0\xc8")
        writer.write(READ)
        check(await reader.readexactly(REPLY_SIZE))
        await close(writer)


async def test_replies_arrive_with_baud_pacing() -> None:
    async with serve_tcp(baud_pacing=True) as url:
        reader, writer = await connect(url)
        writer.write(READ + READ)
        check(await reader.readexactly(REPLY_SIZE))
        check(await reader.readexactly(REPLY_SIZE))
        await close(writer)


async def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "tracer"
    async with serve_unix(path=path) as url:
        assert url == f"unix:{path}"
        reader, writer = await connect(url)
        writer.write(READ)
        check(await reader.readexactly(REPLY_SIZE))
        await close(writer)
    assert not path.exists()


async def test_the_unix_socket_of_another_server_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tracer"
    async with serve_unix(path=path) as url:
        with pytest.raises(FileExistsError, match="another program listens there"):
            async with serve_unix(path=path):
                pass
        reader, writer = await connect(url)
        writer.write(READ)
        check(await reader.readexactly(REPLY_SIZE))
        await close(writer)


async def test_a_unix_socket_that_another_server_has_made_meanwhile_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "tracer"
    with socket.socket(socket.AF_UNIX) as other:
        async with serve_unix(path=path):
            path.unlink()
            other.bind(str(path))
            other.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


async def test_a_unix_socket_that_a_killed_server_left_is_replaced_but_no_file(tmp_path: Path) -> None:
    path = tmp_path / "tracer"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serve_unix(path=path) as url:
        reader, writer = await connect(url)
        writer.write(READ)
        check(await reader.readexactly(REPLY_SIZE))
        await close(writer)
    path.write_text("precious", encoding="ascii")
    with pytest.raises(FileExistsError, match="a file with this name exists"):
        async with serve_unix(path=path):
            pass
    assert path.read_text(encoding="ascii") == "precious"


# Pseudo-terminals


async def test_a_pty_client_is_answered_and_can_reconnect() -> None:
    async with serve_pty() as url:
        assert url.startswith("serial:///dev/")
        for _ in range(3):
            client = Terminal(url)
            client.write(READ + OFF)
            received = await client.read(REPLY_SIZE + 13)
            check(received[:REPLY_SIZE])
            assert client.is_silent()  # the terminal must not echo the requests
            client.close()


async def test_a_pty_changes_no_byte_in_either_direction() -> None:
    # Control characters such as 03, 04, 11, 13 and 0D have a meaning in a terminal that is not in raw mode.
    tracer = SimulatedTracer()
    async with serve_pty(tracer) as url:
        client = Terminal(url)
        client.write(Frame(0x16, 0xA1, bytes(range(200))).encode() + READ)
        check(await client.read(REPLY_SIZE))
        assert tracer.requests[0].data == bytes(range(200))
        client.close()


async def test_unread_replies_are_discarded_before_the_next_pty_client(monkeypatch: pytest.MonkeyPatch) -> None:
    discarded = asyncio.Event()
    discard = servers._PtyLine._discard

    def discard_and_notify(self: servers._PtyLine) -> None:
        discard(self)
        discarded.set()

    monkeypatch.setattr(servers, "_UNREAD_TIMEOUT", 0.0)
    monkeypatch.setattr(servers._PtyLine, "_discard", discard_and_notify)
    async with serve_pty() as url:
        first_client = Terminal(url)
        first_client.write(READ * 10)
        first_client.close()
        await discarded.wait()
        client = Terminal(url)
        assert client.is_silent()
        client.close()


async def test_a_pty_with_a_full_buffer_answers_the_next_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "_UNREAD_TIMEOUT", 0.01)
    tracer = SimulatedTracer()
    async with serve_pty(tracer) as url:
        first_client = Terminal(url)
        while len(tracer.requests) < 900:  # 32 kB of replies, more than the buffer of a pseudo-terminal holds
            with suppress(BlockingIOError):
                os.write(first_client.fd, READ)
            await asyncio.sleep(0)
        first_client.close()
        client, decoder = Terminal(url), FrameDecoder()
        client.write(OFF)
        commands: set[int] = set()
        while 0xAA not in commands:
            data = await client.read_some(4096)
            commands.update(event.command for event in decoder.feed(data) if isinstance(event, Frame))
        client.close()


# Start and end of the servers


@pytest.mark.parametrize("kind", ["tcp", "unix", "pty"])
async def test_a_recording_with_faults_is_refused_before_a_client_can_connect(kind: str, tmp_path: Path) -> None:
    replay, faults, path = Replay(Recording(None, ())), Faults("drop"), tmp_path / "tracer"
    servers_of: dict[str, Callable[..., AbstractAsyncContextManager[str]]] = {
        "tcp": serve_tcp,
        "unix": partial(serve_unix, path=path),
        "pty": serve_pty,
    }
    with pytest.raises(ValueError, match="faults cannot be added"):
        async with servers_of[kind](replay, faults=faults):
            pytest.fail("it serves")
    assert not path.exists()


@pytest.mark.parametrize("serve", [serve_tcp, serve_pty])
async def test_no_task_and_no_descriptor_remains_after_the_server(serve: type) -> None:
    async with serve():
        pass
    await asyncio.sleep(0)
    files, tasks = open_files(), asyncio.all_tasks()
    async with serve() as url:
        if serve is serve_tcp:
            reader, writer = await connect(url)
            writer.write(READ)
            await reader.readexactly(REPLY_SIZE)
    if serve is serve_tcp:
        assert await reader.read() == b""  # the server closed the connection
        await close(writer)
    await asyncio.sleep(0)
    assert open_files() == files
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("serve", [serve_tcp, serve_pty])
async def test_an_error_in_the_block_is_raised_unchanged(serve: type) -> None:
    with pytest.raises(LookupError, match="the block's own"):
        async with serve():
            raise LookupError("the block's own")


async def test_cancelling_the_block_stops_the_server() -> None:
    urls: list[str] = []

    async def serve() -> None:
        async with serve_tcp() as url:
            urls.append(url)
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    while not urls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ConnectionRefusedError):
        await connect(urls[0])


@pytest.fixture
async def fixture_url() -> AsyncIterator[str]:
    async with serve_tcp() as url:
        yield url


async def test_a_server_works_as_a_pytest_fixture(fixture_url: str) -> None:
    reader, writer = await connect(fixture_url)
    writer.write(READ)
    check(await reader.readexactly(REPLY_SIZE))
    await close(writer)


async def test_pty_and_unix_servers_raise_not_implemented_error_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(NotImplementedError, match="serve TCP instead"):
        async with serve_pty():
            pass
    with pytest.raises(NotImplementedError, match="serve TCP instead"):
        async with serve_unix(path="tracer"):
            pass
