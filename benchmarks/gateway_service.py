"""The gateway as a process, and the programs around it, for `benchmarks.gateway`."""

from __future__ import annotations

import http.client
import http.server
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.measure import ROOT


def mosquitto() -> str | None:
    """Return the path of the broker, which is not on the PATH of every user."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


def wait_for_port(port: int, seconds: float = 20.0) -> None:
    """Wait until something listens on *port*. Raises OSError after *seconds*."""
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """Run Mosquitto; yield its port."""
    program = mosquitto()
    assert program is not None
    port = free_port()
    config = folder / "mosquitto.conf"
    # Without TCP_NODELAY the broker delays what it sends to a subscriber by up to 40 ms.
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\nmax_queued_messages 0\n"
        "set_tcp_nodelay true\n"
    )
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port
    finally:
        process.kill()
        process.wait()


class _Stub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@contextmanager
def influx_stub() -> Iterator[int]:
    """Run a server that takes whatever is posted; yield its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Stub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def table(name: str, **values: object) -> str:
    """Return a table of the configuration."""
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])


class Usage(NamedTuple):
    """What a process has used."""

    time: float
    cpu: float
    """Seconds of CPU."""
    memory: int
    """Bytes of resident memory."""

    def share_until(self, later: Usage) -> float:
        """Return the share of a core that it took between two moments."""
        return (later.cpu - self.cpu) / (later.time - self.time)


class Service:
    """A running gateway."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self._process = process
        self._psutil = psutil.Process(process.pid)
        self.port = self._find_port()

    def _find_port(self) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = re.search(r"dashboard: http://127\.0\.0\.1:(\d+)", self.log)
            if found is not None:
                return int(found[1])
            assert self._process.poll() is None, self.log
            time.sleep(0.05)
        raise TimeoutError(self.log)

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "gateway.log").read_text()

    def usage(self) -> Usage:
        """Return what the process has used until now."""
        times = self._psutil.cpu_times()
        return Usage(time.monotonic(), times.user + times.system, self._psutil.memory_info().rss)

    def get(self, path: str) -> bytes:
        """Return the body of a successful answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, (response.status, body)
            return body
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """Return a decoded answer."""
        return json.loads(self.get(path))

    def end(self) -> None:
        """End it as systemd does, so that everything is written."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(timeout=10) == 0, self.log


@contextmanager
def gateway(folder: Path, tables: Sequence[str]) -> Iterator[Service]:
    """Run the command ``tracer-async gateway`` with a dashboard and *tables* until the block ends."""
    folder.mkdir(exist_ok=True)
    config = folder / "gateway.toml"
    config.write_text("\n".join([*tables, table("web", listen="127.0.0.1:0")]))
    command = [sys.executable, "-m", "tracer_async", "gateway", str(config)]
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        yield Service(folder, process)
    finally:
        process.kill()
        process.wait()
