"""A simulated controller is served on real wires, to clients that come and go as they like; nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tracer_async.protocol import Frame, FrameDecoder, RealtimeData
from tracer_async.simulator import SimulatedTracer, serve_pty, serve_tcp, serve_unix, servers

READ = Frame(0x16, 0xA0, b"").encode()
OFF = Frame(0x16, 0xAA, b"\x00").encode()
REPLY_SIZE = 36

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="half of it is not there")


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if url.startswith("unix:"):
        return await asyncio.open_unix_connection(url.removeprefix("unix:"))
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def check(reply: bytes) -> RealtimeData:
    (frame,) = FrameDecoder().feed(reply)
    assert isinstance(frame, Frame)
    return RealtimeData.from_bytes(frame.data)


def open_files() -> set[str]:
    return {str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir()} if sys.platform == "linux" else set()


class Terminal:
    """A client of a pseudo-terminal that sets no modes of its own."""

    def __init__(self, url: str) -> None:
        self.fd = os.open(url.removeprefix("serial://"), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def write(self, data: bytes) -> None:
        assert os.write(self.fd, data) == len(data)

    async def read(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            received += await self.read_some(size - len(received))
        return received

    async def read_some(self, size: int) -> bytes:
        readable = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self.fd)
        return os.read(self.fd, size)

    def is_silent(self) -> bool:
        try:
            return not os.read(self.fd, 1)
        except BlockingIOError:
            return True

    def close(self) -> None:
        os.close(self.fd)


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


async def test_an_ipv6_host_stands_in_brackets() -> None:
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


async def test_a_taken_port_is_refused_at_once() -> None:
    async with serve_tcp() as url:
        with pytest.raises(OSError, match="in use"):
            async with serve_tcp(port=urlsplit(url).port or 0):
                pass


async def test_two_clients_share_the_controller_but_not_the_wire() -> None:
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


async def test_a_client_that_goes_disturbs_nobody() -> None:
    async with serve_tcp() as url:
        reader, writer = await connect(url)
        for farewell in (b"", READ[:9], READ * 500):
            _, rude = await connect(url)
            rude.write(farewell)
            # A reset instead of a farewell.
            rude.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.transport.abort()
        writer.write(READ)
        check(await reader.readexactly(REPLY_SIZE))
        writer.write_eof()
        assert await reader.read() == b""
        await close(writer)


async def test_half_a_request_does_not_poison_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "QUIET", 0.0)
    async with serve_tcp() as url:
        reader, writer = await connect(url)
        writer.write(b"\xeb\x90\xeb\x90\xeb\x90\x16\xa0\xc8")
        writer.write(READ)
        check(await reader.readexactly(REPLY_SIZE))
        await close(writer)


async def test_paced_replies_arrive() -> None:
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


# Pseudo-terminals


async def test_a_pty_is_answered_and_can_be_opened_again() -> None:
    async with serve_pty() as url:
        assert url.startswith("serial:///dev/")
        for _ in range(3):
            client = Terminal(url)
            client.write(READ + OFF)
            received = await client.read(REPLY_SIZE + 13)
            check(received[:REPLY_SIZE])
            assert client.is_silent()  # nothing is echoed
            client.close()


async def test_a_pty_is_raw() -> None:
    # Every byte value that a line discipline could take for something else, in both directions.
    tracer = SimulatedTracer()
    async with serve_pty(tracer) as url:
        client = Terminal(url)
        client.write(Frame(0x16, 0xA1, bytes(range(200))).encode() + READ)
        check(await client.read(REPLY_SIZE))
        assert tracer.requests[0].data == bytes(range(200))
        client.close()


async def test_what_one_client_left_unread_does_not_reach_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    discarded = asyncio.Event()
    discard = servers._PtyLine._discard

    def noted(self: servers._PtyLine) -> None:
        discard(self)
        discarded.set()

    monkeypatch.setattr(servers, "_UNREAD", 0.0)
    monkeypatch.setattr(servers._PtyLine, "_discard", noted)
    async with serve_pty() as url:
        gone = Terminal(url)
        gone.write(READ * 10)
        gone.close()
        await discarded.wait()
        client = Terminal(url)
        assert client.is_silent()
        client.close()


async def test_a_terminal_full_of_unread_replies_does_not_block_the_next_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "_UNREAD", 0.01)
    tracer = SimulatedTracer()
    async with serve_pty(tracer) as url:
        gone = Terminal(url)
        while len(tracer.requests) < 900:  # 32 kB of replies, more than any terminal holds
            with suppress(BlockingIOError):
                os.write(gone.fd, READ)
            await asyncio.sleep(0)
        gone.close()
        client, decoder = Terminal(url), FrameDecoder()
        client.write(OFF)
        commands: set[int] = set()
        while 0xAA not in commands:
            data = await client.read_some(4096)
            commands.update(event.command for event in decoder.feed(data) if isinstance(event, Frame))
        client.close()


# The servers themselves


@pytest.mark.parametrize("serve", [serve_tcp, serve_pty])
async def test_nothing_is_left_behind(serve: type) -> None:
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
        assert await reader.read() == b""  # the server hung up
        await close(writer)
    await asyncio.sleep(0)
    assert open_files() == files
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("serve", [serve_tcp, serve_pty])
async def test_an_error_in_the_block_comes_out_as_itself(serve: type) -> None:
    with pytest.raises(LookupError, match="the block's own"):
        async with serve():
            raise LookupError("the block's own")


async def test_a_server_ends_when_its_block_is_cancelled() -> None:
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


async def test_a_server_can_be_a_fixture(fixture_url: str) -> None:
    reader, writer = await connect(fixture_url)
    writer.write(READ)
    check(await reader.readexactly(REPLY_SIZE))
    await close(writer)


async def test_where_there_is_no_terminal_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(NotImplementedError, match="serve TCP instead"):
        async with serve_pty():
            pass
    with pytest.raises(NotImplementedError, match="serve TCP instead"):
        async with serve_unix(path="tracer"):
            pass
