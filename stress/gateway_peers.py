"""What surrounds the gateway of `stress.soak_gateway`, each with the faults that it has once a minute."""

from __future__ import annotations

import http.client
import http.server
import json
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["Broker", "InfluxStub", "StreamReader", "lock", "program", "scrape"]


def program(name: str) -> str:
    """Return the path of a system program. Raises FileNotFoundError."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise FileNotFoundError(f"{name} is not installed")
    return path


class Broker:
    """Mosquitto that is killed and started again, with a mosquitto_sub that writes to a file what it gets."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            self.port = int(unused.getsockname()[1])
        self.received = folder / "mqtt.txt"
        self.killed: list[float] = []
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n"
            "max_queued_messages 100000\n"
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start both."""
        broker = subprocess.Popen([program("mosquitto"), "-c", str(self._config)], stderr=subprocess.DEVNULL)
        self._processes.append(broker)
        until = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                break
            if time.monotonic() > until:
                raise TimeoutError("mosquitto does not start")
            time.sleep(0.02)
        # Time of arrival, topic, payload.
        command = [program("mosquitto_sub"), "-V", "5", "-p", str(self.port), "-t", "tracer/#", "-F", "%U %t %p"]
        with self.received.open("ab") as file:
            self._processes.append(subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL))

    def kill(self) -> None:
        """Kill both."""
        self.killed.append(time.time())
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()


class InfluxStub:
    """Keeps the lines that are posted to it. While it is sick it refuses them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.sick = False
        self.refused = 0
        stub = self

        class Request(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if stub.sick:
                    stub.refused += 1
                else:
                    stub.lines += body.decode().split("\n")
                self.send_response(503 if stub.sick else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


class StreamReader:
    """Reads an event stream, as an open page of the dashboard does."""

    def __init__(self, port: int) -> None:
        self.events = 0
        self._port = port
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request("GET", "/api/events")
        with suppress(OSError, http.client.HTTPException):
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    json.loads(line[6:])
                    self.events += 1


@contextmanager
def lock(file: Path) -> Iterator[None]:
    """Lock a SQLite database for writing."""
    database = sqlite3.connect(file, timeout=30, isolation_level=None)
    try:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")
    finally:
        database.close()


def scrape(port: int) -> dict[str, float]:
    """Return the metrics of the gateway, by name and labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
