"""Soak of the gateway: everything on, and faults everywhere. Each value in an output is compared with its origin.

``make soak-gateway``, or ``python -m stress.soak_gateway [--minutes 60] [--controllers 20]``.

The lines to the simulated controllers have faults of all kinds. Every minute the broker is killed and started again 3 s
later, the database is locked for 8 s, and the InfluxDB stub refuses everything for 8 s. ``stress/gateway_judge.py``
defines what counts as wrong. Prints figures, and exits with 1 unless all of this holds:

- every reading in MQTT, SQLite and Influx was made by that controller at that time, with these values;
- every reading in one output is in SQLite and Influx, and in MQTT if it was connected at that time; nothing is dropped;
- no total goes back anywhere, and the energy is that of the readings in the database within 1 %;
- memory, tasks, file descriptors and threads do not grow after the first third.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from stress.gateway_peers import Broker, InfluxStub, StreamReader, lock, scrape
from stress.gateway_report import Evidence, report

INTERVAL = 1.0
# Seconds after which the faults of a minute begin, and how long they last.
_BROKER, _BROKER_SECONDS = 5.0, 3.0
_DATABASE, _DATABASE_SECONDS = 20.0, 8.0
_INFLUX, _INFLUX_SECONDS = 35.0, 8.0
# When all is calm again, and the process is examined.
_CALM = 58.0


class Census(NamedTuple):
    """What the process uses at a calm moment."""

    memory: int
    tasks: int
    objects: int
    descriptors: int
    threads: int


class Soak:
    """The gateway, and everything around it."""

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        self.folder = folder
        self.scrapes: list[dict[str, float]] = []
        self.census: list[Census] = []
        self._controllers = subprocess.Popen(
            [sys.executable, "-m", "stress.gateway_controllers", str(count), str(seed), str(folder / "made.txt")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        urls = self._controllers_say()
        self.broker = Broker(folder)
        self.broker.start()
        self.influx = InfluxStub()
        config = folder / "gateway.toml"
        config.write_text(_config(urls, self.broker.port, self.influx.port))
        with (folder / "gateway.log").open("wb") as log:
            self._gateway = subprocess.Popen(
                [sys.executable, "-m", "stress.gateway_process", str(config), str(folder / "counts.txt")], stderr=log
            )
        self._process = psutil.Process(self._gateway.pid)
        self._port = self._find_port()
        self.reader = StreamReader(self._port)

    def _controllers_say(self) -> dict[str, int] | list[str]:
        assert self._controllers.stdout is not None
        said: dict[str, int] | list[str] = json.loads(self._controllers.stdout.readline())
        return said

    def _find_port(self) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until and self._gateway.poll() is None:
            found = re.search(r"dashboard: http://127\.0\.0\.1:(\d+)", self.log)
            if found is not None:
                return int(found[1])
            time.sleep(0.05)
        raise TimeoutError(self.log)

    @property
    def log(self) -> str:
        """What the gateway has logged."""
        return (self.folder / "gateway.log").read_text()

    def minute(self) -> None:
        """Let a minute pass, with its faults."""
        begun = time.monotonic()
        self._wait(begun + _BROKER)
        self.broker.kill()
        self._wait(begun + _BROKER + _BROKER_SECONDS)
        self.broker.start()
        self._wait(begun + _DATABASE)
        with lock(self.folder / "history.db"):
            self._wait(begun + _DATABASE + _DATABASE_SECONDS)
        self._wait(begun + _INFLUX)
        self.influx.sick = True
        self._wait(begun + _INFLUX + _INFLUX_SECONDS)
        self.influx.sick = False
        self._wait(begun + _CALM)
        self._take_census()
        self._wait(begun + 60.0)

    def _wait(self, until: float) -> None:
        """Wait; scrape every 5 s."""
        while (left := until - time.monotonic()) > 0:
            self.scrapes.append(scrape(self._port))
            time.sleep(min(left, 5.0))

    def _take_census(self) -> None:
        path = self.folder / "counts.txt"
        before = path.read_text().count("\n") if path.exists() else 0
        self._gateway.send_signal(signal.SIGUSR1)
        until = time.monotonic() + 10
        while not path.exists() or path.read_text().count("\n") == before:
            if time.monotonic() > until:
                raise TimeoutError("the gateway does not count its tasks")
            time.sleep(0.05)
        tasks, objects = json.loads(path.read_text().splitlines()[-1])
        memory = self._process.memory_info().rss
        self.census.append(Census(memory, tasks, objects, self._process.num_fds(), self._process.num_threads()))

    def end(self) -> tuple[dict[str, int], int, float]:
        """End the gateway in order; return the faults of the lines, its exit code and its seconds of CPU."""
        self.scrapes.append(scrape(self._port))
        times = self._process.cpu_times()
        self._gateway.send_signal(signal.SIGTERM)
        code = self._gateway.wait(timeout=10)
        time.sleep(1.0)  # the last messages arrive
        assert self._controllers.stdin is not None
        self._controllers.stdin.close()
        injected = self._controllers_say()
        assert isinstance(injected, dict)
        return injected, code, times.user + times.system

    def kill(self) -> None:
        """End all processes."""
        self.broker.kill()
        for process in (self._gateway, self._controllers):
            process.kill()
            process.wait()


def _config(urls: object, broker: int, influx: int) -> str:
    assert isinstance(urls, list)
    tables: dict[str, dict[str, object]] = {
        f"controllers.c{number}": {"url": url, "interval": INTERVAL} for number, url in enumerate(urls)
    }
    tables["mqtt"] = {"url": f"mqtt://127.0.0.1:{broker}"}
    tables["web"] = {"listen": "127.0.0.1:0"}
    tables["influx"] = {"url": f"http://127.0.0.1:{influx}", "batch_seconds": 2.0}
    tables["history"] = {"flush_seconds": 5.0}
    tables["energy"] = {"flush_seconds": 5.0}
    return "\n".join(line for name, values in tables.items() for line in _table(name, values))


def _table(name: str, values: dict[str, object]) -> Iterator[str]:
    yield f"[{name}]"
    for key, value in values.items():
        yield f"{key} = {json.dumps(value)}"


def run(minutes: int, count: int, seed: int, folder: Path) -> bool:
    """Run, judge and report; return whether everything was right."""
    soak = Soak(folder, count, seed)
    begun = time.monotonic()
    try:
        for _ in range(minutes):
            soak.minute()
        seconds = time.monotonic() - begun
        injected, code, cpu = soak.end()
    finally:
        soak.kill()
    evidence = Evidence(
        folder=folder,
        interval=INTERVAL,
        seconds=seconds,
        cpu=cpu,
        exit_code=code,
        injected=injected,
        influx_lines=soak.influx.lines,
        influx_refused=soak.influx.refused,
        broker_killed=soak.broker.killed,
        scrapes=soak.scrapes,
        census=[each._asdict() for each in soak.census],
        events=soak.reader.events,
    )
    return report(evidence)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m stress.soak_gateway", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--controllers", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a directory for logs and data, which stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        right = run(options.minutes, options.controllers, options.seed, folder)
    print(f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
