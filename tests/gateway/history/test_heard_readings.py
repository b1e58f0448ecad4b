"""Readings that a gateway hears become rows, also if it receives many of them at once."""

from __future__ import annotations

import asyncio
from datetime import UTC

from tests.gateway.history.databases import TestDatabase
from tests.gateway.history.events import until
from tests.promise.stamping_controller import READ, SYNC, checksum, frame, realtime
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.history.store import HistoryOutput
from tracer_async.gateway.hub import Hub

ASKED = bytes((0x16, READ, 0))
REQUEST = SYNC + ASKED + checksum(ASKED).to_bytes(2, "big") + b"\x7f"


def exchange(number: int) -> bytes:
    return REQUEST + frame(READ, realtime(number))


async def test_readings_that_arrive_in_one_piece_are_all_stored_in_their_order(database: TestDatabase) -> None:
    """A gateway that did not run for some time receives the exchanges of that time at once."""
    numbers = [1300 - number for number in range(20)]
    connections: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    bridge = await asyncio.start_server(lambda _, writer: connections.put_nowait(writer), "127.0.0.1", 0)
    url = f"127.0.0.1:{bridge.sockets[0].getsockname()[1]}"
    hub = Hub(EnergyLedger(database.directory / "energy.json", zone=None, flush_seconds=60))
    output = HistoryOutput(database.config(), directory=database.directory, zone=UTC)
    hub.start(output)
    await hub.apply({"roof": ControllerConfig.model_validate({"listen": url})})
    writer = await connections.get()
    try:
        async with asyncio.timeout(20):
            while hub.latest("roof") is None:  # until the gateway listens
                writer.write(exchange(1))
                await asyncio.sleep(0.05)
        writer.write(b"".join(map(exchange, numbers)))
        await until(lambda: output.state.delivered > 0 and newest(database) == numbers[-1])
    finally:
        await hub.aclose()
        await hub.stop(output)
        writer.transport.abort()
        bridge.close()
        await bridge.wait_closed()
    rows = database.query("SELECT battery_voltage FROM tracer_readings ORDER BY time")
    assert [row[0] for row in rows if row[0] != 1] == numbers


def newest(database: TestDatabase) -> int:
    """The battery voltage of the newest row."""
    return int(database.query("SELECT battery_voltage FROM tracer_readings ORDER BY time DESC LIMIT 1")[0][0])
