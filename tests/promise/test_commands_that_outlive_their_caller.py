"""An abandoned command does not reach the controller later.

The bridges here use real sockets, because the test is about bytes that the kernel still delivers.
"""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import pytest

from tests.promise.bridges import LOOPS, run
from tests.promise.logging_controller import READ, SWITCH, UNANSWERED, WRITE, LoggingController, encode, take_frame
from tests.promise.settings import CALLS, SETTINGS
from tests.promise.veth import cable
from tracer_async import (
    Command,
    LinkClosedError,
    LinkLostError,
    LoadError,
    ResponseTimeoutError,
    TracerClient,
    TracerError,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the tests need Unix sockets' options, and ptys")


OUTPUT_FLUSHES = (termios.TCOFLUSH, termios.TCIOFLUSH)


class LongReading(Command[bytes]):
    """A reading with a long request, which soon fills a receive buffer."""

    code: ClassVar[int] = READ

    def to_bytes(self) -> bytes:
        return bytes(200)

    def decode_reply(self, data: bytes) -> bytes:
        return data


# This many long readings exceed the peer's receive buffer, but fit into the client's send buffer.
FILLING = 15


class Bridge:
    """A listener with a small receive buffer that reads only on request of the test."""

    def __init__(self) -> None:
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"tcp://127.0.0.1:{self.port}"
        self.sock = self._listener
        self.connections: list[socket.socket] = []
        self.peer = ("", 0)
        self.received = bytearray()

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.setblocking(False)
        return listener

    def refuse(self) -> None:
        """Refuse connections until `listen`."""
        self._listener.close()

    def listen(self) -> None:
        self._listener = self._listen(self.port)

    async def accept(self) -> None:
        """Take the next connection."""
        self.sock, self.peer = await asyncio.get_running_loop().sock_accept(self._listener)
        self.sock.setblocking(False)
        self.connections.append(self.sock)
        self.received.clear()

    async def request(self) -> int:
        """Wait for the next request; return its command."""
        while not (frame := take_frame(self.received)):
            self.received += await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        return frame[1]

    async def answer_reading(self) -> None:
        """Wait for a reading, and answer it: the load is off."""
        assert await self.request() == READ
        await asyncio.get_running_loop().sock_sendall(self.sock, encode(0, READ, bytes(24)))

    async def end(self) -> str:
        """Read to the end of the connection; return how it ended."""
        try:
            while chunk := await asyncio.get_running_loop().sock_recv(self.sock, 65536):
                self.received += chunk
        except ConnectionResetError:
            return "reset"
        return "closed"

    def received_command(self, code: int) -> bool:
        """Whether a request with *code* has been received."""
        while frame := take_frame(self.received):
            if frame[1] == code:
                return True
        return False

    def close(self) -> None:
        self._listener.close()
        for sock in self.connections:
            sock.close()


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


def client(url: str, *, max_timeouts: int, timeout: float = 0.02) -> TracerClient:
    """A client that gives up soon."""
    return TracerClient(url, timeout=timeout, fence=0.0, retries=0, max_timeouts=max_timeouts, backoff=(0.01, 0.01))


async def begin(bridge: Bridge, tracer: TracerClient) -> None:
    """Answer one reading, so that the next command is sent without another one."""
    while not tracer.stats.answers:  # on a busy machine an answer may come too late
        reading = asyncio.create_task(tracer.read_realtime())
        await bridge.answer_reading()
        with suppress(ResponseTimeoutError):
            await reading
    await asyncio.sleep(0.3)


async def fill(tracer: TracerClient) -> None:
    """Send more than the receive buffer of a bridge that does not read."""
    for _ in range(FILLING):
        with suppress(ResponseTimeoutError):
            await tracer.execute(LongReading())


@pytest.mark.parametrize(("call", "code"), CALLS)
@pytest.mark.parametrize("given_up", ["closed by the user", "not answering"])
async def test_giving_up_a_link_discards_a_command_that_the_kernel_has_not_delivered(
    bridge: Bridge, call: Any, code: int, given_up: str
) -> None:
    async with client(bridge.url, max_timeouts=FILLING + 1 if given_up == "not answering" else 1000) as tracer:
        await bridge.accept()
        await begin(bridge, tracer)
        await fill(tracer)
        sock, peer = bridge.sock, bridge.peer
        requests = tracer.stats.requests
        calling = asyncio.create_task(call(tracer))
        while tracer.stats.requests == requests:
            await asyncio.sleep(0)
        if given_up == "not answering":
            await bridge.accept()
            assert bridge.peer == peer  # the client's local port, seen from here
            bridge.sock = sock
        await tracer.aclose()
        assert await bridge.end() == "reset"
        assert bridge.received
        assert not bridge.received_command(code)
        with pytest.raises((LinkClosedError, LoadError, ResponseTimeoutError)):
            await calling


async def test_each_attempt_uses_the_same_local_port_until_a_link_is_up(bridge: Bridge) -> None:
    async with client(bridge.url, max_timeouts=FILLING + 1) as tracer:
        await bridge.accept()
        await begin(bridge, tracer)
        await fill(tracer)
        peer = bridge.peer
        bridge.refuse()
        with pytest.raises((LoadError, ResponseTimeoutError)):
            await tracer.write_settings(SETTINGS)
        await asyncio.sleep(0.3)  # some attempts are refused
        bridge.listen()
        await bridge.accept()
        assert bridge.peer == peer


@pytest.mark.parametrize(("call", "code"), CALLS)
async def test_a_link_without_undelivered_bytes_is_closed_without_a_reset_and_the_next_one_uses_a_new_port(
    bridge: Bridge, call: Any, code: int
) -> None:
    async with client(bridge.url, max_timeouts=1, timeout=0.2) as tracer:  # longer than a kernel delays ACKs
        await bridge.accept()
        await begin(bridge, tracer)
        calling = asyncio.create_task(call(tracer))
        while await bridge.request() != code:
            pass
        assert await bridge.end() == "closed"
        peer = bridge.peer
        await bridge.accept()
        assert bridge.peer != peer
        await tracer.aclose()
        with pytest.raises(TracerError):
            await calling


@pytest.mark.parametrize(("call", "code"), CALLS)
@pytest.mark.parametrize("outcome", ["cancelled", "cancelled before a reading", "failed"])
async def test_a_link_whose_kernel_still_holds_a_command_is_reset_when_the_command_is_abandoned(
    bridge: Bridge, call: Any, code: int, outcome: str
) -> None:
    """No other rule closes the link: that would need 1,000 timeouts."""
    async with client(bridge.url, max_timeouts=1000) as tracer:
        await bridge.accept()
        await begin(bridge, tracer)
        await fill(tracer)
        given_up = bridge.sock
        requests = tracer.stats.requests
        calling = asyncio.create_task(call(tracer))
        while tracer.stats.requests == requests:
            await asyncio.sleep(0)
        if outcome != "failed":
            calling.cancel()
        with suppress(asyncio.CancelledError, LoadError, ResponseTimeoutError):
            await calling
            pytest.fail("it was not answered")
        if outcome == "cancelled before a reading":
            with suppress(TracerError):
                await tracer.read_realtime()
        async with asyncio.timeout(10):
            await bridge.accept()  # the bridge has read nothing yet
        bridge.sock = given_up
        assert await bridge.end() == "reset"
        assert bridge.received
        assert not bridge.received_command(code)


async def test_unanswered_readings_do_not_reset_a_link(bridge: Bridge) -> None:
    async with client(bridge.url, max_timeouts=1000) as tracer:
        await bridge.accept()
        await begin(bridge, tracer)
        await fill(tracer)
        await tracer.aclose()
        assert await bridge.end() == "closed"


@pytest.mark.parametrize(("call", "code"), CALLS)
@pytest.mark.parametrize("backend", ["pyserial", "serialx"])
async def test_giving_up_a_serial_link_flushes_its_output_queue(
    monkeypatch: pytest.MonkeyPatch, backend: str, call: Any, code: int
) -> None:
    pytest.importorskip("serial_asyncio" if backend == "pyserial" else "serialx")
    flushed: list[str] = []
    flush = termios.tcflush

    def record(descriptor: int, queue: int) -> None:
        if queue in OUTPUT_FLUSHES:
            flushed.append(os.ttyname(descriptor))  # fails if the descriptor is closed already
        flush(descriptor, queue)

    monkeypatch.setattr(termios, "tcflush", record)
    if backend == "serialx":
        import serialx.platforms.serial_posix

        monkeypatch.setattr(serialx.platforms.serial_posix, "tcflush", record)
    with open_pty() as (master, path):
        loop = asyncio.get_running_loop()
        controller = LoggingController()
        controller.plan(code, UNANSWERED)
        controller.attach(lambda data: write(master, data))
        loop.add_reader(master, lambda: controller.receive(os.read(master, 4096)))
        try:
            async with TracerClient(f"serial://{path}?backend={backend}", timeout=10) as tracer:
                calling = asyncio.create_task(call(tracer))
                while not controller.sent(code):
                    await asyncio.sleep(0.01)
                flushed.clear()
                await tracer.aclose()
                assert path in flushed
                with pytest.raises((LinkClosedError, LoadError)):
                    await calling
        finally:
            loop.remove_reader(master)


def write(descriptor: int, data: bytes) -> None:
    os.write(descriptor, data)


@contextmanager
def open_pty() -> Iterator[tuple[int, str]]:
    """The controller's end of a serial line, and the path of the client's end."""
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        yield master, os.ttyname(slave)
    finally:
        os.close(master)
        os.close(slave)


def test_after_an_outage_no_old_command_changes_the_load() -> None:
    """The network loses everything for 1.6 s. The client sends a command in that time and abandons it."""
    with ThreadPoolExecutor(1) as thread:  # the network namespaces are those of a thread
        thread.submit(lambda: asyncio.run(switch_during_an_outage())).result()


async def switch_during_an_outage() -> None:
    loop = asyncio.get_running_loop()
    controller = LoggingController()
    ends: list[str] = []
    with cable() as line, line.listen() as listener:
        serving = asyncio.create_task(serve(listener, controller, ends))
        host, port = listener.getsockname()
        options: dict[str, Any] = {"retries": 0, "max_timeouts": 1, "connect_timeout": 1.5, "backoff": (0.05, 0.1)}
        async with TracerClient(f"tcp://{host}:{port}", timeout=0.2, fence=0.1, **options) as tracer:
            await tracer.read()
            await asyncio.sleep(0.3)
            line.unplug()
            loop.call_later(1.6, line.plug_in)
            with pytest.raises(LoadError):
                await tracer.set_load(True)
            while True:
                with suppress(TracerError):
                    await tracer.set_load(False)
                    break
            switched = len(controller.requests)
            await asyncio.sleep(2)
            assert not any(request.load_on for request in controller.requests)
            assert len(controller.requests) == switched
            # The bridge knows that the old connection is closed, although the reset was lost in the outage.
            assert ends == ["reset"]
        serving.cancel()
        await asyncio.wait([serving])


async def serve(listener: socket.socket, controller: LoggingController, ends: list[str]) -> None:
    """A bridge for many clients; notes how each connection ended."""
    loop = asyncio.get_running_loop()

    async def serve_one(sock: socket.socket) -> None:
        def send(data: bytes) -> None:
            with suppress(OSError):
                sock.send(data)

        controller.attach(send)
        with sock:
            try:
                while data := await loop.sock_recv(sock, 4096):
                    controller.attach(send)
                    controller.receive(data)
                ends.append("closed")
            except ConnectionResetError:
                ends.append("reset")

    async with asyncio.TaskGroup() as connections:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            connections.create_task(serve_one(sock))


# A command that was cancelled, but delivered: the requests after it are not taken for it.


def test_a_request_that_the_network_delays_is_not_taken_for_a_cancelled_command() -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(read_slowly_after_a_cancelled_switch())).result()


async def read_slowly_after_a_cancelled_switch() -> None:
    loop = asyncio.get_running_loop()
    controller = LoggingController()
    controller.plan(SWITCH, UNANSWERED)
    ends: list[str] = []
    with cable() as line, line.listen() as listener:
        serving = asyncio.create_task(serve(listener, controller, ends))
        host, port = listener.getsockname()
        options: dict[str, Any] = {"timeout": 0.4, "fence": 0.1, "retries": 20, "max_timeouts": 1000}
        async with TracerClient(f"tcp://{host}:{port}", **options) as tracer:
            await tracer.read()
            await asyncio.sleep(0.3)
            calling = asyncio.create_task(tracer.set_load(True))
            while not controller.sent(SWITCH):
                await asyncio.sleep(0.01)
            controller.send(encode(0, WRITE, b""))  # the switch is acknowledged with it
            while not tracer.stats.unsolicited:
                await asyncio.sleep(0.01)
            line.unplug()
            assert calling.cancel()
            # The reading is sent 0.1 s after that, and not acknowledged when the switch is checked, 0.4 s after it.
            loop.call_later(0.7, line.plug_in)
            await tracer.read()
            assert not ends
            assert len(controller.sent(SWITCH)) == 1
            assert tracer.stats.links == 1
        serving.cancel()
        await asyncio.wait([serving])


@pytest.mark.parametrize("backend", ["pyserial", "serialx"])
async def test_on_a_serial_port_the_request_after_a_cancelled_command_is_not_discarded(backend: str) -> None:
    pytest.importorskip("serial_asyncio" if backend == "pyserial" else "serialx")
    with open_pty() as (master, path):
        loop = asyncio.get_running_loop()
        controller = LoggingController()
        controller.plan(SWITCH, UNANSWERED)
        controller.attach(lambda data: write(master, data))
        loop.add_reader(master, lambda: controller.receive(os.read(master, 4096)))
        try:
            url = f"serial://{path}?backend={backend}"
            async with TracerClient(url, timeout=0.3, fence=0.3, retries=0) as tracer:
                calling = asyncio.create_task(tracer.set_load(True))
                while not controller.sent(SWITCH):
                    await asyncio.sleep(0.01)
                assert calling.cancel()
                # Sent when the fence ends, which is also when the cancelled switch is checked.
                await tracer.read()
                assert tracer.stats.links == 1
        finally:
            loop.remove_reader(master)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.slow
def test_calls_that_are_cancelled_again_and_again_do_not_delay_the_end_of_a_stuck_command(loop: Any) -> None:
    """The application has a time limit below the timeout, and goes on to switch during an outage and after it."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: run(loop, cancel_again_and_again())).result()


async def cancel_again_and_again() -> None:
    loop = asyncio.get_running_loop()
    controller = LoggingController()
    ends: list[str] = []
    with cable() as line, line.listen() as listener:
        serving = asyncio.create_task(serve(listener, controller, ends))
        host, port = listener.getsockname()
        async with TracerClient(f"tcp://{host}:{port}", timeout=0.3, fence=0.1, max_timeouts=1000) as tracer:
            await tracer.set_load(True)
            await asyncio.sleep(0.3)
            line.unplug()
            loop.call_later(1.0, line.plug_in)
            for on in [False] + 20 * [True]:
                with suppress(TimeoutError, TracerError):
                    async with asyncio.timeout(0.2):
                        await tracer.set_load(on)
            assert all(request.load_on for request in controller.requests if request.command == SWITCH)
        serving.cancel()
        await asyncio.wait([serving])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("call", "code"), CALLS)
def test_a_bridge_that_closes_only_its_sending_direction_does_not_get_the_command_later(
    loop: Any, call: Any, code: int
) -> None:
    async def main() -> None:
        bridge = Bridge()
        try:
            async with client(bridge.url, max_timeouts=1000) as tracer:
                await bridge.accept()
                await begin(bridge, tracer)
                await fill(tracer)
                requests = tracer.stats.requests
                calling = asyncio.create_task(call(tracer))
                while tracer.stats.requests == requests:
                    await asyncio.sleep(0)
                bridge.sock.shutdown(socket.SHUT_WR)
                with pytest.raises((LoadError, ResponseTimeoutError, LinkLostError)):
                    await calling
                assert await bridge.end() == "reset"
                assert not bridge.received_command(code)
        finally:
            bridge.close()

    run(loop, main())
