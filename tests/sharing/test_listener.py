"""A listener beside a meter and a controller, on pseudo-terminals whose bytes the test writes."""

from __future__ import annotations

import asyncio
import math
import os
import random
import select
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.promise.stamping_controller import LOAD, READ, SETTINGS, frame, realtime
from tests.sharing.programs import UNKNOWN
from tests.sharing.wires import Wire, next_of, request
from tests.sharing.wires import wires as wires_fixture
from tracer_async import (
    BatteryType,
    ConnectionState,
    ControlSettings,
    LinkError,
    LoadMode,
    PortBusyError,
    PortNotFoundError,
    TracerClient,
)
from tracer_async.sharing import Listener
from tracer_async.simulator import SimulatedTracer, serve_tcp

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
wires = wires_fixture


KINDS = [
    (request(READ), frame(READ, realtime(7))),
    (request(READ, b"\x03"), frame(READ, realtime(8))),
    (request(LOAD, b"\x01"), frame(LOAD, b"\x01")),
    (request(SETTINGS, bytes(7)), frame(SETTINGS)),
    (request(UNKNOWN, b"what"), frame(UNKNOWN, b"that")),
]


@pytest.mark.parametrize("split", [False, True], ids=["shared", "split"])
async def test_every_exchange_is_paired_and_none_is_invented_with_damage(wires: list[Wire], split: bool) -> None:
    chance = random.Random(3)
    asking, replying = (wires[0], wires[1]) if split else (wires[0], wires[0])
    urls = [wire.url for wire in wires] if split else [wires[0].url]
    async with Listener(*reversed(urls), timeout=10.0) as listener:
        exchanges = aiter(listener)
        for number in range(150):
            asked, replied = KINDS[chance.randrange(len(KINDS))] if number else KINDS[0]
            damaged = chance.random() < 0.05
            begun = time.time()
            asking.carry(asked)
            if damaged:
                position = chance.randrange(len(replied))
                replying.carry(replied[:position] + bytes((replied[position] ^ 0x55,)) + replied[position + 1 :])
            else:
                replying.carry(replied)
            exchange = await next_of(exchanges)
            assert exchange.request is not None
            assert exchange.request.encode() == asked
            assert (exchange.reply is None) is damaged
            if exchange.reply is not None:
                assert exchange.reply.encode(start_up=False) == replied
                assert exchange.delay is not None
                assert 0 <= exchange.delay <= time.time() - begun + 0.01
            assert begun - 0.01 <= exchange.time <= time.time() + 0.01
        assert sum(stats.frames for stats in listener.stats) > 250


GEL = ControlSettings(
    battery_type=BatteryType.GEL,
    battery_capacity=100,
    temperature_compensation=3,
    load_mode_1=LoadMode.MANUAL,
    load_mode_2=LoadMode.OFF,
)


class TappedLine:
    """Carries bytes between a client and a controller, and copies them to the wires that a listener hears."""

    def __init__(self, url: str, heard: tuple[Wire, Wire]) -> None:
        self._host, _, port = url.removeprefix("tcp://").rpartition(":")
        self._port = int(port)
        self._heard = heard
        self.carried: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        """What the client and the controller have sent."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(self._carry(0, reader, there[1]), self._carry(1, there[0], writer))

    async def _carry(self, direction: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            self._heard[direction].carry(data)
            self.carried[direction].extend(data)
            writer.write(data)
        writer.close()


@pytest.mark.parametrize("split", [False, True], ids=["shared", "split"])
async def test_a_real_client_and_a_simulated_controller(wires: list[Wire], split: bool) -> None:
    heard = (wires[0], wires[1] if split else wires[0])
    async with serve_tcp(SimulatedTracer(), baud_pacing=True) as url:
        line = TappedLine(url, heard)
        listened = dict.fromkeys(wire.url for wire in heard)
        async with (
            await asyncio.start_server(line.serve, "127.0.0.1", 0) as server,
            Listener(*listened, timeout=10.0) as listener,
            TracerClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=10.0) as tracer,
        ):
            exchanges, readings = aiter(listener), listener.readings()
            read = []
            for number in range(10):
                read.append(await tracer.read_realtime())
                if number % 5 == 1:
                    await tracer.set_load(on=number == 1)
            await tracer.write_settings(GEL)
            found = [await next_of(exchanges)]
            while found[-1].request is None or found[-1].request.command != SETTINGS:
                found.append(await next_of(exchanges))
    assert all(exchange.request and exchange.reply and exchange.delay is not None for exchange in found)
    assert b"".join(each.request.encode() for each in found if each.request) == line.carried[0]
    assert b"".join(each.reply.encode(start_up=False) for each in found if each.reply) == line.carried[1]
    listened_to = [reading.data async for reading in readings]
    assert [data for data in listened_to if data in read] == read


async def test_the_readings_of_the_meter(wires: list[Wire]) -> None:
    async with Listener(wires[0].url) as listener:
        readings = listener.readings()
        wires[0].carry(request(LOAD, b"\x00") + frame(LOAD, b"\x00"))
        wires[0].carry(request(READ) + frame(READ, b"too short"))
        wires[0].carry(request(READ) + frame(READ, realtime(1234)))
        async with asyncio.timeout(10):
            found = await anext(readings)
        assert found.data is not None
        assert found.data.battery_voltage == 12.34
        assert 0 <= found.age < 0.3
        assert abs(found.time - time.time()) < 5
        await readings.aclose()


async def test_replies_alone_are_readings_too(wires: list[Wire]) -> None:
    """Only the wire from the controller is connected."""
    async with Listener(wires[0].url, timeout=0.2) as listener:
        exchanges = aiter(listener)
        wires[0].carry(frame(READ, realtime(5)))
        exchange = await next_of(exchanges)
        assert (exchange.request, exchange.delay) == (None, None)
        assert exchange.reply is not None


async def test_a_request_without_a_reply_is_reported_after_the_timeout(wires: list[Wire]) -> None:
    async with Listener(wires[0].url, timeout=0.05) as listener:
        exchanges = aiter(listener)
        wires[0].carry(request(READ))
        exchange = await next_of(exchanges)
        assert exchange.request is not None
        assert (exchange.reply, exchange.delay) == (None, None)


async def test_requests_and_replies_back_to_back_keep_their_order(wires: list[Wire]) -> None:
    async with Listener(wires[0].url, timeout=5.0) as listener:
        exchanges = aiter(listener)
        wires[0].carry(request(READ) + request(LOAD, b"\x01") + request(READ, b"\x03"))
        wires[0].carry(frame(READ, realtime(1)) + frame(LOAD, b"\x01") + frame(READ, realtime(2)))
        found = [await next_of(exchanges) for _ in range(3)]
        assert [each.request.data for each in found if each.request] == [b"", b"\x01", b"\x03"]
        assert [each.reply.data[:2] for each in found if each.reply] == [b"\x01\x00", b"\x01", b"\x02\x00"]


async def test_a_damaged_length_does_not_hide_what_follows(wires: list[Wire]) -> None:
    async with Listener(wires[0].url, timeout=5.0) as listener:
        exchanges = aiter(listener)
        damaged = bytearray(frame(READ, realtime(1)))
        damaged[8] = 200
        wires[0].carry(request(READ) + bytes(damaged))
        wires[0].carry(request(READ, b"\x03") + frame(READ, realtime(2)))
        first, second = [await next_of(exchanges) for _ in range(2)]
        assert first.reply is None
        assert second.request is not None
        assert second.request.data == b"\x03"
        assert second.reply is not None
        assert second.reply.data[:2] == b"\x02\x00"


def access_modes(path: str) -> set[int]:
    """How this process has opened *path*."""
    modes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the folder itself
            if str(descriptor.readlink()) == path:
                flags = Path("/proc/self/fdinfo", descriptor.name).read_text().split("flags:")[1].split()[0]
                modes.add(int(flags, 8) & os.O_ACCMODE)
    return modes


async def test_the_port_is_opened_for_reading_only_and_neither_echoes_nor_changes_bytes(wires: list[Wire]) -> None:
    default = termios.tcgetattr(wires[0]._slave)
    default[3] |= termios.ECHO | termios.ICANON | termios.ISIG
    default[0] |= termios.ICRNL | termios.IXON
    termios.tcsetattr(wires[0]._slave, termios.TCSANOW, default)
    async with Listener(wires[0].url) as listener:
        exchanges = aiter(listener)
        data = bytes(range(24))  # with all control characters
        wires[0].carry(request(UNKNOWN, data) + frame(UNKNOWN, data))
        exchange = await next_of(exchanges)
        assert exchange.reply is not None
        assert exchange.reply.data == data
        assert access_modes(wires[0].url) == {os.O_RDONLY, os.O_RDWR}  # of the listener, and of the test
        assert not select.select([wires[0]._master], [], [], 0)[0]


async def test_it_ends_when_the_listener_is_closed(wires: list[Wire]) -> None:
    async with Listener(wires[0].url) as listener:
        exchanges = aiter(listener)
    async with asyncio.timeout(10):
        assert [exchange async for exchange in exchanges] == []


async def test_a_port_that_does_not_exist_is_an_error(tmp_path: object) -> None:
    with pytest.raises(PortNotFoundError):
        async with Listener(f"{tmp_path}/missing"):
            pass


async def test_a_listener_that_starts_offline_opens_each_port_as_soon_as_it_exists(
    wires: list[Wire], tmp_path: Path
) -> None:
    path = tmp_path / "port"
    with pytest.raises(PortNotFoundError):
        await Listener(str(path)).__aenter__()
    async with Listener(wires[0].url, str(path), start_offline=True) as listener:
        assert listener.state is ConnectionState.DOWN
        open_port, missing = listener.errors
        assert open_port is None
        assert isinstance(missing, PortNotFoundError)
        path.symlink_to(wires[1].url)
        await until_state(listener, ConnectionState.UP)
        exchanges = aiter(listener)
        wires[1].carry(request(READ))
        async with asyncio.timeout(10):
            while listener.stats[1].frames == 0:  # no event tells it
                await asyncio.sleep(0)
        wires[0].carry(frame(READ, realtime(1234)))
        exchange = await next_of(exchanges)
        assert (exchange.request is not None, exchange.reply is not None) == (True, True)


async def test_a_file_that_is_no_port_is_an_error() -> None:
    with pytest.raises(PortNotFoundError, match="not a serial port"):
        async with Listener("/dev/null"):
            pass


async def test_a_port_that_another_program_reads_is_not_opened(wires: list[Wire]) -> None:
    """They would take the bytes from each other."""
    async with TracerClient(wires[0].url):
        with pytest.raises(PortBusyError):
            async with Listener(wires[0].url):
                pass
    async with Listener(wires[0].url):
        with pytest.raises(PortBusyError):
            async with Listener(wires[1].url, wires[0].url):
                pass
        with pytest.raises(PortBusyError):
            async with TracerClient(wires[0].url):
                pass


async def test_what_waited_in_the_port_before_it_is_opened_is_discarded(wires: list[Wire]) -> None:
    wire = wires[0]
    # More than the buffer of a terminal holds, so some of it waits behind it. The last request has no reply yet.
    wire.carry((request(READ) + frame(READ, realtime(1))) * 100 + request(READ))
    async with Listener(wire.url) as listener:
        readings = listener.readings()
        wire.carry(frame(READ, realtime(2)))
        wire.carry(request(READ) + frame(READ, realtime(3)))
        first, second = [await anext(readings) for _ in range(2)]
        assert [reading.data and reading.data.battery_voltage for reading in (first, second)] == [0.02, 0.03]
        assert first.age == math.inf
        assert second.age < 10
        assert listener.stats[0].frames == 3


async def until_state(listener: Listener, state: ConnectionState) -> None:
    async with asyncio.timeout(10):
        while listener.state is not state:  # no event tells it
            await asyncio.sleep(0)


async def test_a_port_that_is_unplugged_is_opened_again_under_its_name(tmp_path: Path) -> None:
    port = tmp_path / "port"
    before, after = Wire(), Wire()
    port.symlink_to(before.url)
    async with Listener(str(port)) as listener:
        exchanges = aiter(listener)
        before.carry(request(READ) + frame(READ, realtime(1)))
        first = await next_of(exchanges)
        port.unlink()
        before.close()
        await until_state(listener, ConnectionState.DOWN)
        port.symlink_to(after.url)
        await until_state(listener, ConnectionState.UP)
        after.carry(request(READ) + frame(READ, realtime(2)))
        second = await next_of(exchanges)
        assert [each.reply and each.reply.data[:2] for each in (first, second)] == [b"\x01\x00", b"\x02\x00"]
        assert access_modes(after.url) == {os.O_RDONLY, os.O_RDWR}
    assert after.written() == 0
    after.close()


async def test_the_state_says_whether_a_port_is_lost_and_why(wires: list[Wire], tmp_path: Path) -> None:
    port = tmp_path / "port"
    unplugged = Wire()
    port.symlink_to(unplugged.url)
    listener = Listener(str(port), wires[1].url)
    assert (listener.state, listener.errors) == (ConnectionState.CLOSED, (None, None))
    async with listener:
        exchanges = aiter(listener)
        assert (listener.state, listener.errors) == (ConnectionState.UP, (None, None))
        port.unlink()
        unplugged.close()
        await until_state(listener, ConnectionState.DOWN)
        assert listener.errors[1] is None
        assert isinstance(listener.errors[0], LinkError)
        port.symlink_to(wires[0].url)
        await until_state(listener, ConnectionState.UP)
        wires[0].carry(request(READ) + frame(READ, realtime(2)))
        await next_of(exchanges)
        assert (listener.state, listener.errors) == (ConnectionState.UP, (None, None))
    assert (listener.state, listener.errors) == (ConnectionState.CLOSED, (None, None))


async def test_a_baud_rate_that_the_system_does_not_have_is_an_error(wires: list[Wire]) -> None:
    with pytest.raises(LinkError, match="baud rate"):
        async with Listener(f"serial://{wires[0].url}?baudrate=12345"):
            pass


@pytest.mark.parametrize("urls", [(), ("sim:",) * 3], ids=["none", "three"])
def test_it_takes_one_or_two_urls(urls: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one for each direction"):
        Listener(*urls)


async def test_a_bridge_that_both_directions_come_from(wires: list[Wire]) -> None:
    listening = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await listening.wait()
        writer.write(request(READ) + frame(READ, realtime(3)))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Listener(f"127.0.0.1:{port}") as listener:
        exchanges = aiter(listener)
        listening.set()
        assert (await next_of(exchanges)).reply is not None
    server.close()


async def test_a_port_that_is_plugged_in_again_is_opened_again(wires: list[Wire], tmp_path: Path) -> None:
    port = tmp_path / "port"
    unplugged = Wire()
    port.symlink_to(unplugged.url)
    async with Listener(str(port)) as listener:
        exchanges = aiter(listener)
        unplugged.carry(frame(READ, realtime(1)))
        assert (await next_of(exchanges)).reply is not None
        unplugged.close()
        port.unlink()
        port.symlink_to(wires[0].url)
        found = None
        while found is None:
            wires[0].carry(frame(READ, realtime(2)))
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    found = await anext(exchanges)
        assert found.reply is not None
