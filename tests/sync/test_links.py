"""The blocking client on each kind of connection: right values and ages, whatever came while nobody called."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.conftest import require
from tests.peer import SETTINGS
from tests.promise.stamping_controller import LOAD, READ, Replies, Request, StampingController, answer, frame, realtime
from tests.promise.stamping_controller import SETTINGS as WRITE
from tests.promise.stamping_lines import line_of
from tests.sync.lines import Lines, checked, client
from tracer_async import (
    AddressError,
    Command,
    ConnectionState,
    HostNotFoundError,
    LinkClosedError,
    LinkLostError,
    LinkRefusedError,
    LinkTimeoutError,
    LoadState,
    PortBusyError,
    PortNotFoundError,
    ResponseTimeoutError,
)
from tracer_async.client import _suspend
from tracer_async.sync import TracerClient

pytestmark = pytest.mark.slow


def test_readings_loads_and_settings(lines: Lines) -> None:
    line = lines()
    controller = line.controller
    with client(line) as tracer:
        assert str(tracer.state) == "up"
        assert checked(controller, tracer.read()) == 0
        assert tracer.read_realtime().battery_voltage == 0.01
        assert tracer.read_realtime(max_age=60.0).battery_voltage == 0.01
        for on in (True, False):
            assert tracer.set_load(on) is LoadState(on)
            assert controller.load_on is on
            assert tracer.read_realtime(max_age=60.0).load_on is on
        tracer.write_settings(SETTINGS)
        assert controller.settings == SETTINGS.to_bytes()
        assert tracer.stats.links == 1
    assert str(tracer.state) == "closed"


def test_a_reply_that_came_while_nobody_called_is_not_an_answer(lines: Lines) -> None:
    line = lines()
    controller = line.controller
    with client(line) as tracer:
        for _ in range(2):
            before = checked(controller, tracer.read())
            controller.push(controller.measure())
            time.sleep(0.01)  # the application is busy for longer than a byte takes on a serial line
            assert checked(controller, tracer.read()) > before + 1
        assert tracer.stats.unsolicited == 2


def test_a_copy_of_an_answer_that_came_while_nobody_called_does_not_confirm_a_load(lines: Lines) -> None:
    line = lines(DeafAfterFirstSwitch())
    controller = line.controller
    with client(line, timeout=0.2, retries=0) as tracer:
        tracer.set_load(True)
        controller.push(frame(LOAD, b"\x01"))
        time.sleep(0.01)
        controller.load_on = False
        with pytest.raises(Exception, match="load is off"):
            tracer.set_load(True)


class DeafAfterFirstSwitch:
    def __init__(self) -> None:
        self.switches = 0

    def __call__(self, controller: StampingController, request: Request) -> Replies:
        self.switches += request.command == LOAD
        return [] if request.command == LOAD and self.switches > 1 else answer(controller, request)


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix"])
def test_a_connection_that_was_closed_while_nobody_called_is_opened_again(kind: str) -> None:
    with line_of(kind) as line, client(line) as tracer:
        for links in range(1, 4):
            checked(line.controller, tracer.read())
            assert tracer.stats.links == links
            line.controller._wire.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


def test_a_reading_is_repeated_on_the_next_connection_and_settings_are_not() -> None:
    def hang_up_once(controller: StampingController, request: Request) -> Replies:
        if controller.count(request.command) == (2 if request.command == READ else 1):
            controller._wire.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
            return []
        return answer(controller, request)

    with line_of("tcp", hang_up_once) as line, client(line) as tracer:
        tracer.read()
        checked(line.controller, tracer.read())
        assert tracer.stats.links == 2
        with pytest.raises(LinkLostError):
            tracer.write_settings(SETTINGS)
        checked(line.controller, tracer.read())
        assert line.controller.count(WRITE) == 1


def test_a_silent_connection_is_opened_again_after_max_timeouts() -> None:
    def silent_at_first(controller: StampingController, request: Request) -> Replies:
        return answer(controller, request) if controller.connections > 1 else []

    options: dict[str, Any] = {"timeout": 0.05, "fence": 0.0, "retries": 2, "max_timeouts": 3}
    with line_of("tcp", silent_at_first) as line, client(line, **options) as tracer:
        with pytest.raises(ResponseTimeoutError):
            tracer.read()
        checked(line.controller, tracer.read())
        assert tracer.stats.links == 2


def test_after_a_suspend_the_connection_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    suspended = 0.0
    monkeypatch.setattr(_suspend, "suspended_seconds", lambda: suspended)
    with line_of("pyserial") as line, client(line) as tracer:
        tracer.read()
        line.controller.push(line.controller.measure())
        time.sleep(0.01)
        suspended = 3600.0
        assert checked(line.controller, tracer.read()) == 2
        assert tracer.stats.links == 2
        assert tracer.read_realtime(max_age=60.0).battery_voltage == 0.02
        time.sleep(0.01)  # within a millisecond of the last byte, only the reply to another request shows the suspend
        suspended = 7200.0
        assert tracer.read_realtime(max_age=1e6).battery_voltage == 0.03


# Opening.


def test_each_failure_to_open_has_its_own_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    (tmp_path / "file").touch()
    for url, kind in {
        f"tcp://127.0.0.1:{port}": LinkRefusedError,
        "tcp://no.such.host.invalid:1": HostNotFoundError,
        "tcp://a..b:1": HostNotFoundError,
        f"serial://{tmp_path}/none": PortNotFoundError,
        f"serial://{tmp_path}/file": PortNotFoundError,
        f"unix://{tmp_path}/none": PortNotFoundError,
    }.items():
        with pytest.raises(kind):
            TracerClient(url).open()
    with pytest.raises(AddressError, match="pyserial"):
        TracerClient("serial:///dev/ttyUSB0?backend=serialx")
    with line_of("pyserial") as line, client(line), pytest.raises(PortBusyError):
        client(line).open()


@pytest.mark.parametrize("scheme", ["tcp", "tls", "unix"])
def test_an_attempt_to_connect_is_limited(scheme: str, tmp_path: Path) -> None:
    if scheme == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen(0)
        url = f"unix://{tmp_path}/socket"
        fill = [socket.socket(socket.AF_UNIX)]
        fill[0].connect(str(tmp_path / "socket"))
    else:
        listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        fill = [socket.socket() for _ in range(2)] if scheme == "tcp" else []
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
    with pytest.raises(LinkTimeoutError):
        TracerClient(url, connect_timeout=0.1).open()
    for sock in [listener, *fill]:
        sock.close()


def test_a_client_is_opened_once() -> None:
    tracer = TracerClient("sim:")
    with pytest.raises(LinkClosedError, match="with TracerClient"):
        tracer.read()
    assert set(tracer.stats) == {0}
    with tracer:
        with pytest.raises(LinkClosedError, match="already"):
            tracer.open()
        tracer.read()
    tracer.close()
    for call in (tracer.read, tracer.open):
        with pytest.raises(LinkClosedError, match="closed"):
            call()


def test_start_offline_connects_with_the_first_call() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    with TracerClient(url, start_offline=True, connect_timeout=0.1, backoff=(0.01, 0.01)) as tracer:
        assert str(tracer.state) == "connecting"
        with pytest.raises(LinkTimeoutError, match="last error: refused") as caught:
            tracer.read()
        assert isinstance(caught.value.__cause__, LinkRefusedError)
        assert str(tracer.state) == "down"


# A command whose caller was told that it failed does not arrive later.


class LongReading(Command[bytes]):
    """Soon fills a receive buffer."""

    code: ClassVar[int] = READ

    def to_bytes(self) -> bytes:
        return bytes(200)

    def decode_reply(self, data: bytes) -> bytes:
        return data


@pytest.mark.parametrize(
    "call", [lambda tracer: tracer.write_settings(SETTINGS), lambda tracer: tracer.set_load(True)], ids=["AD", "AA"]
)
def test_an_undelivered_command_is_discarded(call: Callable[[TracerClient], Any]) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        options: dict[str, Any] = {"fence": 0.0, "retries": 0, "max_timeouts": 1000, "backoff": (0.01, 0.01)}
        with TracerClient(url, timeout=0.05, **options) as tracer, listener.accept()[0] as bridge:
            thread = threading.Thread(target=answer_one, args=(bridge,))
            thread.start()
            tracer.read()
            thread.join()
            for _ in range(15):
                with pytest.raises(ResponseTimeoutError):
                    tracer.execute(LongReading())
            with pytest.raises(Exception, match=r"no answer|cannot tell"):
                call(tracer)
            assert tracer.state is ConnectionState.DOWN
            received = b""
            try:
                while chunk := bridge.recv(65536):
                    received += chunk
                ended = "closed"
            except ConnectionResetError:
                ended = "reset"
            assert ended == "reset"
            assert b"\xaa\x01" not in received.replace(b"\xaa\x55", b"")
            assert b"\xad\x07" not in received


def answer_one(sock: socket.socket) -> None:
    assert sock.recv(4096)
    sock.sendall(frame(READ, bytes(24)))


def test_poll_skips_the_ticks_that_passed_and_ends_when_the_client_is_closed() -> None:
    with line_of("tcp") as line, client(line) as tracer:
        readings = tracer.poll(0.05)
        first = next(readings)
        assert (checked(line.controller, first), first.skipped) == (0, 0)
        time.sleep(0.16)  # a slow application
        second = next(readings)
        assert checked(line.controller, second) == 1
        assert second.skipped >= 3
        threading.Thread(target=tracer.close).start()
        for reading in readings:
            assert reading.ok or isinstance(reading.error, LinkClosedError)


def test_ser2net_in_front_of_a_pty(tmp_path: Path) -> None:
    with line_of("pyserial") as line, socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
        unused.close()
        config = tmp_path / "ser2net.yaml"
        device = line.url.removeprefix("serial://").partition("?")[0]
        config.write_text(
            f"connection: &tracer\n  accepter: tcp,127.0.0.1,{port}\n  connector: serialdev,{device},9600n81,local\n"
        )
        with subprocess.Popen([require("ser2net"), "-n", "-c", str(config), "-P", str(tmp_path / "pid")]) as process:
            try:
                options: dict[str, Any] = {"start_offline": True, "backoff": (0.01, 0.1), "connect_timeout": 20.0}
                with TracerClient(f"tcp://127.0.0.1:{port}", **options) as tracer:
                    for _ in range(5):
                        checked(line.controller, tracer.read())
                    tracer.set_load(True)
                    assert line.controller.load_on
            finally:
                process.terminate()


class Recorded:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, recorded: str, now: float, *, timeout: float | None = None) -> None:
        self.told.append(recorded)

    def record(self, sender: str, data: bytes | memoryview, now: float, /) -> None:
        self.told.append((sender, bytes(data)))

    def record_link(self, now: float, *, up: bool, by_client: bool = False, cause: str = "") -> None:
        self.told.append((up, by_client))

    def end(self) -> None:
        self.told.append("end")

    def close(self) -> None:
        self.told.append("close")


def test_a_recorder_gets_all_bytes_and_is_closed() -> None:
    recorder = Recorded()
    with line_of("tcp") as line, client(line, recorder=recorder) as tracer:
        tracer.read()
        reply = frame(READ, realtime(0))
        tracer.close()
        request = bytes.fromhex("AA55AA55AA55EB90EB90EB9016A000B1A77F")
        told = [line.url, (True, False), ("client", request), ("controller", reply), (False, True), "end", "close"]
        assert recorder.told == told
