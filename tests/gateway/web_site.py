"""The web output in front of a stub hub, and clients that speak HTTP to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import aiohttp
import psutil
from pydantic import SecretStr

from tests.gateway.stub_hub import StubHub, controller, data, event
from tracer_async.gateway.config import WebConfig
from tracer_async.gateway.history.query import DayEnergy, HistoryReader, Point, Series
from tracer_async.gateway.web import WebOutput

READ = "token-for-reading"
SWITCH = "token-for-switching"

LOAD = "/api/controllers/roof/load"
OFF = {"on": False}


class StubHistory:
    """A history with one point a step."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.error: OSError | None = None

    async def series(self, controller_id: str, start: float, end: float, step: float | None = None) -> Series:
        if self.error is not None:
            raise self.error
        self.asked.append((controller_id, start, end, step))
        return Series(60.0, [Point(start, (12.0, 12.5, 13.0), (0, 1, 2), (3, 4, 5), (6, 7, 8), (-1, 0, 1))])

    async def days(self, controller_id: str, first: date, last: date) -> list[DayEnergy]:
        if self.error is not None:
            raise self.error
        self.asked.append((controller_id, first, last))
        count = (last - first).days + 1
        return [DayEnergy(first + timedelta(days=day), 500.0 + day, 300.0) for day in range(count)]


@dataclass
class Site:
    """A running web output."""

    hub: StubHub
    output: WebOutput
    url: str
    session: aiohttp.ClientSession

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].strip("/"))

    @property
    def own(self) -> dict[str, str]:
        """The headers that a page of the gateway sends with a changing request."""
        return {"Origin": self.url.rstrip("/"), "X-Tracer-Async": "1"}

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        async with self.session.request(method, self.url.rstrip("/") + path, **options) as response:
            return response.status, await response.json()

    async def raw(self, text: str) -> str:
        """Send text, and return what comes until the gateway closes."""
        return (await self.raw_bytes(text.encode())).decode(errors="replace")

    async def raw_bytes(self, data: bytes) -> bytes:
        """Send bytes, and return what comes until the gateway closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = b""
        # The gateway may close before it has read everything, which resets the connection.
        with suppress(ConnectionError):
            await writer.drain()
            while chunk := await reader.read(65536):
                answer += chunk
        writer.close()
        return answer

    def connections(self) -> int:
        """The number of TCP connections to the gateway, as the system counts them."""
        return sum(
            connection.laddr[1] == self.port and connection.status == psutil.CONN_ESTABLISHED
            for connection in psutil.Process().net_connections("tcp4")
        )


def with_tokens(**options: Any) -> dict[str, Any]:
    return {"token": SecretStr(READ), "switch_token": SecretStr(SWITCH), **options}


@asynccontextmanager
async def site(
    hub: StubHub | None = None, *, history: HistoryReader | None = None, zone: Any = None, **options: Any
) -> AsyncIterator[Site]:
    """Serve a hub with two controllers, ``roof`` with a reading and ``shed`` without an answer."""
    if hub is None:
        roof, shed = controller("roof", title="The <b>roof</b>"), controller("shed")
        hub = StubHub(roof, shed)
        hub.put(event(roof, data()))
        hub.put(event(shed, None))
    config = WebConfig(**{"listen": "127.0.0.1:0", **options})
    output = WebOutput(config, hub, history=history, zone=zone)
    hub.states.append(output.state)
    task = asyncio.create_task(output.run())
    listening = asyncio.create_task(output.listening.wait())
    await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    assert output.url is not None
    # For all addresses the output names this machine, and the name of that is not known everywhere.
    url = f"http://127.0.0.1:{output.url.rpartition(':')[2]}" if config.host == "0.0.0.0" else output.url
    # Each request opens a connection of its own: no test depends on one that another left open.
    connector = aiohttp.TCPConnector(force_close=True, limit=0, ssl=False)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        try:
            yield Site(hub, output, url, session)
        finally:
            task.cancel()
            await asyncio.wait([task])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def cookie_of(served: Site, token: str) -> tuple[str, str]:
    """Log in; return the Set-Cookie header and the cookie itself."""
    url = served.url + "api/session"
    async with served.session.post(url, json={"token": token}, headers=served.own) as response:
        assert response.status == 200
        header = response.headers["Set-Cookie"]
    return header, header.partition(";")[0]
