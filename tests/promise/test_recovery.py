"""A dead link is replaced and a working one is kept, whatever the application's calls, filters and commands do."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme

from tests.promise.bridges import VOLTAGE, Bridge
from tests.promise.logging_controller import LOST, READ, SWITCH, LoggingController, Plan
from tests.promise.virtual_time import virtual_time
from tracer_async import Command, LoadUnknownError, MalformedReplyError, TlsError, TracerClient, TracerError


@pytest.mark.parametrize("limit", [0.05, 0.4, 0.9])
@virtual_time
async def test_a_silent_link_is_replaced_even_if_the_application_cancels_its_calls(limit: float) -> None:
    """Each request is cancelled before the client's own timeout of 1 s."""
    silent, healthy = LoggingController(), LoggingController()
    controllers = [silent, healthy]

    async def connect(protocol: Callable[[], Any]) -> tuple[Any, Any]:
        return await controllers.pop(0).connect(protocol)

    async with TracerClient(connect) as tracer:
        await tracer.read()
        silent.present = False
        async with asyncio.timeout(15):
            while not healthy.requests:
                with suppress(TimeoutError):
                    async with asyncio.timeout(limit):
                        await tracer.read()
        assert (await tracer.read()).ok
        assert tracer.stats.links == 2


@pytest.mark.parametrize(
    ("plan", "cancelled", "fence"),
    [pytest.param(Plan((0.06,)), 100, 1.0, id="answered later"), pytest.param(LOST, 10, 0.0, id="some not answered")],
)
@virtual_time
async def test_calls_that_are_cancelled_early_do_not_replace_a_link(plan: Plan, cancelled: int, fence: float) -> None:
    """Together they wait for less time than the timeouts that count as proof of a dead link."""
    controller = LoggingController()
    controller.plan(READ, *[plan] * cancelled)
    async with TracerClient(controller.connect, fence=fence) as tracer:
        for _ in range(cancelled):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.04):
                    await tracer.read()
        assert (await tracer.read()).ok
        assert tracer.stats.links == 1
        assert controller.sent(READ)[2:]


@virtual_time
async def test_cancelled_readings_do_not_prevent_a_command() -> None:
    """The first command on a link needs an answered reading before it."""
    controller = LoggingController()
    for command in (READ, SWITCH):
        controller.plan(command, *[Plan((0.06,))] * 10000)
    async with TracerClient(controller.connect) as tracer:
        switching = asyncio.create_task(tracer.set_load(True))
        async with asyncio.timeout(5):
            while not switching.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.04):
                        await tracer.read()
        await switching
    assert controller.load_on


class BrokenFilter(logging.Filter):
    """A logging filter of the application that raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise ValueError(record.msg)


@virtual_time
async def test_a_logging_filter_that_raises_does_not_end_the_reconnecting() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    log, broken = logging.getLogger("tracer_async"), BrokenFilter()
    log.addFilter(broken)
    try:
        controller = LoggingController()
        async with TracerClient(controller.connect) as tracer:
            for links in range(1, 4):
                assert (await tracer.read()).ok
                assert tracer.stats.links == links
                controller.hang_up()
                await asyncio.sleep(5.0)
    finally:
        log.removeFilter(broken)
    assert reported
    assert all(isinstance(context["exception"], ValueError) for context in reported)


async def test_the_systems_certificates_are_read_again_for_each_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority is installed only after the first attempt."""
    certificates = tmp_path / "certificates.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with Bridge(tls=context) as bridge:
        with pytest.raises(TlsError):
            await TracerClient(bridge.url).open()
        async with TracerClient(bridge.url, start_offline=True, backoff=(0.01, 0.05)) as tracer:
            changes = tracer.state_changes()
            assert await anext(changes) == "down"
            authority.cert_pem.write_to_path(str(certificates))
            assert (await tracer.read_realtime()).battery_voltage == VOLTAGE


class Raising(Command[float]):
    """A custom command that raises what its caller must not mistake for a cancellation or an exit."""

    code: ClassVar[int] = READ

    def __init__(self, raised: BaseException) -> None:
        self._raised = raised

    def to_bytes(self) -> bytes:
        return b"\x03"

    def decode_reply(self, data: bytes) -> float:
        raise self._raised


@pytest.mark.parametrize("raised", [asyncio.CancelledError(), GeneratorExit(), BaseException("odd")], ids=repr)
@virtual_time
async def test_an_exception_of_a_custom_decode_reply_affects_only_its_call(raised: BaseException) -> None:
    async with TracerClient(LoggingController().connect) as tracer:
        waiting = asyncio.create_task(tracer.read())
        with pytest.raises(MalformedReplyError) as caught:
            await tracer.execute(Raising(raised))
        assert caught.value.__cause__ is raised
        assert (await waiting).ok
        assert (await tracer.read()).ok
        assert tracer.stats.links == 1


# Linux's number of the option: a socket filter.
_SO_ATTACH_FILTER = 26


def deafen(sock: Any) -> None:
    """Make the kernel drop every segment for *sock*, like a firewall that lost the state of this connection."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(drop_all))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


class ManyConnections(asyncio.Protocol):
    """The bridge's end of a connection to a controller that other clients may share."""

    def __init__(self, controller: LoggingController, transports: list[asyncio.Transport]) -> None:
        self._controller = controller
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transports.append(transport)
        self._controller.attach(transport.write)

    def data_received(self, data: bytes) -> None:
        self._controller.receive(data)


@pytest.mark.skipif(sys.platform != "linux", reason="the test needs Linux's socket filters")
@virtual_time
async def test_another_local_port_is_used_after_a_minute_if_the_network_drops_all_packets_from_the_first() -> None:
    """After a reset that the network may have lost, attempts use the same local port, but not forever."""
    loop = asyncio.get_running_loop()
    controller = LoggingController()
    transports: list[asyncio.Transport] = []
    server = await loop.create_server(lambda: ManyConnections(controller, transports), "127.0.0.1", 0)
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, TracerClient(url, connect_timeout=1.0, backoff=(0.1, 0.5)) as tracer:
        await tracer.read()
        await asyncio.sleep(0.3)
        deafen(transports[0].get_extra_info("socket"))
        since = loop.time()
        with pytest.raises(LoadUnknownError):
            await tracer.set_load(True)
        while len(transports) == 1:
            with suppress(TracerError):
                await tracer.read()
            assert loop.time() < since + 80.0
        assert loop.time() > since + 60.0
        assert (await tracer.read()).ok
        assert transports[0].get_extra_info("peername") != transports[1].get_extra_info("peername")
        for transport in transports:
            transport.abort()
    assert not controller.load_on
