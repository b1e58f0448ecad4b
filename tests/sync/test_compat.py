"""Old scripts of ``tracermppt`` run with `tracer_async.compat`."""

from __future__ import annotations

import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.promise.stamping_controller import LOAD, READ, Replies, Request, StampingController, answer, frame
from tests.promise.stamping_lines import Line, line_of
from tracer_async import LinkRefusedError, LinkTimeoutError, PortNotFoundError, compat
from tracer_async.sync import TracerClient

pytestmark = pytest.mark.slow

# As its README shows how to use it, with another import line.
SCRIPT = """\
import sys

import tracer_async.compat as tracermppt

if len(sys.argv) == 3:
    t = tracermppt.NetTracer(sys.argv[1], int(sys.argv[2]))
else:
    t = tracermppt.Tracer(sys.argv[1])

try:
    data = t.read_realtime()
except tracermppt.TracerException as e:
    print("error", type(e).__name__)
except IOError as e:
    print("no connection", type(e).__name__)
else:
    for name in sorted(data):
        print(name, data[name])
    print(t.set_load_on(False))
    print(t.set_load_on(True))
    t.send(tracermppt.Commands.ReadRealtime)
    print(t.read(tracermppt.Commands.ReadRealtime)["load_on"])
"""

READINGS = """\
battery_full False
battery_full_voltage 14.4
battery_overload False
battery_temperature 20
battery_voltage 0.0
charge_current 0.0
charging True
load_current 0.0
load_on False
load_short False
over_discharge False
overdischarge_voltage 11.1
overload False
pv_voltage 0.0
{'load_on': False}
{'load_on': True}
True
"""


def arguments(line: Line) -> list[str]:
    """What an old script takes: the path of a port, or host and port."""
    url: str = line.url.partition("?")[0]
    return [url.removeprefix("serial://")] if url.startswith("serial") else url.removeprefix("tcp://").split(":")


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    client = partial(TracerClient, timeout=0.2, fence=0.0, retries=0, connect_timeout=0.2)
    monkeypatch.setattr(compat, "TracerClient", client)


def output(*given: str) -> str:
    return subprocess.run([sys.executable, "-c", SCRIPT, *given], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("kind", ["tcp", "pyserial"])
def test_a_script_runs_with_another_import_line(kind: str) -> None:
    with line_of(kind) as line:
        assert output(*arguments(line)) == READINGS
        assert line.controller.load_on


def test_a_script_catches_errors_of_the_connection_as_it_did(tmp_path: Path, short_times: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = str(unused.getsockname()[1])
    assert output("127.0.0.1", port) == "no connection LinkTimeoutError\n"
    with pytest.raises(OSError, match="no such port") as caught:
        compat.Tracer(f"{tmp_path}/none")
    assert isinstance(caught.value, PortNotFoundError)
    with pytest.raises(LinkTimeoutError) as refused:
        compat.NetTracer("127.0.0.1", int(port)).read_realtime()
    assert isinstance(refused.value.__cause__, LinkRefusedError)


REPLY = frame(READ, bytes(24))
FAULTS = [
    (compat.TracerSyncTimeout, b""),
    (compat.TracerReadTimeout, b"\r\n"),
    (compat.TracerCRCError, REPLY[:20] + b"\x01" + REPLY[21:]),
    (compat.TracerMalformedDataError, frame(READ, bytes(23))),
]


@pytest.mark.parametrize(("kind", "reply"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_each_fault_raises_the_exception_of_tracermppt(kind: type[OSError], reply: bytes, short_times: None) -> None:
    def faulty(controller: StampingController, request: Request) -> Replies:
        return [(0, reply)]

    with line_of("pyserial", faulty) as line:
        tracer = compat.Tracer(arguments(line)[0])
        with pytest.raises(kind) as caught:
            tracer.read_realtime()
        assert isinstance(caught.value, compat.TracerException)
        tracer.close()


def test_a_refused_load_is_reported_as_it_was() -> None:
    def refuses(controller: StampingController, request: Request) -> Replies:
        return [(0, frame(LOAD, b"\x00"))] if request.command == LOAD else answer(controller, request)

    with line_of("tcp", refuses) as line:
        tracer = compat.NetTracer("127.0.0.1", int(arguments(line)[1]))
        assert tracer.set_load_on(True) == {"load_on": False}
        with pytest.raises(compat.TracerSyncTimeout, match=r"send\(\) first"):
            tracer.read()
        tracer.close()


def test_send_raises_an_error_of_the_connection_and_read_only_those_of_tracermppt(short_times: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    tracer = compat.NetTracer("127.0.0.1", port)
    for command, data in [
        (compat.Commands.ReadRealtime, b""),
        (compat.Commands.ReadRealtime, b"\x00"),
        (compat.Commands.ManualControl, b"\x01"),
    ]:
        with pytest.raises(LinkTimeoutError):
            tracer.send(command, data)
        with pytest.raises(compat.TracerSyncTimeout, match=r"send\(\) first"):
            tracer.read()
    tracer.close()


@pytest.mark.parametrize("data", [b"", b"\x00"])
def test_read_raises_what_came_instead_of_the_answer_to_send(data: bytes, short_times: None) -> None:
    def malformed(controller: StampingController, request: Request) -> Replies:
        return [(0, frame(READ, bytes(23)))]

    with line_of("pyserial", malformed) as line:
        tracer = compat.Tracer(arguments(line)[0])
        tracer.send(compat.Commands.ReadRealtime, data)
        with pytest.raises(compat.TracerMalformedDataError):
            tracer.read()
        tracer.close()
