"""The gateway: one controller with everything on, 1,000 controllers with every reading checked, a year of history."""

from __future__ import annotations

import re
import resource
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.gateway_history import write_history
from benchmarks.gateway_service import Service, broker, gateway, influx_stub, mosquitto, table
from benchmarks.measure import Effort, Spread, heard, percentile, running, tell
from benchmarks.page import Row, Table, Target, main

COMMAND = "python -m benchmarks.gateway"

_SCRAPE_SECONDS = 5.0


class Load(NamedTuple):
    """What a gateway used while it was watched."""

    cpu: float
    """Share of a core."""
    memory: int
    """Bytes of resident memory at the end."""
    scrape: float
    """Seconds of the slowest scrape."""


def watched(service: Service, seconds: float) -> Load:
    """Scrape the metrics every 5 s for *seconds*."""
    before, begun = service.usage(), time.monotonic()
    scrapes = []
    while (left := begun + seconds - time.monotonic()) > 0:
        at = time.monotonic()
        service.get("/metrics")
        scrapes.append(time.monotonic() - at)
        time.sleep(min(_SCRAPE_SECONDS, left))
    after = service.usage()
    return Load(before.share_until(after), after.memory, max(scrapes))


def wait_until_online(service: Service, count: int) -> None:
    """Wait until all controllers have answered."""
    while len(re.findall(rb"(?m)^tracer_up\{.*\} 1\.0$", service.get("/metrics"))) < count:
        time.sleep(0.2)


@contextmanager
def _event_stream(service: Service) -> Iterator[None]:
    """Read an event stream, as a page in a browser does."""
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")

        def read() -> None:
            while connection.recv(65536):
                pass

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        yield
        connection.shutdown(socket.SHUT_RDWR)
        reader.join()


def one_controller(warm_up: float, seconds: float) -> Load:
    """Measure a gateway with one controller that is read every 5 s, and all outputs."""
    with TemporaryDirectory() as name, running("gateway_controllers", 1) as controllers, ExitStack() as stack:
        folder = Path(name)
        tables = [
            table("controllers.c0", url=f"127.0.0.1:{heard(controllers)[0]}", interval=5.0),
            table("mqtt", url=f"mqtt://127.0.0.1:{stack.enter_context(broker(folder))}"),
            table("influx", url=f"http://127.0.0.1:{stack.enter_context(influx_stub())}"),
            "[history]\n",
        ]
        service = stack.enter_context(gateway(folder / "gateway", tables))
        wait_until_online(service, 1)
        stack.enter_context(_event_stream(service))
        time.sleep(warm_up)
        load = watched(service, seconds)
        service.end()
    return load


class Fleet(NamedTuple):
    """What a gateway with many controllers did."""

    load: Load
    answers: int
    """Readings that the controllers have given."""
    late: int
    """Of these, how many came so late that the gateway had to discard them."""
    not_in_mqtt: int
    not_in_history: int
    dropped: int
    latencies: list[float]
    """Seconds from the time in a state to its arrival at a subscriber."""


def many_controllers(size: int, interval: float, flush_seconds: float, seconds: float) -> Fleet:
    """Measure a gateway with *size* controllers, and look for each of their answers in MQTT and in the database."""
    with TemporaryDirectory() as name, running("gateway_controllers", size) as controllers, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(broker(folder))
        subscriber = stack.enter_context(running("gateway_subscriber", port))
        assert heard(subscriber) == "ready"
        tables = [
            *(
                table(f"controllers.c{number}", url=f"127.0.0.1:{each}", interval=interval)
                for number, each in enumerate(heard(controllers))
            ),
            table("mqtt", url=f"mqtt://127.0.0.1:{port}"),
            table("history", flush_seconds=flush_seconds),
        ]
        service = stack.enter_context(gateway(folder / "gateway", tables))
        wait_until_online(service, size)
        time.sleep(2 * interval + 2.0)  # the announcements are made
        tell(controllers, "count")
        before = heard(controllers)
        load = watched(service, seconds)
        tell(controllers, "hush")
        after = heard(controllers)
        time.sleep(0.5)  # the last answers arrive
        dropped = total(service, "tracer_output_dropped_total")
        late = total(service, "tracer_late_replies_total")
        service.end()
        tell(subscriber, "report")
        states = heard(subscriber)
        stored = rows_of(folder / "gateway" / "history.db")
    answers = {
        (f"c{number}", count & 0xFFFF)
        for number, (first, last) in enumerate(zip(before, after, strict=True))
        for count in range(first + 1, last + 1)
    }
    latencies = [late for name, count, late in states if (name, count) in answers]
    published = {(name, count) for name, count, _ in states}
    return Fleet(load, len(answers), late, len(answers - published), len(answers - stored), dropped, latencies)


def total(service: Service, metric: str) -> int:
    """Return the sum of a counter over all controllers or outputs."""
    values = re.findall(rf"(?m)^{metric}{{.*}} (.*)$", service.get("/metrics").decode())
    return round(sum(map(float, values)))


def rows_of(file: Path) -> set[tuple[str, int]]:
    """Return controller and PV voltage, which numbers the answers, of each row in the database."""
    query = "SELECT id, pv_voltage FROM tracer_readings JOIN tracer_controllers ON key = controller"
    database = sqlite3.connect(file)
    try:
        return set(database.execute(query))
    finally:
        database.close()


class Answers(NamedTuple):
    """How long the gateway took to answer what the dashboard asks about the history."""

    rows: int
    seconds: dict[str, list[float]]
    """By the period that was asked for."""


def history(days: int, repeats: int) -> Answers:
    """Measure requests for the history, from the request to the last byte of the answer."""
    with TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name) / "gateway"
        folder.mkdir()
        rows = write_history(folder / "history.db", days)
        tables = [table("controllers.c0", url="sim:", interval=1.0), table("history", flush_seconds=1.0)]
        service = stack.enter_context(gateway(folder, tables))
        wait_until_online(service, 1)
        end = datetime.now(UTC)
        seconds: dict[str, list[float]] = {}
        for period, length in (("6 h", 0.25), ("a day", 1.0), ("a week", 7.0), ("a month", 30.0), ("a year", 365.0)):
            query = f"from={(end - timedelta(days=length)).timestamp():.0f}&to={end.timestamp():.0f}"
            seconds[period] = [_time_of(service, f"/api/controllers/c0/history?{query}") for _ in range(repeats)]
        service.end()
    return Answers(rows, seconds)


def _time_of(service: Service, path: str) -> float:
    begun = time.perf_counter()
    body = service.get(path)
    taken = time.perf_counter() - begun
    assert len(body) > 1000, body
    return taken


def run(effort: Effort) -> Row:
    """Measure all of them."""
    how = (
        "The command `tracer-async gateway` in a process of its own, against controllers, a broker (Mosquitto) and a "
        "subscriber in other processes. Its metrics are scraped every 5 s. CPU is the process time of the gateway, "
        "memory its resident size. Latency is from the time in a state to the moment when the subscriber has it; the "
        "broker has `set_tcp_nodelay true`, because otherwise it delays messages by up to 40 ms. "
        "Each controller numbers its answers; each of them is looked for in what the subscriber got, and in the "
        "database."
    )
    targets, tables, notes = [], [], []
    if mosquitto() is None:
        notes.append("MQTT: not measured: mosquitto is not installed")
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # children inherit it
        some, some_table = _one_controller(effort)
        many, many_table = _many_controllers(effort)
        targets, tables = [*some, *many], [some_table, many_table]
    more, more_table = _history(effort)
    return Row("Gateway", COMMAND, how, [*targets, *more], [*tables, more_table], notes)


def _one_controller(effort: Effort) -> tuple[list[Target], Table]:
    warm_up, seconds = effort.pick((10.0, 40.0), (5.0, 20.0), (0.5, 1.0))
    loads = [one_controller(warm_up, seconds) for _ in range(effort.pick(3, 1, 1))]
    cpu = Spread.of(100 * load.cpu for load in loads)
    memory = Spread.of(load.memory / 1e6 for load in loads)
    what = "1 controller at 5 s, everything on"
    targets = [
        Target(f"CPU, {what}", "under 0.5 % of a core", f"{cpu.text('{:.2f}')} %", cpu.median < 0.5),
        Target(f"memory, {what}", "under 110 MB", f"{memory.text('{:.0f}')} MB", memory.median < 110),
    ]
    rows = [("MQTT, history, metrics, Influx, one open page", cpu.text("{:.2f}"), memory.text("{:.0f}"))]
    columns = ("outputs", "CPU, % of a core", "memory, MB")
    return targets, Table(f"1 controller at 5 s, for {seconds:g} s:", columns, rows)


def _many_controllers(effort: Effort) -> tuple[list[Target], Table]:
    size, interval = effort.pick((1000, 1.0), (1000, 1.0), (3, 0.2))
    flush, seconds = effort.pick((60.0, 130.0), (5.0, 15.0), (1.0, 1.0))
    seen = many_controllers(size, interval, flush, seconds)
    p50, p99, worst = (1e3 * percentile(seen.latencies, share) for share in (0.5, 0.99, 1.0))
    what = f"{size:,} controllers at {interval:g} s"
    missing = f"{seen.not_in_mqtt:,} and {seen.not_in_history:,} of {seen.answers:,}"
    complete = max(seen.not_in_mqtt, seen.not_in_history) <= seen.late and not seen.dropped
    targets = [
        Target(f"reading to MQTT at p99, {what}", "under 100 ms", f"{p99:.0f} ms", p99 < 100),
        Target(f"readings not in MQTT, not in SQLite, {what}", "only late ones, no drops", missing, complete),
    ]
    columns = ("controllers", "readings", "CPU, % of a core", "memory, MB", "slowest scrape, ms", "to MQTT p50, ms",
               "p99, ms", "at most, ms", "answers too late", "not in MQTT", "not in SQLite", "dropped")  # fmt: skip
    row = (
        f"{size:,}", f"{seen.answers:,}", f"{100 * seen.load.cpu:.0f}", f"{seen.load.memory / 1e6:.0f}",
        f"{1e3 * seen.load.scrape:.0f}", f"{p50:.0f}", f"{p99:.0f}", f"{worst:.0f}", f"{seen.late:,}",
        f"{seen.not_in_mqtt:,}", f"{seen.not_in_history:,}", f"{seen.dropped:,}",
    )  # fmt: skip
    title = f"Many controllers, with MQTT, metrics and SQLite (a transaction each {flush:g} s), for {seconds:g} s:"
    return targets, Table(title, columns, [row])


def _history(effort: Effort) -> tuple[list[Target], Table]:
    answers = history(effort.pick(365, 365, 20), effort.pick(30, 10, 2))
    times = {period: Spread.of(1e3 * each for each in seconds) for period, seconds in answers.seconds.items()}
    year = times["a year"]
    target = Target("a year by `/history`", "within 200 ms", f"{year.text()} ms", year.median <= 200)
    rows = [(period, spread.text()) for period, spread in times.items()]
    return [target], Table(f"History over HTTP, from {answers.rows:,} rows:", ("period", "ms"), rows)


if __name__ == "__main__":
    sys.exit(main(run))
