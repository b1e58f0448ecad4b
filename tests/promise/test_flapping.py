"""Flapping links and flooding peers: what is logged, and how often the client reconnects.

The bridges are connections in memory, and the clock is virtual. Bridges recognize requests and replies by their bytes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from tests.promise.bridges import LOOPS, REPLY, REQUEST, SECONDS, run
from tests.promise.virtual_time import virtual_time
from tracer_async import Fleet, LinkError, LinkFloodedError, LinkTimeoutError, TracerClient

MINUTE, HOUR = 60.0, 3600.0
LIMIT = 256 * 1024
"""Flood limit: unsolicited bytes per second above which the client closes a link."""


class Log(logging.Handler):
    """What the library logs, with the time of the event loop."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[tuple[float, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((now(), record.getMessage()))

    def lost(self) -> list[tuple[float, str]]:
        """The lines that report a loss."""
        return [(at, text) for at, text in self.lines if "connection lost" in text]


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    logging.getLogger("tracer_async").addHandler(log)
    yield log
    logging.getLogger("tracer_async").removeHandler(log)


def now() -> float:
    return asyncio.get_running_loop().time()


class Bridge:
    """Connects in memory: a transport factory. *serve* says what it does with a request."""

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        self.serve = serve
        self.present = True
        self.connected_at: list[float] = []
        self.hung_up_at: list[float] = []

    async def bring(self, make_protocol: Callable[[], Any]) -> tuple[Any, Any]:
        if not self.present:
            raise ConnectionRefusedError
        connection = Connection(self, make_protocol())
        self.connected_at.append(now())
        connection.protocol.connection_made(connection)
        return connection, connection.protocol


class Connection(asyncio.Transport):
    def __init__(self, bridge: Bridge, protocol: Any) -> None:
        super().__init__()
        self.bridge = bridge
        self.protocol = protocol
        self.sent = 0
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert bytes(data).endswith(REQUEST)
        asyncio.get_running_loop().call_soon(self.bridge.serve, self)

    def send(self, data: bytes) -> None:
        if not self._closing:
            self.sent += len(data)
            self.protocol.data_received(data)

    def hang_up(self) -> None:
        if not self._closing:
            self.bridge.hung_up_at.append(now())
            self.abort()

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    close = abort

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0


def answer(connection: Connection) -> None:
    connection.send(REPLY)


def answer_and_hang_up(connection: Connection) -> None:
    connection.send(REPLY)
    connection.hang_up()


async def poll(tracer: TracerClient, seconds: float) -> None:
    """Read as fast as the line allows for some time."""
    end = now() + seconds
    while now() < end:
        await tracer.read_realtime()
        await asyncio.sleep(0.2)


# (h) Links that are lost repeatedly.


@virtual_time
async def test_a_link_that_is_lost_repeatedly_is_logged_once_and_then_in_summaries(log: Log) -> None:
    bridge = Bridge(answer_and_hang_up)
    async with TracerClient(bridge.bring) as tracer:
        await poll(tracer, HOUR)
    lost = log.lost()
    assert len(bridge.hung_up_at) > 3000
    assert len(lost) < 10
    assert lost[0][0] - bridge.hung_up_at[0] < 1.0
    gaps = [after - before for (before, _), (after, _) in pairwise(lost)]
    assert gaps[0] >= MINUTE
    assert all(after > 1.9 * before for before, after in pairwise(gaps))
    # The sums include every loss.
    for (before, _), (after, text) in pairwise(lost):
        (count,) = re.findall(r"lost (\d+) times in", text)
        assert int(count) == sum(before < at <= after for at in bridge.hung_up_at)
    # Each line about a loss is followed by a line about the end of the outage.
    established = [text for _, text in log.lines if "connection established" in text]
    assert established == ["bring: connection established"] * len(lost)


@virtual_time
async def test_summaries_of_a_flapping_link_come_at_least_every_hour(log: Log) -> None:
    bridge = Bridge(answer_and_hang_up)
    async with TracerClient(bridge.bring) as tracer:
        while now() < bridge.connected_at[0] + 12 * HOUR:
            await tracer.read_realtime()
            await asyncio.sleep(20.0)
    gaps = [after - before for (before, _), (after, _) in pairwise(log.lost())]
    assert max(gaps) < HOUR + MINUTE
    assert gaps[-1] >= HOUR


@virtual_time
async def test_a_link_that_is_lost_rarely_is_logged_each_time(log: Log) -> None:
    bridge = Bridge(answer)
    async with TracerClient(bridge.bring) as tracer:
        for _ in range(10):
            bridge.serve = answer_and_hang_up
            await tracer.read_realtime()
            bridge.serve = answer
            await asyncio.sleep(2 * MINUTE)
            await tracer.read_realtime()
    kinds = ["lost" if "connection lost" in text else text for _, text in log.lines]
    assert kinds == ["lost", "bring: connection established"] * 10
    assert not [text for _, text in log.lines if "times" in text]


@virtual_time
async def test_an_outage_after_flapping_is_logged_within_the_interval(log: Log) -> None:
    """During an outage the last line must not say that the link is connected."""
    bridge = Bridge(answer_and_hang_up)
    async with TracerClient(bridge.bring) as tracer:
        await poll(tracer, 10.0)
        bridge.present = False
        await asyncio.sleep(5 * MINUTE)
        assert "established" not in log.lines[-1][1]
        assert "retrying" in log.lines[-1][1]
        assert f"lost {len(bridge.hung_up_at) - 1} times" in log.lines[-1][1]
        lines = len(log.lines)
        await asyncio.sleep(HOUR)
        assert len(log.lines) == lines  # one line for one outage
        bridge.present = True
        bridge.serve = answer
        await asyncio.sleep(MINUTE)
        assert "established" in log.lines[-1][1]


@virtual_time
async def test_the_first_connection_after_failed_attempts_is_logged_and_not_called_another_one(log: Log) -> None:
    bridge = Bridge(answer)
    bridge.present = False
    async with TracerClient(bridge.bring, start_offline=True):
        await asyncio.sleep(MINUTE)
        bridge.present = True
        await asyncio.sleep(MINUTE)
    failed, established = (text for _, text in log.lines)
    assert "retrying in" in failed
    assert established == "bring: connection established"


# (i) Peers that flood.

GARBAGE = random.Random(8).randbytes(16384)
KINDS_OF_FLOODS = [
    pytest.param(GARBAGE, id="garbage"),
    pytest.param(REPLY * (len(GARBAGE) // len(REPLY)), id="replies"),
    pytest.param(b"\xeb\x90" * (len(GARBAGE) // 2), id="sync-bytes"),
]


def flood(data: bytes, rate: float) -> Callable[[Connection], None]:
    """Answer the first request of a connection, and then send *data* repeatedly, at *rate* bytes/s."""

    def serve(connection: Connection) -> None:
        if connection.sent == 0:
            connection.send(REPLY)
            pour(connection)

    def pour(connection: Connection) -> None:
        if not connection.is_closing():
            connection.send(data)
            asyncio.get_running_loop().call_later(len(data) / rate, pour, connection)

    return serve


@pytest.mark.parametrize("data", KINDS_OF_FLOODS)
@virtual_time
async def test_the_delay_grows_if_a_peer_floods_each_connection(log: Log, data: bytes) -> None:
    connections: list[Connection] = []
    pour = flood(data, 10 * LIMIT)

    def serve(connection: Connection) -> None:
        connections.append(connection)
        pour(connection)

    bridge = Bridge(serve)
    async with TracerClient(bridge.bring, start_offline=True, timeout=60.0, backoff=(0.5, 30.0)) as tracer:
        end = now() + 2 * MINUTE
        while now() < end:
            with suppress(LinkError, TimeoutError):
                await tracer.read_realtime()
            await asyncio.sleep(0.1)
    assert max(connection.sent for connection in connections) <= LIMIT + 2 * len(data)
    # Each delay is shortened by up to half at random.
    gaps = [after - before for before, after in pairwise(bridge.connected_at)]
    for number, gap in enumerate(gaps):
        assert gap >= 0.5 * min(0.5 * 2**number, 30.0)
    assert "256 KiB/s" in log.lost()[0][1]


@virtual_time
async def test_a_flood_raises_link_flooded_error() -> None:
    bridge = Bridge(flood(GARBAGE, 10 * LIMIT))
    async with TracerClient(bridge.bring, backoff=(30.0, 30.0), connect_timeout=1.0) as tracer:
        await tracer.read_realtime()
        with pytest.raises(LinkTimeoutError, match="256 KiB/s") as caught:
            await tracer.read_realtime()
        assert isinstance(caught.value.__cause__, LinkFloodedError)


@pytest.mark.parametrize(("rate", "kept"), [(200 * 1024, True), (300 * 1024, False)])
@virtual_time
async def test_a_noisy_link_below_the_limit_is_kept(rate: float, kept: bool) -> None:
    bridge = Bridge(flood(GARBAGE[:2048], rate))
    async with TracerClient(bridge.bring) as tracer:
        await tracer.read_realtime()
        await asyncio.sleep(20.0)
    assert (len(bridge.connected_at) == 1) is kept


@virtual_time
async def test_bytes_that_accumulate_while_the_application_is_blocked_are_not_a_flood() -> None:
    """They may have arrived at any moment of the stall."""
    connections: list[Connection] = []

    def serve(connection: Connection) -> None:
        connections.append(connection)
        connection.send(REPLY)

    bridge = Bridge(serve)
    async with TracerClient(bridge.bring) as tracer:
        await tracer.read_realtime()
        for _ in range(30):
            await asyncio.sleep(1.0)
            for _ in range(12):
                connections[0].send(GARBAGE)  # 192 KiB at once, for a second
        assert len(bridge.connected_at) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_peer_that_floods_at_full_speed_does_not_slow_the_others(loop: Any, log: Log) -> None:
    """Over TCP. The client closes the flooding link. The other link gets each request answered at its tick."""

    async def main() -> None:
        server = await asyncio.start_server(pour, "127.0.0.1", 0)
        async with asyncio.timeout(SECONDS), server, Fleet() as fleet:
            port = server.sockets[0].getsockname()[1]
            fleet.add(f"tcp://127.0.0.1:{port}", name="flood", interval=0.05, timeout=SECONDS)
            fleet.add(Bridge(answer).bring, name="healthy", interval=0.05)
            skipped, healthy = 0, 0
            async for name, reading in fleet:
                if name == "healthy":
                    assert reading.ok
                    healthy += 1
                    skipped += reading.skipped
                    if healthy == 40:
                        break
            assert accepted <= 5  # in 2 s, instead of hundreds
            assert skipped < 10
            assert "256 KiB/s" in log.lost()[0][1]

    accepted = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        try:
            while True:
                writer.write(GARBAGE)
                await writer.drain()
        except ConnectionError:
            writer.close()

    run(loop, main())
