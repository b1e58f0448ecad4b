"""A controller in its own thread behind each kind of connection that the blocking client can open."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import require
from tests.promise.stamping_controller import Replies, Request, Script, StampingController, answer
from tests.promise.stamping_lines import Line, line_of
from tracer_async import Reading
from tracer_async.sync import TracerClient


def client(line: Line, **options: Any) -> TracerClient:
    """A client with short delays."""
    defaults: dict[str, Any] = {"backoff": (0.01, 0.05), "timeout": 2.0, "fence": 0.05}
    return TracerClient(line.url, ssl_context=line.ssl_context, **defaults | options)


def checked(controller: StampingController, reading: Reading) -> int:
    """Judge a reading. Return its number."""
    assert reading.data is not None, reading.error
    number = controller.number(reading.data.battery_voltage, reading.data.charge_current)
    controller.judge(reading, number)
    return number


def soon(controller: StampingController, request: Request) -> Replies:
    """Answer after a moment, so that replies to interrupted requests come later."""
    return [(0.003, controller.execute(request))]


@contextmanager
def socat(script: Script) -> Iterator[Line]:
    """A pty that socat connects to a TCP port."""
    with line_of("tcp", script) as line, TemporaryDirectory() as folder:
        port = Path(folder, "port")
        command = [
            require("socat"),
            "-d",
            "-d",
            f"PTY,link={port},raw,echo=0",
            f"TCP:{line.url.removeprefix('tcp://')}",
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                assert any("starting data transfer loop" in text for text in process.stderr)
                yield line._replace(url=f"serial://{port}")
            finally:
                process.terminate()


@contextmanager
def all_kinds(kind: str, script: Script = answer) -> Iterator[Line]:
    """Serve a controller on a line of one *kind*."""
    with ExitStack() as stack:
        if kind == "socat":
            yield stack.enter_context(socat(script))
        else:
            yield stack.enter_context(line_of("pyserial" if kind == "pty" else kind, script))


KINDS = ["tcp", "tls", "unix", "pty", pytest.param("socat", marks=pytest.mark.slow)]

Lines = Callable[..., Line]


@pytest.fixture(params=KINDS)
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    """A function that serves a controller with a script, on each kind of connection."""
    with ExitStack() as stack:
        yield lambda script=answer: stack.enter_context(all_kinds(request.param, script))
