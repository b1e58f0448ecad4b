"""How a listener ends: its port is free, its iterators end, and its recording has all bytes. Whatever ends it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.promise.stamping_controller import READ, frame, realtime
from tests.promise.virtual_time import virtual_time
from tests.sharing.listened_line import ASKED, listening
from tests.sharing.wires import Wire, next_of, request
from tests.sharing.wires import wires as wires_fixture
from tracer_async import ConnectionState
from tracer_async.capture import Recorder, Recording
from tracer_async.sharing import Listener

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
wires = wires_fixture

EXCHANGE = request(READ) + frame(READ, realtime(1))


async def assert_free(url: str) -> None:
    """Check that a port can be opened, and that all that comes is read by who opens it."""
    async with Listener(url):
        pass


def recorded(path: Path) -> bytes:
    return b"".join(burst.data for burst in Recording.read(path).bursts)


async def test_a_block_that_ends_at_once_frees_the_port(wires: list[Wire]) -> None:
    async with Listener(wires[0].url) as listener:
        pass
    assert listener.state is ConnectionState.CLOSED
    await assert_free(wires[0].url)


async def test_a_cancellation_just_when_the_port_was_opened_frees_it(
    wires: list[Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    call_soon = loop.call_soon_threadsafe
    opening = asyncio.create_task(Listener(wires[0].url).__aenter__())

    def then_cancel(callback: Callable[..., Any], *args: Any, **options: Any) -> asyncio.Handle:
        def call_and_cancel() -> None:
            callback(*args)
            opening.cancel()

        return call_soon(call_and_cancel, **options)

    with monkeypatch.context() as patch:
        # The thread that has opened the port calls it.
        patch.setattr(loop, "call_soon_threadsafe", then_cancel)
        with pytest.raises(asyncio.CancelledError):
            await opening
    await assert_free(wires[0].url)


async def test_an_iterator_over_a_closed_listener_ends_at_once(wires: list[Wire]) -> None:
    async with Listener(wires[0].url) as listener:
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert [exchange async for exchange in listener] == []
        assert [reading async for reading in listener.readings()] == []


async def test_an_iterator_over_a_listener_that_could_not_be_opened_ends(tmp_path: Path) -> None:
    listener = Listener(f"{tmp_path}/missing")
    exchanges = aiter(listener)
    with pytest.raises(OSError, match="missing"):
        await listener.__aenter__()
    async with asyncio.timeout(10):
        assert [exchange async for exchange in exchanges] == []


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_a_close_that_is_cancelled_ends_the_iterators_and_frees_the_port(wires: list[Wire], steps: int) -> None:
    listener = Listener(wires[0].url)
    await listener.__aenter__()
    exchanges = aiter(listener)
    await asyncio.sleep(0)
    closing = asyncio.create_task(listener.__aexit__(None, None, None))
    for _ in range(steps):
        await asyncio.sleep(0)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    async with asyncio.timeout(10):
        assert [exchange async for exchange in exchanges] == []
    await assert_free(wires[0].url)


@virtual_time
async def test_half_a_frame_is_recorded_when_the_listener_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "line.jsonl"
    recorder = Recorder(path)
    sent = ASKED + frame(READ, realtime(1))[:30]
    async with listening(tmp_path, split=False, recorder=recorder) as (wires, _):
        wires.writers[0].write(sent)
        await asyncio.sleep(0.05)  # virtual: not so long that the frame counts as incomplete
    recorder.close()  # in real time
    assert recorded(path) == sent


async def test_what_comes_while_another_port_is_opened_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = threading.Event()
    ended = asyncio.Semaphore(0)
    look_up = socket.getaddrinfo

    def slow_look_up(*args: Any, **options: Any) -> list[Any]:
        assert found.wait(30)
        return look_up(*args, **options)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EXCHANGE)
        await end(reader, writer)

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()
        writer.close()
        ended.release()

    async def let_it_find(listener: Listener) -> None:
        while not sum(stats.frames for stats in listener.stats):
            await asyncio.sleep(0)
        found.set()

    path = tmp_path / "line.jsonl"
    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0) as server,
        await asyncio.start_server(end, "127.0.0.1", 0) as other,
    ):
        ports = [each.sockets[0].getsockname()[1] for each in (server, other)]
        monkeypatch.setattr(socket, "getaddrinfo", slow_look_up)
        listener = Listener(f"127.0.0.1:{ports[0]}", f"localhost:{ports[1]}", recorder=Recorder(path))
        async with asyncio.timeout(20):
            finding = asyncio.create_task(let_it_find(listener))
            async with listener:
                await finding
            for _ in ports:
                await ended.acquire()
            await asyncio.sleep(0)  # the sockets are closed in the next step
    assert recorded(path) == EXCHANGE


async def test_a_second_listener_with_the_same_recorder_does_not_end_the_recording(
    wires: list[Wire], tmp_path: Path
) -> None:
    path = tmp_path / "line.jsonl"
    recorder = Recorder(path)
    async with Listener(wires[0].url, recorder=recorder) as listener:
        exchanges = aiter(listener)
        with pytest.raises(RuntimeError, match="records one client, once"):
            await Listener(wires[1].url, recorder=recorder).__aenter__()
        wires[0].carry(EXCHANGE)
        await next_of(exchanges)
    assert recorded(path) == EXCHANGE
    await assert_free(wires[1].url)


async def test_what_was_read_just_before_the_port_was_unplugged_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    read = os.read

    def read_and_unplug(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        if data == EXCHANGE:
            wire.close()
        return data

    async with Listener(wire.url) as listener:
        exchanges = aiter(listener)
        monkeypatch.setattr(os, "read", read_and_unplug)
        wire.carry(EXCHANGE)
        exchange = await next_of(exchanges)
        assert exchange.request is not None
        assert exchange.reply is not None
